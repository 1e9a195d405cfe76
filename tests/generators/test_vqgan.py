"""taming-transformers' and diffusers' own modules against the same weights loaded through `vqgan`, and hostile files."""

import json
import sys
import types

import diffusers
import msgpack
import pytest
import torch
import yaml
from einops import rearrange  # noqa: F401 - what the taming package needs and does not declare
from families import golden
from generator_checks import check_refused
from places import TESTS
from safetensors.torch import save_file
from taming_files import CONFIG, DDCONFIG, Taming, flax_tree
from torch import nn

from fmrgen.engine.interfaces import Latents
from fmrgen.generators.networks.vqgan import Architecture, VqganNetwork
from fmrgen.generators.networks.vqgan_files import load_model, save_model
from fmrgen.generators.vqgan import Config
from fmrgen.weights.assets import resolve_path


@pytest.fixture
def official(tmp_path, monkeypatch):
    """taming's model, its lightning-style checkpoint with foreign objects, and its yaml."""
    torch.manual_seed(0)
    model = Taming().eval()
    module = types.ModuleType("lightning_callbacks_of_old")  # gone when the checkpoint is read
    callback = type("ModelCheckpoint", (), {"__module__": module.__name__, "__qualname__": "ModelCheckpoint"})
    module.ModelCheckpoint = callback
    instance = callback()
    instance.best = 1.5
    monkeypatch.setitem(sys.modules, module.__name__, module)
    state = {**model.state_dict(), "loss.discriminator.main.0.weight": torch.zeros(2), "loss.logvar": torch.zeros(())}
    checkpoint = {
        "epoch": 3,
        "state_dict": state,
        "callbacks": {callback: {"best_model": instance}},
        "hyper_parameters": {"lr": 1e-4},
        "optimizer_states": [{"state": {0: {"step": 1}}, "param_groups": [{"lr": 1e-4}]}],
    }
    torch.save(checkpoint, tmp_path / "last.ckpt")
    monkeypatch.delitem(sys.modules, module.__name__)
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(CONFIG))
    return model, tmp_path


def build(folder, image_size=32):
    files = {"checkpoint": str(folder / "last.ckpt"), "config": str(folder / "model.yaml")}
    return Config(**files, image_size=image_size).build()


@pytest.mark.parametrize("image_size", [32, 48])
def test_same_latents_codes_and_images(official, image_size):
    model, folder = official
    vqgan = build(folder, image_size)
    images = torch.rand(3, 3, image_size, image_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        latents, codes, expected = model(images)
        free = vqgan.encode(images, torch.zeros(3)).free
        assert (free - latents).abs().max() < 1e-4
        assert torch.equal(vqgan.network.quantize.numbers(free.permute(0, 2, 3, 1)).flatten(), codes)
        assert len(codes.unique()) > 5
        assert (vqgan.decode(Latents(free)) - expected).abs().max() < 1e-4


def folder_of(path, config, **files):
    """A folder with a config and the weights that functions write into it."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    for name, write in files.items():
        write(path / name.replace("__", "."))
    return path


def test_every_published_format_of_the_same_weights_is_the_same_network(official, tmp_path):
    """The authors' files, the Hub's ports of them (a state dict; Flax), and fmrgen's own."""
    model, folder = official
    expected = build(folder).network
    params = CONFIG["model"]["params"]
    flat = {**DDCONFIG, "embed_dim": params["embed_dim"], "n_embed": params["n_embed"]}
    quantized = {**DDCONFIG, "quantized_embed_dim": params["embed_dim"], "n_embed": params["n_embed"]}
    state = {**model.state_dict(), "discriminator.main.0.weight": torch.zeros(2)}
    flax = msgpack.packb(flax_tree(model.state_dict()))
    folder_of(tmp_path / "state-dict", flat, pytorch_model__bin=lambda path: torch.save(state, path))
    folder_of(tmp_path / "flax", quantized, flax_model__msgpack=lambda path: path.write_bytes(flax))
    folder_of(tmp_path / "safetensors", flat, model__safetensors=lambda path: save_file(state, path))
    (tmp_path / "own").mkdir()
    save_model(expected, tmp_path / "own")
    for name in ("state-dict", "flax", "safetensors", "own"):
        network = Config(model=str(tmp_path / name), image_size=32).build().network
        assert network.architecture == expected.architecture, name
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, expected.state_dict()[key]), (name, key)


def test_the_flax_port_gives_the_same_codes_and_images(tmp_path):
    for name, copy in (("vqgan-flax.json", "config.json"), ("vqgan-flax.msgpack", "flax_model.msgpack")):
        (tmp_path / copy).write_bytes((TESTS / "data/golden" / name).read_bytes())
    network = load_model(str(tmp_path), None)
    expected = golden("vqgan-flax.io")
    with torch.no_grad():
        latents = network.encode(expected["images"])
        codes = network.quantize.numbers(latents.permute(0, 2, 3, 1))
        decoded = network.decode(network.quantize(latents))
    assert (latents - expected["latents"]).abs().max() < 1e-4
    assert torch.equal(codes.flatten(1), expected["codes"].long())
    assert (decoded - expected["decoded"]).abs().max() < 1e-4


ATTENDING = {
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
    "layers_per_block": 2,
    "latent_channels": 4,
    "vq_embed_dim": 6,
    "num_vq_embeddings": 32,
    "norm_num_groups": 4,
}


@pytest.mark.parametrize("name", ["asset:mnist/vqgan", "asset:gtsrb/vqgan", "attending"])
def test_a_model_of_diffusers_gives_the_same_bits(name, tmp_path):
    if name == "attending":
        torch.manual_seed(0)
        diffusers.VQModel(**ATTENDING).save_pretrained(tmp_path / "m")
        name = str(tmp_path / "m")
    model = diffusers.VQModel.from_pretrained(resolve_path(name)).eval()
    network = load_model(name, None)
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = model.encode(images).latents
    assert torch.equal(network.encode(images), latents)
    free = latents.detach().requires_grad_()
    expected = model.decode(free).sample
    images = network.decode(network.quantize(free))
    assert torch.equal(images, expected)
    ours, theirs = (torch.autograd.grad(decoded.square().sum(), free)[0] for decoded in (images, expected))
    assert torch.equal(ours, theirs)


def test_gradient_goes_straight_through_the_quantiser(official):
    _, folder = official
    vqgan = build(folder)
    free = vqgan.encode(torch.rand(1, 3, 32, 32), torch.zeros(1)).free.detach().requires_grad_(True)
    vqgan.decode(Latents(free)).sum().backward()
    assert (free.grad != 0).float().mean() > 0.9


def test_wrong_files_are_one_line(official):
    model, folder = official
    (folder / "cut.ckpt").write_bytes((folder / "last.ckpt").read_bytes()[:5000])
    (folder / "empty.ckpt").write_bytes(b"")
    shape = {**model.state_dict(), "quant_conv.weight": torch.zeros(4, 16, 1, 1)}
    torch.save({"state_dict": shape}, folder / "shape.ckpt")
    torch.save({"state_dict": {"encoder.conv_in.bias": model.encoder.conv_in.bias}}, folder / "few.ckpt")
    torch.jit.script(nn.Linear(2, 2)).save(str(folder / "script.ckpt"))
    (folder / "other.yaml").write_text("model: {params: {embed_dim: 8}}")
    for checkpoint, config, message in (
        ("cut.ckpt", "model.yaml", "not a readable checkpoint"),
        ("empty.ckpt", "model.yaml", "not a readable checkpoint"),
        ("shape.ckpt", "model.yaml", "quant_conv.weight ([4, 16, 1, 1], not [8, 16, 1, 1]) has another shape"),
        ("few.ckpt", "model.yaml", "is missing"),
        ("script.ckpt", "model.yaml", "TorchScript"),
        ("none.ckpt", "model.yaml", "no such file"),
        ("last.ckpt", "other.yaml", "is not a VQGAN's config"),
    ):
        files = {"checkpoint": str(folder / checkpoint), "config": str(folder / config)}
        check_refused(Config(**files, image_size=32).build, message)


def test_broken_folders_are_one_line(official, tmp_path):
    model, _ = official
    flat = {**DDCONFIG, "embed_dim": 8, "n_embed": 64}
    deep = b"\x81\xa1a" * 5000 + b"\xc0"
    other = {"_class_name": "VQModel", **ATTENDING, "in_channels": 3, "out_channels": 3, "norm_type": "spatial"}
    state = dict(model.state_dict())
    for number, (config, write, text) in enumerate([
        (flat, None, r"it has no model.safetensors or "),
        (flat, lambda path: path.write_bytes(b"\xc1"), "not readable Flax weights"),
        (flat, lambda path: path.write_bytes(deep), "not readable Flax weights"),
        (flat, lambda path: path.write_bytes(msgpack.packb({"encoder": msgpack.ExtType(3, b"x")})), "extension type 3"),
        (flat | {"n_embed": 10**12}, lambda path: path.write_bytes(msgpack.packb(flax_tree(state))), "has another shape"),
        (flat | {"double_z": True}, lambda path: path.write_bytes(b""), "double_z"),
        (other, lambda path: path.write_bytes(b""), "is not a plain VQModel"),
        ([], lambda path: path.write_bytes(b""), "is not a VQGAN's config"),
        ({"ch": 8, "ch_mult": "x"}, lambda path: path.write_bytes(b""), "is not a VQGAN's config"),
    ]):  # fmt: skip
        files = {} if write is None else {"flax_model__msgpack": write}
        path = folder_of(tmp_path / str(number), config, **files)
        check_refused(Config(model=str(path), image_size=32).build, text)


def test_the_published_imagenet_configuration_has_its_known_size():
    """vqgan_imagenet_f16_16384: 76,073,859 weights under 343 keys."""
    attends = (False, False, False, False, True)
    with torch.device("meta"):
        network = VqganNetwork(Architecture(128, (128, 128, 256, 256, 512), attends, 2, 256, 256, 16384))
    assert len(network.state_dict()) == 343
    assert sum(weight.numel() for weight in network.state_dict().values()) == 76_073_859
