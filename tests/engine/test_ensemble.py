"""Several attacks on each image: the worst accepted image is stored, and an image that is fooled is left alone."""

from collections import Counter

import pytest
import torch
from fakes import COUNT, Fixture, check_literal
from small_models import SIZE, tiny_vqgan

from fmrgen import load_recipe
from fmrgen.engine.options import ENSEMBLES, AttackOptions
from fmrgen.generators.transform import Transform
from fmrgen.records import StopReason

ATTACKS = (
    AttackOptions(),
    AttackOptions(update="l2", objective="cross_entropy", noise=0.5),
    AttackOptions(update="adam", objective="targeted", target="third", step=2),
    AttackOptions(update="nes", step=0.5),
    AttackOptions(objective="targeted", target=2, noise=1.0),
)


@pytest.fixture(params=[pytest.param("vqgan", marks=pytest.mark.slow), "transform"])
def setting(request, double):
    """Two of three labels are the classifier's own answers: most images do not fool it from the start."""
    setting = Fixture(tiny_vqgan(), 0.05) if request.param == "vqgan" else Fixture(Transform(SIZE), 0.01)
    with torch.no_grad():
        answers = setting.classifier(setting.images).argmax(1).tolist()
    for i, answer in enumerate(answers):
        if i % 3:
            setting.labels[i] = answer
    return setting


@pytest.mark.parametrize(
    "options",
    [{}, *[pytest.param(more, marks=pytest.mark.slow) for more in ({"keep": "first"}, {"min_probability": 0.27})]],
    ids=["last", "first", "sure"],
)
def test_an_ensemble_equals_the_literal_one(setting, options):
    options = {"attacks": ATTACKS, "queries": 6, "oracle_rule": "consistent", **options}
    expected = {i: setting.reference_ensemble(i, **options) for i in range(COUNT)}
    assert len({row.attack for row in expected.values()}) >= 3, expected  # several attacks have made images
    for slots in (1, 3, 32):
        check_literal(setting.engine(slots=slots, **options), expected)


def test_with_several_true_labels_any_of_them_is_right(setting):
    with torch.no_grad():
        falling = setting.classifier(setting.images).argsort(1, descending=True).tolist()
    accepted = []
    for i, label in enumerate(setting.labels):
        best_other = next(k for k in falling[i] if k != label)
        accepted.append((label, best_other) if i % 2 else (label,))
    options = {"attacks": ATTACKS[:3]}
    rows = setting.engine(slots=3, accepted=accepted, **options)
    check_literal(rows, {i: setting.reference_ensemble(i, accepted=accepted[i][1:], **options) for i in rows})


def test_every_attack_is_recorded_up_to_the_first_that_fools(setting):
    rows = setting.engine(slots=3, oracle_rule="consistent", attacks=ATTACKS, queries=6)
    alone = setting.engine(slots=3, oracle_rule="consistent")
    counts = Counter(len(row.attacks) for row in rows.values())
    assert len(counts) > 1, counts
    for i, row in rows.items():
        first = row.attacks[0]
        assert first.predictions == alone[i].step_predictions
        assert first.objectives == pytest.approx(alone[i].step_objectives)
        assert first.oracle_probabilities == pytest.approx(alone[i].step_oracle_probabilities)
        assert (first.stop_reason, first.rejected_prediction) == (alone[i].stop_reason, alone[i].rejected_prediction)
        for record in row.attacks:
            assert len(record.predictions) == len(record.objectives) == len(record.oracle_probabilities)
        fools = [any(answer != row.label for answer in record.predictions[1:]) for record in row.attacks]
        assert not any(fools[:-1])
        assert fools[-1] == (row.valid and row.prediction != row.label)
        assert len(row.attacks) == len(ATTACKS) or fools[-1]
        if row.valid:
            chosen = row.attacks[row.attack]
            assert chosen.predictions[row.iterations] == row.prediction
            assert chosen.predictions[: row.iterations + 1] == row.step_predictions
            assert len(row.step_losses) == len(row.step_objectives) == row.iterations + 1


@pytest.mark.slow
def test_the_control_is_that_of_the_first_attack(setting):
    options = {"slots": 3, "queries": 6, "oracle_rule": "consistent"}
    rows = setting.engine(controlled=range(COUNT), attacks=ATTACKS, **options)
    alone = setting.engine(controlled=range(COUNT), **options)
    plain = setting.engine(attacks=ATTACKS, **options)
    assert any(row.control_predictions for row in rows.values())
    for i, row in rows.items():
        assert torch.equal(row.image, plain[i].image)
        assert (row.queries, row.iterations, row.attack) == (plain[i].queries, plain[i].iterations, plain[i].attack)
        assert len(row.attacks) == len(plain[i].attacks)
        assert row.control_predictions == alone[i].control_predictions
        assert row.control_objectives == pytest.approx(alone[i].control_objectives)


def test_a_row_that_no_attack_moves_is_the_original(setting):
    rows = setting.engine(slots=3, attacks=ATTACKS[:2], min_probability=0.999)
    for row in rows.values():
        assert (row.valid, row.iterations, row.stop_reason) == (False, 0, StopReason.REJECTED)
        assert torch.equal(row.image, row.original)
        assert [record.stop_reason for record in row.attacks] == [StopReason.REJECTED] * 2


def test_one_attack_is_the_run_of_before(setting):
    for row in setting.engine(slots=3).values():
        assert (row.attack, row.attacks) == (0, [])


def test_an_ensemble_is_spelled_out_in_the_recipe():
    recipe = load_recipe("mnist-lenet", ["perturb.attacks=standard"])
    assert recipe.perturb.attacks == ENSEMBLES["standard"]
    written = recipe.model_dump(mode="json")["perturb"]["attacks"]
    assert written[0] == {"update": "sign", "objective": "margin", "target": "runner_up", "step": 1.0, "noise": 0.0}
    again = load_recipe("mnist-lenet", [f"perturb.attacks={written}"])
    assert again.fingerprint == recipe.fingerprint
    single = load_recipe("mnist-lenet", ["perturb.attacks=one"])
    assert single.fingerprint != recipe.fingerprint
    runs = recipe.perturb.runs
    assert {run.attacks for run in runs} == {"one"}
    assert [run.step_size for run in runs] == [
        attack.step * recipe.perturb.step_size for attack in ENSEMBLES["standard"]
    ]
    assert recipe.perturb.most_queries == 1 + len(runs) * (recipe.perturb.budget + 1)
