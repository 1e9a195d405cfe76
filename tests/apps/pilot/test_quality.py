"""How good a generator is: distances, spectra and costs that are known beforehand."""

import math

import pytest
import torch
import torchvision
from torch import nn

from fmrgen.apps.pilot import quality
from fmrgen.engine.interfaces import Generator, Judgement, Latents, Oracle
from fmrgen.recipe.build import Components


@pytest.mark.parametrize(("waves", "share"), [(2, "coarse"), (6, "between"), (14, "fine")])
def test_a_spectrum_tells_shapes_from_texture(waves, share):
    places = torch.arange(32) / 32
    change = 0.1 * torch.sin(2 * math.pi * waves * places).expand(2, 3, 32, 32)
    found = quality.spectrum(change)
    assert getattr(found, share) == pytest.approx(1)
    assert sum(found) == pytest.approx(1)
    assert str(quality.Spectrum(0.234, 0.5, 0.266)) == "23% coarse, 50% between, 27% fine"
    assert quality.spectrum(torch.zeros(1, 3, 32, 32)) is None


class Enlarging(Generator):
    image_size = 16

    def __init__(self):
        self.network = nn.Conv2d(3, 3, 1, bias=False).requires_grad_(False)

    def encode(self, images, labels):
        return Latents(images)

    def decode(self, latents):
        return self.network(latents.free).clamp(0, 1)


class Undecided(Oracle):
    def judge(self, images, originals=None):
        return Judgement(torch.ones(len(images), 2), torch.ones(len(images), 2))


def test_a_pass_costs_what_its_operations_cost():
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)).requires_grad_(False)
    components = Components(None, classifier, Enlarging(), Undecided())
    cost = quality.cost_of_a_pass(components, Latents(torch.rand(1, 3, 16, 16)))
    convolution, linear = 2 * 3 * 3 * 16 * 16, 2 * 3 * 16 * 16 * 2
    assert cost.generator * 1e9 == pytest.approx(2 * convolution)  # forward, and back to the latent
    assert cost.whole * 1e9 == pytest.approx(2 * convolution + 2 * linear)


def test_perceptual_distances_where_weights_can_be_had(monkeypatch):
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(
        torch.hub, "load_state_dict_from_url", lambda *_, **__: torchvision.models.alexnet().state_dict()
    )
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", torch.hub.load_state_dict_from_url)
    torch.manual_seed(0)
    assert quality.lpips(images, images, download=True).value == pytest.approx(0, abs=1e-6)
    assert quality.lpips(images, images.flip(0), download=True).value > 0.001
    assert str(quality.rfid(images, images)) == "left out: needs images=2048 or more"

    def fails(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fails)
    assert str(quality.lpips(images, images, download=True)) == "left out: its weights can't be downloaded here"


def test_nothing_is_downloaded_unasked(monkeypatch, tmp_path):
    images, asked = torch.rand(1, 3, 64, 64).expand(quality.FEWEST_FOR_RFID, -1, -1, -1), []
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, *_, **__: asked.append(url))
    for distance in (quality.lpips, quality.rfid):
        why = "left out: its weights are not on this machine; download=True fetches them"
        assert str(distance(images, images)) == why
    assert asked == []
    weights = tmp_path / "hub/checkpoints/alexnet-owt-7be5be79.pth"
    weights.parent.mkdir(parents=True)
    torch.save(torchvision.models.alexnet().state_dict(), weights)
    assert quality.lpips(images[:2], images[:2]).value == pytest.approx(0, abs=1e-6)


def test_without_the_extra_it_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics.image.lpip", None)
    assert "pip install 'fmrgen[quality]'" in str(quality.lpips(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)))
