"""Efficient-VDVAE against the official code's own numbers, and as a generator."""

import pytest
import torch
from families import FAMILIES, golden
from generator_checks import LABELS, check_refused, pictures
from safetensors.torch import save_file
from small_models import SIZE

from fmrgen.engine.interfaces import Latents
from fmrgen.generators.networks.efficient_vdvae import efficient_vdvae, expected_image
from fmrgen.generators.vdvae import Config

GROUPS = 11


@pytest.mark.parametrize("name", ["vdvae-small", "vdvae-small-logstd"])
def test_the_network_says_what_the_official_one_says(name):
    told, network = golden(f"{name}.io"), efficient_vdvae(golden(f"{name}.state"), name).eval()
    images = told["image_uint8"].float() / 127.5 - 1
    with torch.no_grad():
        groups = network.posterior_means(images)
        for index, group in enumerate(groups):
            torch.testing.assert_close(group, told[f"mean.z.{index}"], atol=1e-5, rtol=0)
        torch.testing.assert_close(network.logits(groups), told["mean.logits"], atol=1e-4, rtol=0)
        sampled = network.logits([told[f"sample.z.{index}"] for index in range(GROUPS)])
        torch.testing.assert_close(sampled, told["sample.logits"], atol=1e-4, rtol=0)


def test_the_expected_image_is_the_mean_of_official_samples():
    """The official sample of a pixel picks a component by its share, and takes red, green and blue in turn."""
    torch.manual_seed(0)
    shares, means, leanings = torch.randn(2), torch.randn(3, 2) * 0.4, torch.randn(3, 2)
    raw = torch.stack([means, torch.zeros(3, 2), leanings], 1)  # [colour, (mean, scale, leaning), component]
    logits = torch.cat([shares, raw.flatten()]).view(1, 20, 1, 1)
    expected = torch.zeros(3)
    for component, share in enumerate(shares.softmax(0)):
        mean, lean = means[:, component], leanings[:, component].tanh()
        red = mean[0].clamp(-1, 1)
        green = (mean[1] + lean[0] * red).clamp(-1, 1)
        expected += share * torch.stack([red, green, (mean[2] + lean[1] * red + lean[2] * green).clamp(-1, 1)])
    torch.testing.assert_close(expected_image(logits).flatten(), expected)


@pytest.mark.parametrize("family", ["vdvae", "vdvae-logstd"], scope="module")
def test_coarse_groups_move_and_fine_ones_stay(family, built, tmp_path):
    images = pictures()
    with torch.no_grad():
        free, fixed = built.encode(images, LABELS)
        expected = built.network.posterior_means(images * 2 - 1)
        found = built._groups(Latents(free, fixed))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert free.shape == (3, 4 + 2 * 4 * 16 + 4 * 6 * 64)
    assert fixed.shape == (3, 4 * 8 * 256)
    everything = FAMILIES[family](tmp_path, free_side=16).build()
    with torch.no_grad():
        latents = everything.encode(images, LABELS)
        assert latents.fixed is None
        assert torch.equal(everything.decode(latents), built.decode(Latents(free, fixed)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 32}, "generator.image_size: {} generates images of 16 px; set that"),
        ({"free_side": 0}, "greater than or equal to 1"),
        ({"state": {"odd": torch.zeros(2)}}, "is not an Efficient-VDVAE"),
        ({"without": "top_down.output_conv.bias"}, "top_down.output_conv.bias is missing"),
        ({"without": "top_down.levels_down.1.0.z_projection.weight"}, "is not an Efficient-VDVAE"),
        ({"wrong": ("bottom_up.levels_up_downsample.2.skip_projection", 24, 5)}, "its blocks do not fit together"),
        ({"wrong": ("top_down.output_conv", 16, 1)}, "is an Efficient-VDVAE of grayscale images"),
    ],
)
def test_mistakes_are_one_line(tmp_path, settings, message):
    state = golden("vdvae-small.state")
    state.pop(settings.pop("without", ""), None)
    if wrong := settings.pop("wrong", None):
        place, depth, width = wrong
        state |= {f"{place}.weight": torch.zeros(width, depth, 1, 1), f"{place}.bias": torch.zeros(width)}
    save_file(settings.pop("state", state), tmp_path / "own.safetensors")
    path = str(tmp_path / "own.safetensors")
    check_refused(lambda: Config(checkpoint=path, **{"image_size": SIZE, **settings}).build(), message.format(path))
