"""The oracle under attack: where its gradient leads, and what is counted."""

import json

import pytest
import torch
from commands import run

from fmrgen.apps.studies.attack_oracle import _target, attack_oracle
from fmrgen.errors import UserError
from fmrgen.oracles.ensemble import EnsembleOracle
from fmrgen.recipe.job import load_recipe, parse_classifier

LENET = parse_classifier("asset:mnist/lenet")[1]


@pytest.mark.parametrize("side", [32, 48])
def test_the_logits_of_a_clip_are_those_that_it_judges_by(side):
    recipe = load_recipe("mnist-lenet")
    oracle, source = recipe.oracle.build(), recipe.source.build()
    oracle.set_labels(source.labels)
    images = torch.stack([example.image for example in list(source.load_all(side))[:8]])
    moving = images.clone().requires_grad_(True)
    logits = oracle.logits(moving)
    tolerance = 1e-5 if side == 32 else 0.05  # resized to bytes there, and not here
    torch.testing.assert_close(logits.softmax(1), oracle.judge(images).probabilities, atol=tolerance, rtol=0)
    logits[:, 0].sum().backward()
    assert moving.grad.abs().sum() > 0


def test_a_stronger_attack_reaches_more_targets():
    recipe = load_recipe("mnist-lenet", ["source.limit=30"])
    found = attack_oracle(recipe, {"lenet": LENET}, [0.01, 0.3], steps=6)
    assert [(judge.name, judge.epsilon) for judge in found] == [
        ("oracle", 0.01), ("oracle", 0.3), ("lenet", 0.01), ("lenet", 0.3),
    ]  # fmt: skip
    for weak, strong in (found[:2], found[2:]):
        assert weak.clean == strong.clean
        assert weak.clean.value > 90
        assert strong.targeted.value > weak.targeted.value
        assert strong.right.value < weak.right.value
        assert strong.target_probability > weak.target_probability
    targets = [_target(i, i % 10, 10, 0) for i in range(200)]
    assert all(target != i % 10 for i, target in enumerate(targets))
    assert len(set(targets)) == 10


def test_the_command(tmp_path, capsys):
    arguments = ["attack-oracle", "mnist-lenet", "--limit", 8, "--epsilon", "64/255", "--steps", 3]
    assert run(*arguments, "-c", "asset:mnist/lenet", "-o", tmp_path / "own.json") == 0
    assert "taken for the target" in capsys.readouterr().out
    assert [judge["name"] for judge in json.loads((tmp_path / "own.json").read_text())] == ["oracle", "mnist/lenet"]
    assert run("attack-oracle", "mnist-lenet", "--epsilon", "nine") == 2
    assert "nine: not the largest change of a pixel; write 8/255 or 0.03" in capsys.readouterr().err
    with pytest.raises(UserError, match="EnsembleOracle has no gradient"):
        EnsembleOracle([], []).logits(torch.zeros(1, 3, 8, 8))
