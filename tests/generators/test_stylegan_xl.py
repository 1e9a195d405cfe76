"""StyleGAN-XL: files, networks and images against the official code's own numbers, and as a generator."""

import os
import pickle

import pytest
import torch
from families import golden, stylegan
from generator_checks import LABELS, bytes_kept, check_refused, pictures
from official_stylegan import GEOMETRIES, save_official
from small_models import SIZE

from fmrgen.engine.interfaces import Latents
from fmrgen.errors import UserError
from fmrgen.generators.networks.stylegan_file import read_stylegan
from fmrgen.generators.networks.stylegan_xl import StyleGanXl
from fmrgen.generators.stylegan_xl import Config

SMALL = ("stem", "sr", "radial")


@pytest.mark.parametrize("name", SMALL)
def test_the_network_of_an_official_file_says_what_the_official_one_says(tmp_path, name):
    save_official(tmp_path / "own.pkl", name)
    geometry, state = read_stylegan(str(tmp_path / "own.pkl"), "generator.checkpoint")
    stored, told = golden(f"stylegan-xl-small-{name}.state"), golden(f"stylegan-xl-small-{name}.io")
    assert state.keys() == stored.keys()
    assert all(torch.equal(state[key], stored[key]) for key in stored)
    network = StyleGanXl(geometry, state, name).eval().requires_grad_(False)
    labels = told["label"].long() if "label" in told else torch.zeros(2, dtype=torch.int64)
    for part, truncation in (("psi1", 1.0), ("psi07", 0.7)):
        styles = network.styles(told["z"], labels, truncation)
        torch.testing.assert_close(styles, told[f"ws.{part}"], atol=1e-6, rtol=0)
        torch.testing.assert_close(network.synthesis(styles), told[f"image.{part}"], atol=1e-4, rtol=0)
    moving = told["wplus"].clone().requires_grad_(True)
    features = network.synthesis.input(moving[:, 0])
    torch.testing.assert_close(features, told["input_features.wplus"], atol=1e-4, rtol=0)
    images = network.synthesis(moving)
    torch.testing.assert_close(images, told["image.wplus"], atol=1e-4, rtol=0)
    (images - told["target"]).square().sum().backward()
    assert (moving.grad - told["grad.wplus"]).norm() / told["grad.wplus"].norm() < 1e-3


@pytest.mark.nightly
def test_an_inversion_finds_the_styles_of_an_image_of_its_own(tmp_path):
    generator = stylegan(tmp_path, inversion_steps=120, candidates=0, residual=False).build()
    torch.manual_seed(0)
    with torch.no_grad():
        styles = generator.network.styles(torch.randn(2, 64), LABELS[:2], 0.7)
        images = generator.decode(Latents(styles))
        before = generator.decode(Latents(generator.network.centres(LABELS[:2])))
        found = generator.decode(generator.encode(images, LABELS[:2]))
    distances = [(made - images).square().flatten(1).mean(1) for made in (before, found)]
    assert bool((distances[1] < distances[0] / 20).all())


@pytest.mark.nightly
def test_an_inversion_is_each_rows_own_and_ends_where_nothing_is_gained(tmp_path, double):
    generator = stylegan(tmp_path, inversion_steps=10, patience=3).build()
    generator.network.double()
    images = pictures().double()
    generator.row_seeds = [7, 8, 9]
    together = generator.encode(images, LABELS)
    for row in range(3):
        generator.row_seeds = [7 + row]
        alone = generator.encode(images[row : row + 1], LABELS[row : row + 1])
        torch.testing.assert_close(alone.free, together.free[row : row + 1], atol=1e-6, rtol=1e-6)
    calls = []
    generator.network.synthesis.register_forward_hook(lambda *_: calls.append(1))
    generator.settings = generator.settings.model_copy(update={"inversion_rate": 1e-9, "candidates": 0})
    generator.row_seeds = ()
    generator.encode(images, LABELS)
    assert len(calls) == 5  # the first one gains, three do not, and the last one is for the residual


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_an_unmoved_image_is_exact(tmp_path, name):
    generator = stylegan(tmp_path, name, inversion_steps=6).build()
    images = torch.rand(3, 3, generator.image_size, generator.image_size)
    with torch.no_grad():
        quick = generator.encode_quickly(images, LABELS)
        torch.testing.assert_close(generator.decode(quick), images, atol=1e-6, rtol=0)
        latents = generator.encode(images, LABELS)
        assert [part.shape for part in quick] == [part.shape for part in latents]
        torch.testing.assert_close(generator.decode(latents), images, atol=1e-6, rtol=0)
        moved = generator.decode(Latents(latents.free + 0.1, latents.fixed))
    assert (moved - images).abs().mean() > 1e-3
    if name != "radial":
        with pytest.raises(UserError, match="its network has 10 classes, and an example has the label 11"):
            generator.encode(images, torch.tensor([0, 11, 1]))


def test_of_each_layer_only_what_goes_in_is_kept(tmp_path):
    generator = stylegan(tmp_path, "sr").build()
    network = generator.network.synthesis
    styles = generator.network.centres(LABELS).clone().requires_grad_(True)

    def plainly():
        x = network.input(styles[:, 0])
        for index, name in enumerate(network.names, start=1):
            x = getattr(network, name)(x, styles[:, index])

    assert bytes_kept(lambda: network(styles)) < bytes_kept(plainly) / 5


class Attack:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_nothing_of_a_file_is_run(tmp_path):
    """What it calls is not called, in the network and beside it; the rest is read."""
    save_official(tmp_path / "own.pkl", "stem", G=Attack(str(tmp_path / "made")), also={"eval": eval, "in": [print]})
    _, state = read_stylegan(str(tmp_path / "own.pkl"), "generator.checkpoint")
    assert state.keys() == golden("stylegan-xl-small-stem.state").keys()
    assert not (tmp_path / "made").exists()


class ScriptedStorage:
    """A tensor whose inner file is not one of numbers."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.content,)


def test_what_is_inside_of_a_tensor_is_not_run_either(tmp_path):
    torch.save({"x": Attack(str(tmp_path / "made"))}, tmp_path / "inner.pt")
    save_official(tmp_path / "own.pkl", "stem", G=ScriptedStorage((tmp_path / "inner.pt").read_bytes()))
    with pytest.raises(UserError, match="not a readable pickle"):
        read_stylegan(str(tmp_path / "own.pkl"), "generator.checkpoint")
    assert not (tmp_path / "made").exists()


def test_functions_that_a_file_names_can_not_be_written_into(tmp_path):
    named = b"ctorch._utils\n_rebuild_tensor_v2\n"
    (tmp_path / "own.pkl").write_bytes(named + b"(N(dVevil\nVyes\nstb.")
    with pytest.raises(UserError, match="is not a file of StyleGAN-XL"):
        read_stylegan(str(tmp_path / "own.pkl"), "generator.checkpoint")
    assert not hasattr(torch._utils._rebuild_tensor_v2, "evil")


def without(key):
    return {name: tensor for name, tensor in golden("stylegan-xl-small-stem.state").items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 32}, "generates images of 16 px; set that"),
        ({"checkpoint": "none.pkl"}, "generator.checkpoint: no such file as none.pkl"),
        ({"write": b"PK"}, "not a readable pickle"),
        ({"write": pickle.dumps({"G_ema": 3})}, "is not a file of StyleGAN-XL"),
        ({"write": pickle.dumps([1])}, "is not a file of StyleGAN-XL"),
        ({"cut": 5000}, "not a readable pickle"),
        ({"state": without("synthesis.L0_36_24.bias")}, "synthesis.L0_36_24.bias is missing"),
        ({"state": without("mapping.fc0.weight")}, "its layers do not fit together"),
        ({"state": {**golden("stylegan-xl-small-stem.state"), "synthesis.more": torch.zeros(1)}}, "synthesis.more is unknown"),
        ({"geometry": {**GEOMETRIES["stem"], "layers": {}}}, "is unknown to the model"),
        ({"geometry": {**GEOMETRIES["stem"], "input": {**GEOMETRIES["stem"]["input"], "size": [30, 30]}}}, "its layers do not fit together"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(tmp_path, change, message):
    path = tmp_path / "own.pkl"
    save_official(path, "stem", change.get("state"), change.get("geometry"))
    if "write" in change:
        path.write_bytes(change["write"])
    if "cut" in change:
        path.write_bytes(path.read_bytes()[: change["cut"]])
    settings = {"checkpoint": str(path), "image_size": SIZE}
    settings |= {key: value for key, value in change.items() if key in settings}
    check_refused(Config(**settings).build, message)
