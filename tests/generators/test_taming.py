"""taming-transformers' own modules against the same weights loaded through `vqgan`, and hostile files in their place."""

import os
import sys
import types

import pytest
import torch
import yaml
from einops import rearrange  # noqa: F401 - what the taming package needs and does not declare
from taming.modules.diffusionmodules.model import Decoder, Encoder
from taming.modules.vqvae.quantize import VectorQuantizer2
from taming_files import CONFIG, DDCONFIG, Taming
from torch import nn

from fmrgen.engine.interfaces import Latents
from fmrgen.errors import UserError
from fmrgen.generators.networks.taming import load_taming
from fmrgen.generators.vqgan import Config


class Tripwire:
    """Runs a command when it is unpickled by an ordinary unpickler."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def foreign_class():
    """An instance of a class whose module is gone when the checkpoint is read."""
    module = types.ModuleType("lightning_callbacks_of_old")
    checkpoint = type("ModelCheckpoint", (), {"__module__": module.__name__, "__qualname__": "ModelCheckpoint"})
    module.ModelCheckpoint = checkpoint
    sys.modules[module.__name__] = module
    instance = checkpoint()
    instance.best = 1.5
    return module.__name__, checkpoint, instance


@pytest.fixture
def official(tmp_path):
    """taming's model, its lightning-style checkpoint with foreign objects, and its yaml."""
    torch.manual_seed(0)
    model = Taming().eval()
    name, cls, instance = foreign_class()
    state = {**model.state_dict(), "loss.discriminator.main.0.weight": torch.zeros(2), "loss.logvar": torch.zeros(())}
    checkpoint = {
        "epoch": 3,
        "state_dict": state,
        "callbacks": {cls: {"best_model": instance}},
        "hyper_parameters": {"lr": 1e-4},
        "optimizer_states": [{"state": {0: {"step": 1}}, "param_groups": [{"lr": 1e-4}]}],
    }
    torch.save(checkpoint, tmp_path / "last.ckpt")
    del sys.modules[name]
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(CONFIG))
    return model, tmp_path


def build(folder, image_size=32, checkpoint="last.ckpt"):
    return Config(checkpoint=str(folder / checkpoint), config=str(folder / "model.yaml"), image_size=image_size).build()


@pytest.mark.parametrize("image_size", [32, 48])
def test_same_latents_codes_and_images(official, image_size):
    model, folder = official
    vqgan = build(folder, image_size)
    images = torch.rand(3, 3, image_size, image_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        latents, codes, expected = model(images)
        free = vqgan.encode(images, torch.zeros(3)).free
        assert (free - latents).abs().max() < 1e-4
        assert torch.equal(vqgan.model.quantize(free)[2][2], codes)
        assert len(codes.unique()) > 5
        assert (vqgan.decode(Latents(free)) - expected).abs().max() < 1e-4


def test_a_command_in_a_checkpoint_is_refused_and_not_run(official):
    model, folder = official
    torch.save({"state_dict": model.state_dict(), "hparams": Tripwire(folder / "ran")}, folder / "bad.ckpt")
    with pytest.raises(
        UserError, match=r"bad.ckpt is not a readable checkpoint, and nothing in it was run .*; save its"
    ):
        build(folder, checkpoint="bad.ckpt")
    assert not (folder / "ran").exists()


def test_gradient_goes_straight_through_the_quantiser(official):
    _, folder = official
    vqgan = build(folder)
    free = vqgan.encode(torch.rand(1, 3, 32, 32), torch.zeros(1)).free.detach().requires_grad_(True)
    vqgan.decode(Latents(free)).sum().backward()
    assert (free.grad != 0).float().mean() > 0.9


def test_the_file_format_of_old_torch_is_refused(official):
    model, folder = official
    checkpoint = {"state_dict": model.state_dict(), "hparams": Tripwire(folder / "ran")}
    torch.save(checkpoint, folder / "old.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(
        UserError, match=r"old.ckpt is not a readable checkpoint, and nothing in it was run .*; save its"
    ):
        build(folder, checkpoint="old.ckpt")
    assert not (folder / "ran").exists()


def test_wrong_files_are_one_line(official, tmp_path):
    model, folder = official
    (folder / "cut.ckpt").write_bytes((folder / "last.ckpt").read_bytes()[:5000])
    (folder / "empty.ckpt").write_bytes(b"")
    torch.save(
        {"state_dict": {**model.state_dict(), "quant_conv.weight": torch.zeros(4, 16, 1, 1)}}, folder / "shape.ckpt"
    )
    few = {"encoder.conv_in.bias": model.encoder.conv_in.bias}
    torch.save({"state_dict": few}, folder / "few.ckpt")
    torch.jit.script(nn.Linear(2, 2)).save(str(folder / "script.ckpt"))
    for name, text in {
        "cut.ckpt": "not a readable checkpoint",
        "empty.ckpt": "not a readable checkpoint",
        "shape.ckpt": r"quant_conv.weight .* has another shape",
        "few.ckpt": "is missing",
        "script.ckpt": "TorchScript",
        "none.ckpt": "no such file",
    }.items():
        with pytest.raises(UserError, match=text):
            build(folder, checkpoint=name)
    (folder / "model.yaml").write_text("model: {params: {embed_dim: 8}}")
    with pytest.raises(UserError, match="not a taming VQGAN config"):
        build(folder)


@pytest.mark.slow
def test_the_published_imagenet_configuration_has_its_known_size(tmp_path):
    """vqgan_imagenet_f16_16384: 76,073,859 weights under 343 keys."""
    ddconfig = {
        **DDCONFIG,
        "z_channels": 256,
        "resolution": 256,
        "ch": 128,
        "ch_mult": [1, 1, 2, 2, 4],
        "attn_resolutions": [16],
    }
    config = {"model": {"params": {"embed_dim": 256, "n_embed": 16384, "ddconfig": ddconfig}}}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(config))
    parts = {
        "encoder": Encoder(**ddconfig),
        "decoder": Decoder(**ddconfig),
        "quantize": VectorQuantizer2(16384, 256, beta=0.25),
    }
    parts |= {"quant_conv": nn.Conv2d(256, 256, 1), "post_quant_conv": nn.Conv2d(256, 256, 1)}
    state = nn.ModuleDict(parts).state_dict()
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    model = load_taming(str(tmp_path / "last.ckpt"), str(tmp_path / "model.yaml"))
    assert len(model.state_dict()) == len(state) == 343
    assert sum(weight.numel() for weight in model.state_dict().values()) == 76_073_859
