"""Autoencoders of diffusers and of taesd: each as its own library encodes and decodes, in the engine and alone."""

import diffusers
import pytest
import torch
from fakes import COUNT
from families import AUTOENCODERS, BLOCKS, FAMILIES, autoencoder, taesd_files
from generator_checks import check_engine_is_literal, check_refused
from safetensors.torch import save_file
from small_models import SIZE

from fmrgen.engine.interfaces import Latents
from fmrgen.generators.networks.taesd import load_decoder, load_encoder
from fmrgen.generators.taesd import Config as TaesdConfig
from fmrgen.generators.vae import Config as VaeConfig


@pytest.mark.parametrize("family", AUTOENCODERS, scope="module")
def test_it_encodes_and_decodes_as_its_library_does(family, built):
    model = autoencoder(family)
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    is_video, from_zero = family in ("QwenImage", "Wan", "Cosmos"), family == "RAE"
    given = images if from_zero else images * 2 - 1
    with torch.no_grad():
        encoded = model.encode(given.unsqueeze(2) if is_video else given)
        expected = encoded.latent_dist.mode() if "latent_dist" in encoded else encoded[0]
        decoded = model.decode(expected).sample
        latents = built.encode(images, torch.zeros(2, dtype=torch.int64))
        found = built.decode(latents)
    assert torch.equal(latents.free, expected)
    decoded = decoded[:, :, 0] if is_video else decoded
    torch.testing.assert_close(found, (decoded if from_zero else decoded / 2 + 0.5).clamp(0, 1))
    assert found.shape == images.shape


def test_a_latent_may_be_kept_at_its_length(tmp_path, double):
    vae = FAMILIES["KL"](tmp_path, shell=True).build()
    vae.model.double()
    rows = check_engine_is_literal(vae, 0.1, keep_latents=True)
    moved = 0
    for row in rows.values():
        start, stored = row.latents
        torch.testing.assert_close(stored.norm(), start.norm())
        moved += not torch.equal(start, stored)
    assert moved > COUNT / 3


def test_a_size_that_comes_back_need_be_no_multiple(tmp_path):
    assert FAMILIES["DC"](tmp_path).model_copy(update={"image_size": 18}).build().image_size == 18


UNKNOWN = diffusers.AutoencoderVidTok, {"ch": 16, "ch_mult": [1, 1], "z_channels": 4, "num_res_blocks": 1}
CODES = diffusers.VQModel, {**BLOCKS, "block_out_channels": (8, 16), "norm_num_groups": 4}


@pytest.mark.parametrize(
    ("make", "size", "message"),
    [
        (AUTOENCODERS["KL"], 17, "generator.image_size: 17 is not a multiple of 2; use 16"),
        (AUTOENCODERS["RAE"], 32, "generates images of 16 px; use 16"),
        (AUTOENCODERS["Cosmos"], 17, "generator."),
        (lambda: UNKNOWN[0](**UNKNOWN[1]), 16, "is a AutoencoderVidTok and fails on an image of 16 px"),
        (lambda: CODES[0](**CODES[1]), 16, "is not one of diffusers' autoencoders"),
    ],
)
def test_what_is_not_supported_is_one_line(tmp_path, make, size, message):
    make().save_pretrained(tmp_path)
    check_refused(VaeConfig(model=str(tmp_path), image_size=size).build, message)


@pytest.mark.parametrize(("channels", "pools"), [(4, False), (16, False), (32, True)])
def test_files_of_taesd(tmp_path, channels, pools):
    files = taesd_files(tmp_path, channels, pools)
    taesd = TaesdConfig(**files, image_size=16).build()
    images = torch.rand(2, 3, 16, 16)
    latents = taesd.encode(images, torch.zeros(2))
    assert latents.free.shape == (2, channels, 2, 2)
    free = latents.free.detach().requires_grad_(True)
    decoded = taesd.decode(Latents(free))
    assert decoded.shape == images.shape
    decoded.sum().backward()
    assert free.grad.abs().sum() > 0
    with torch.no_grad():
        plain = load_decoder(files["decoder"])((latents.free / 3).tanh() * 3).clamp(0, 1)
    assert torch.equal(plain, decoded)


def test_taesd_is_what_diffusers_makes_of_the_same_weights(tmp_path):
    files = taesd_files(tmp_path, 4, False)
    tiny = diffusers.AutoencoderTiny()
    own = {"encoder": load_encoder(files["encoder"]), "decoder": load_decoder(files["decoder"])}
    for half, network in own.items():
        theirs = list(getattr(tiny, half).state_dict())
        values = list(network.state_dict().values())
        assert len(theirs) == len(values)
        getattr(tiny, half).load_state_dict(dict(zip(theirs, values, strict=True)))
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(own["encoder"](images), tiny.encode(images * 2 - 1).latents)
        latents = torch.randn(2, 4, 2, 2)
        bounded = (latents / 3).tanh() * 3
        torch.testing.assert_close(own["decoder"](bounded), tiny.decode(latents).sample / 2 + 0.5)


def test_other_files_are_one_line(tmp_path):
    files = taesd_files(tmp_path, 4, False)
    save_file({"odd": torch.zeros(3)}, tmp_path / "odd.safetensors")
    for wrong, message in (
        ({"encoder": files["decoder"]}, "not weights of this model"),
        ({"decoder": str(tmp_path / "none.pth")}, "generator.decoder: no such file as"),
        ({"image_size": 20}, "generator.image_size: 20 is not a multiple of 8; use 16"),
        ({"encoder": str(tmp_path / "odd.safetensors")}, "is not such a file of madebyollin/taesd"),
    ):
        check_refused(TaesdConfig(**{**files, "image_size": 16, **wrong}).build, message)
