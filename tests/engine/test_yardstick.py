"""The benchmark of the engine, small: its other ways make the engine's rows, or its ratios compare different work."""

import pytest
import torch
from fakes import BUDGET, COUNT, Fixture, examples
from small_models import SIZE

from benchmarks import throughput
from fmrgen import PerturbOptions, load_recipe
from fmrgen.generators.transform import Transform
from fmrgen.recipe.build import Components


@pytest.mark.parametrize(
    "rule",
    [
        {"min_probability": 0.27},
        {"min_margin": 0.005, "objective": "cross_entropy"},
        {"oracle_rule": "consistent"},
    ],
)
def test_every_way_makes_the_same_rows(double, monkeypatch, rule):
    monkeypatch.setattr(throughput, "_BATCH_SIZES", (4,))
    monkeypatch.setattr(throughput, "_SWEEP_SECONDS", 0.0)
    setting = Fixture(Transform(SIZE), 0.02)
    options = PerturbOptions(budget=BUDGET, step_size=setting.step_size, slots=8, **rule)
    recipe = load_recipe("mnist-lenet").model_copy(update={"perturb": options})
    components = Components(None, setting.classifier, setting.generator, setting.oracle)
    images = examples(setting.images, setting.labels)
    found = throughput.measure(
        recipe, components, images, static=True, literal=COUNT, rounds=1, device=torch.device("cpu")
    )
    for way in ("static", "literal, with one slot"):
        agreement = found["agreement_with_engine"][way]
        assert (agreement["rows"], agreement["same_end"], agreement["same_bytes"]) == (COUNT, COUNT, COUNT), way
    assert set(found["ratios"]) == {"engine/limit", "engine/limit with encode", "engine/static", "engine/literal"}
