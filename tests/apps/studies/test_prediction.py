"""Whether one named figure predicts: what is there is seen, and what only follows SA is not."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from fmrgen import UserError
from fmrgen.apps.studies.prediction import (
    ONE_ATTACK,
    SEVERAL_ATTACKS,
    PredictionPlan,
    answer_prediction,
    prediction_figures,
    relative,
    worst,
)
from fmrgen.apps.studies.prediction_report import prediction_report
from fmrgen.apps.studies.predictors import ATTACKED, HALVES, STANDARD
from fmrgen.apps.studies.study import load_study
from fmrgen.jobs.evaluate import evaluate
from fmrgen.jobs.generate import make_split
from fmrgen.recipe.job import load_fixed_sets, load_recipe, parse_classifier
from fmrgen.report.write import write
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import read_provenance
from fmrgen.storage.shards import SplitFolder

ROOT = Path(__file__).parents[3]
MOVED = relative("geometric")
NEW = [f"recipe-{number}" for number in range(20)]
RECIPES = {f"net-{number}": f"recipe-{number}" for number in range(40)}
PLAN = PredictionPlan(predictor=MOVED, rivals=["corrupted"], own="attacked", targets=["uci", "pen"], confirm=NEW)


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch):
    monkeypatch.setattr("fmrgen.apps.studies.partial_correlation._RESAMPLES", 1000)


def figures(seed, strength, through_sa=0.9):
    """Made-up networks: the shift depends on SA and on something else, of which the predictor sees so much."""
    random = np.random.default_rng(seed)
    networks = {}
    for network in RECIPES:
        good, sturdy = random.normal(size=2)
        row = {STANDARD: 96 + good, HALVES[0]: 96 + good, HALVES[1]: 96 + good}
        for target in PLAN.targets:
            row[target] = 100 / (1 + np.exp(-(2 + 0.4 * good + 0.4 * sturdy + 0.1 * random.normal())))
        row[MOVED] = 80 + 3 * (through_sa * good + strength * sturdy + random.normal())
        for name in ("corrupted", ONE_ATTACK, SEVERAL_ATTACKS):
            row[name] = 60 + 5 * (through_sa * good + random.normal())
        networks[network] = row
    return networks


@pytest.mark.slow
def test_what_predicts_is_seen(tmp_path):
    answer = answer_prediction(PLAN, RECIPES, figures(1, 4.0))
    assert answer.verdict.startswith(f"{MOVED} predicts accuracy on real shifts beyond standard accuracy")
    first, corrupted, one, several, standard = answer.confirmed
    assert (first.predictor, first.recipes) == (MOVED, 20)
    assert first.partial.low > 0.5
    assert corrupted.less.value == pytest.approx(corrupted.partial.value * -1 + first.partial.value)
    assert {one.predictor, several.predictor} == {ONE_ATTACK, SEVERAL_ATTACKS}
    assert standard.partial is None
    assert [entry.target for entry in answer.by_target] == ["uci", "pen", "effective robustness"]
    assert answer.on_others[0].recipes == 20
    assert answer.on_all[0].recipes == 40
    write(prediction_report(answer), tmp_path)
    assert MOVED in (tmp_path / "prediction.html").read_text()


@pytest.mark.slow
def test_what_follows_sa_alone_adds_nothing():
    answer = answer_prediction(PLAN, RECIPES, figures(2, 0.0, through_sa=3.0))
    assert answer.confirmed[0].spearman.low > 0
    assert answer.confirmed[0].partial.low <= 0
    assert f"{MOVED} adds nothing to standard accuracy that can be seen" in answer.verdict


def test_a_missing_figure_or_too_few_recipes_are_refused():
    made_up = figures(0, 1.0)
    del made_up["net-3"]["corrupted"]
    with pytest.raises(UserError, match="prediction: net-3 has no figure for corrupted"):
        answer_prediction(PLAN, RECIPES, made_up)
    few = dict(list(figures(0, 1.0).items())[:22])
    with pytest.raises(
        UserError, match="20 recipes of training to confirm and 2 others are left, and 6 of each are needed"
    ):
        answer_prediction(PLAN, RECIPES, few)


def test_its_figures_are_those_of_the_splits(tmp_path):
    attacked = load_recipe("mnist-lenet", ["source.limit=24", "perturb.budget=8", "perturb.attacks=standard"])
    own = make_split(attacked, tmp_path / "own")
    moved = make_split(load_recipe("mnist-moves", ["source.limit=24"]), tmp_path / "moved")
    measured = evaluate(
        {"transfer": f"{tmp_path}/own:mnist/lenet", "geometric": f"{tmp_path}/moved:mnist-moves/geometric"},
        {"lenet": parse_classifier("asset:mnist/lenet")[1]},
        fixed=load_fixed_sets(["SA={kind: mnist, split: test, limit: 200}"]),
        attack="fgsm@0.1",
        strict=True,
        progress=False,
    )
    paths = SplitPaths(tmp_path / "own", "mnist", "lenet")
    folder = SplitFolder.of(paths, read_provenance(paths))
    row = prediction_figures(measured, "transfer", {"lenet": folder})["lenet"]
    assert row[ONE_ATTACK] == own.first_attack_fmr.value
    assert row[SEVERAL_ATTACKS] == own.fmr.value
    assert row[MOVED] == pytest.approx(moved.relative_moved_accuracy.value)
    assert row[worst("geometric")] == pytest.approx(moved.worst_moved_accuracy.value)
    assert row[STANDARD] == pytest.approx((row[HALVES[0]] + row[HALVES[1]]) / 2)
    assert 0 <= row[ATTACKED] <= 100


@pytest.mark.parametrize(
    ("key", "name"),
    [("confirm", "lenet-hlaf"), ("targets", "uci"), ("predictor", "MA / SA, geomtric"), ("rivals", "corruptd")],
)
def test_a_misspelt_name_of_the_plan_is_found_before_any_training(tmp_path, key, name):
    tree = yaml.safe_load((ROOT / "recipes/prediction.yaml").read_text())
    plan = tree["small"]["prediction"]
    plan[key] = name if key == "predictor" else [*plan[key][:-1], name]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=re.escape(f"prediction.{key}: there is no {name}; choose from ")):
        load_study(tmp_path / "study.yaml")


def test_the_shipped_study_is_the_plan():
    plan = load_study("prediction").small
    trained = [part.name for part in plan.parts if hasattr(part, "train")]
    assert len(trained) == len(set(trained)) == 75
    assert len(plan.prediction.confirm) == 32
    assert set(plan.prediction.confirm) < set(trained)
    assert plan.prediction.predictor == MOVED
    assert plan.prediction.targets == ["uci-train", "pen"]
