"""How often weights are hashed: a component knows its digest, and only a check at the end reads them again."""

from collections import Counter

import pytest
from torch import nn

import fmrgen
from fmrgen.jobs.generate import make_split
from fmrgen.jobs.verify import verify
from fmrgen.recipe.job import load_recipe
from fmrgen.weights import digest


@pytest.fixture
def hashed(monkeypatch):
    """How often the weights of each component were hashed, by its class."""
    counts = Counter()
    weights_digests = digest.weights_digests

    def counted(component, prefixes):
        counts[type(component).__name__] += 1
        return weights_digests(component, prefixes)

    monkeypatch.setattr("fmrgen.weights.digest.weights_digests", counted)
    monkeypatch.setattr("fmrgen.classifiers.base.weights_digests", counted)
    return counts


def test_a_job_hashes_each_component_at_its_start_and_at_its_end(hashed, tmp_path):
    make_split(load_recipe("mnist-lenet", ["source.limit=4", "perturb.budget=2"]), tmp_path / "out")
    assert hashed == {"Classifier": 2, "Vqgan": 2, "ZeroShotOracle": 2}


@pytest.mark.nightly
def test_an_evaluation_hashes_a_classifier_when_it_is_loaded_and_at_its_end(hashed, finished_split, tmp_path):
    split = f"{finished_split}:mnist/lenet"
    fmrgen.evaluate({"a": split, "b": split}, {"own": "asset:mnist/lenet"}, store=tmp_path, progress=False)
    assert hashed == {"Classifier": 2}
    hashed.clear()
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    fmrgen.evaluate({"a": split, "b": split}, {"other": other}, store=tmp_path, progress=False)
    # Whether the splits were made for it, in any wrapper, takes one more for all of them.
    assert hashed == {"Sequential": 3}


def test_verify_hashes_both_models_when_they_are_loaded_and_at_its_end(hashed, finished_split):
    verify(f"{finished_split}:mnist/lenet")
    assert hashed == {"Classifier": 2, "ZeroShotOracle": 2}
