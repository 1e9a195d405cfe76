"""Conversions: networks that are nearly one, or have no gradient."""

import pytest
import torch
from commands import run

from fmrgen import diff, load_recipe
from fmrgen.apps.explain.rows import JudgedImages
from fmrgen.apps.release.band import band_between, has_gradient
from fmrgen.engine.interfaces import Generator
from fmrgen.recipe.build import ClassifierAndOracle, build_component, build_oracle, build_source
from fmrgen.recipe.job import parse_classifier

LENET = "asset:mnist/lenet"
FEW = ["source.limit=40", "perturb.budget=20", "perturb.step_size=0.1", "perturb.control=0"]


class Converted(torch.nn.Module):
    """LeNet with its weights rounded to so many levels, or pruned; with a gradient or without."""

    def __init__(self, levels=None, pruned=0.0, differentiable=True):
        super().__init__()
        self.lenet, self.differentiable = parse_classifier(LENET)[1].build(), differentiable
        self.class_names = self.lenet.class_names
        with torch.no_grad():
            for weights in self.lenet.parameters():
                if weights.dim() > 1 and levels:
                    scale = weights.abs().max() / levels
                    weights.copy_((weights / scale).round() * scale)
                if weights.dim() > 1 and pruned:
                    least = weights.abs().flatten().kthvalue(int(pruned * weights.numel())).values
                    weights.mul_(weights.abs() > least)

    def forward(self, images):
        logits = self.lenet(images)
        return logits if self.differentiable else logits.detach()


def int8(**_):
    return Converted(levels=127)


def detached(**_):
    return Converted(levels=127, differentiable=False)


@pytest.fixture(scope="module")
def parts():
    recipe = load_recipe("mnist-lenet", FEW)
    source = build_source(recipe.source)
    oracle = build_oracle(recipe.oracle, source.labels, 32, "cpu")
    generator = build_component(recipe.generator, "generator", Generator, "cpu")
    return recipe, source, oracle, generator


def band(parts, new):
    recipe, source, oracle, generator = parts
    old = Converted()
    rows = JudgedImages.of_source(source, 32, ClassifierAndOracle(new.eval(), oracle), recipe.perturb, 40, "cpu")
    return band_between(rows, old.eval(), generator, recipe.perturb.runs[0])


def test_the_band_is_as_wide_as_the_conversion_is_coarse(parts):
    fine, coarse, pruned = (
        band(parts, Converted(levels=30_000)),
        band(parts, Converted(levels=127)),
        band(parts, Converted(pruned=0.7)),
    )
    assert fine.originals == coarse.originals >= 4
    assert fine.width < 0.01 < coarse.width < 0.5 < pruned.width
    assert fine.width <= fine.widest
    assert fine.old_shift == pytest.approx(fine.new_shift, abs=0.01)
    assert 5 < fine.old_shift < 100


def test_one_network_has_no_band(parts):
    same = band(parts, Converted())
    assert (same.width, same.broke.value, same.fixed.value) == (0, 0, 0)
    assert same.crossed == same.originals


def test_whether_a_gradient_reaches_the_images():
    images = torch.rand(2, 3, 32, 32)
    assert has_gradient(Converted(), images)
    assert not has_gradient(Converted(differentiable=False), images)
    with torch.no_grad():
        assert has_gradient(Converted(), images)

    class Rounded(torch.nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :10].detach() + torch.zeros(10, requires_grad=True)

    assert not has_gradient(Rounded(), images)


@pytest.mark.slow
def test_a_network_without_a_gradient_is_compared_by_that_of_old(tmp_path):
    recipe = load_recipe("mnist-lenet", FEW)
    new = "{kind: module, target: 'test_band:detached', args: {seed: 0}}"
    found = diff(LENET, new, recipe=recipe, output=tmp_path / "out", margin=10)
    assert found.made is None
    assert not (tmp_path / "out").exists()
    assert "NEW gave no gradient" in found.notes[0]
    assert [entry.kind for entry in found.evidence] == [
        "originals",
        "class",
        "moved",
        "class",
        "moved",
        "moved",
        "changed",
    ]
    assert found.band.width < 0.5
    assert found.verdict == "no worse"
    assert run("diff", "mnist-lenet", *FEW, "--old", LENET, "--new", new, "--explain", "-o", tmp_path / "out") == 0
    page = (tmp_path / "out/diff/diff.html").read_text()
    assert "How far apart the two boundaries lie" in page
    assert "explain was left out" in page


@pytest.mark.slow
def test_a_conversion_with_a_gradient_has_both(tmp_path):
    recipe = load_recipe("mnist-lenet", [*FEW, "source.limit=10"])
    new = "{kind: module, target: 'test_band:int8', args: {seed: 0}}"
    found = diff(LENET, new, recipe=recipe, output=tmp_path / "out", margin=10)
    assert found.made is not None
    assert found.band is not None
