"""Gradient masking: networks that answer as LeNet does and hand over another gradient are seen, told, and not ranked."""

import numpy as np
import pytest
from notes import noted

from fmrgen import evaluate, load_recipe
from fmrgen.jobs.generate import make_split
from fmrgen.metrics.cautions import cautions
from fmrgen.metrics.gradients import has_masked_gradient, has_rough_gradient, judged_steps
from fmrgen.metrics.summary import summarise
from fmrgen.report.markdown import to_markdown
from fmrgen.report.outline import evaluation_report
from fmrgen.report.tables import warning_lines
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import read_provenance
from fmrgen.storage.shards import summary_of

LENET = "asset:mnist/lenet"
MASKED = "{kind: module, target: 'masked_networks:block_means'}"


def lists(*rows):
    found = np.empty(len(rows), dtype=object)
    found[:] = [np.array(row) for row in rows]
    return found


def climbed(*objectives, **more):
    """The figures of rows whose objectives were these at each step."""
    zeros = np.zeros(len(objectives), int)
    return summarise({"label": zeros, "prediction": zeros, "step_objectives": lists(*objectives), **more})


def test_the_share_counts_valid_rows_whose_objective_changed():
    assert climbed([1, 2, 9], [2, 1, 9], [0.1, 0.3, 9], [0, 1e-3, 9]).first_steps_up.value == 75
    assert climbed([1, 2, 9], [2, 1, 9], [3, 1, 9], valid=np.array([True, True, False])).first_steps_up.value == 50
    for silent in (climbed([0, 0, 9], [0.5, 0.5, 9]), climbed([1.0], [1.0])):  # the last took no step
        assert silent.first_steps_up is None
        assert not has_masked_gradient(silent)


@pytest.mark.parametrize(
    ("share", "rows", "masked"),
    [(0.5, 60, True), (0.63, 100, True), (0.63, 20, False), (0.91, 100, False), (0.75, 100, False), (1.0, 60, False)],
)
def test_it_takes_enough_rows_to_say_so(share, rows, masked):
    up = round(share * rows)
    summary = climbed(*[[1, 2, 9]] * up, *[[2, 1, 9]] * (rows - up))
    assert has_masked_gradient(summary) == masked
    told = [line for line in cautions(summary) if "gradient may be masked (no rows have a control" in line]
    assert len(told) == masked
    assert not [line for line in cautions(summary, steps="none") if "masked" in line]


def walked(guided, objectives, **steps):
    """Valid rows of label 0, right on their originals: what guided steps end in, what each climbed, and more."""
    zeros = np.zeros(len(guided), int)
    rows = {"label": zeros, "valid": zeros == 0, "prediction": np.array(guided), "original_prediction": zeros}
    return rows | {name: lists(*of_rows) for name, of_rows in {"step_objectives": objectives, **steps}.items()}


def test_guided_steps_are_held_against_random_ones_row_by_row():
    rows = walked(
        [1, 1, 0, 0, 1, 1],
        [[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1], [0, 1], [0, 1]],
        control_predictions=[[0, 0, 0], [0, 0], [0, 0, 1], [], [0], [0, 0, 0, 0]],
        control_objectives=[[0, 0, 1.5], [0, 1.5], [0, 0, 1], [], [0], [0, 0, 0, 0]],
    )
    found = summarise(rows)  # of rows 0 to 2: one without, one with no accepted step and a stranger's are passed over
    assert found.guided_less_random.value == pytest.approx(100 * (1 - 3 + 1) / 3)  # right: 1 of 3, and 2 of 3
    assert found.guided_less_random.low < found.guided_less_random.value < found.guided_less_random.high
    assert found.first_steps_up.value == 100  # of what they climb, where that is known
    assert summarise({**rows, "valid": np.zeros(6, bool)}).guided_less_random is None


@pytest.mark.parametrize(
    ("fooled", "state"), [(24, "rough"), (12, "rough"), (6, "rough"), (2, "masked"), (0, "masked")]
)
def test_a_network_that_jumps_is_rough_and_not_masked(fooled, state):
    """Its first steps raise the loss by chance, and yet guided steps fool it; random ones do not."""
    guided, objectives = [1] * fooled + [0] * (24 - fooled), [[0, 1, 2], [0, -1, 2]] * 12
    control = {"control_predictions": [[0, 0]] * 24, "control_objectives": [[0, 1.5]] * 24}
    summary = summarise(walked(guided, objectives, **control))
    assert has_masked_gradient(summary) == (state == "masked")
    assert has_rough_gradient(summary) == (state == "rough")
    (line,) = [line for line in cautions(summary) if "the first step raised the loss in 50.0 %" in line]
    assert ("Its gradient is its own and rough" in line) == (state == "rough")
    assert ("gradient is masked" in line) == (state == "masked")


def test_an_interval_that_reaches_zero_excuses_nothing():
    """First steps climb by chance; guided steps fool four of eight more, which may be chance too."""
    guided, objectives = [1] * 2 + [0] * 6, [[0, 1, 2]] * 2 + [[0, -1, 2]] * 6
    control = {"control_predictions": [[0, 0]] * 7 + [[0, 1]], "control_objectives": [[0, 1.5]] * 8}
    summary = summarise(walked(guided, objectives, **control))
    assert summary.guided_less_random.value < -10
    assert summary.guided_less_random.low < 0 < summary.guided_less_random.high
    assert not has_rough_gradient(summary)


def to_the_boundary(*objectives):
    """Rows that are misread where what they climb is above 0."""
    predictions = [[int(value > 0) for value in row] for row in objectives]
    return walked([row[-1] for row in predictions], objectives, step_predictions=predictions)


def test_all_steps_to_the_boundary_count():
    summary = summarise(to_the_boundary([-8, -4, -2, -1, -1.5, 0.5], [-8, -9, -7, -7]))
    assert summary.steps_up.value == pytest.approx(100 * 5 / 7)  # one changed nothing
    assert summarise(to_the_boundary([3.0, 2.0, 1.0])).steps_up is None  # misread from the start: no way to go


@pytest.mark.parametrize(("stuck", "masked"), [(0, False), (2, False), (6, True), (40, True)])
def test_a_gradient_that_vanishes_near_the_boundary_is_masked(stuck, masked):
    rows = to_the_boundary(*[[-8, -6, -4, -1, 1]] * 60)
    rows["stop_reason"] = np.repeat(["stuck", "oracle"], [stuck, 60 - stuck])
    summary = summarise(rows)
    assert summary.steps_up.value == 100
    assert has_masked_gradient(summary) == has_masked_gradient(summary, "first") == masked
    assert not has_masked_gradient(summary, "none")
    lines = [line for line in cautions(summary) if line.startswith(f"{stuck / 0.6:.1f} % of the rows are stuck")]
    assert len(lines) == (stuck > 0)


@pytest.mark.parametrize(("row", "masked"), [([-8, -6, -4, -1, 1], False), ([-8, -6, -7, -6, -4, -1, 1], True)])
def test_a_gradient_that_hides_near_the_boundary_is_masked(row, masked):
    summary = summarise(to_the_boundary(*[row] * 60))
    assert summary.first_steps_up.value == 100
    assert has_masked_gradient(summary) == masked
    assert not has_rough_gradient(summary)
    assert not has_masked_gradient(summary, "first")
    lines = [line for line in cautions(summary) if "of all steps to the boundary did" in line]
    assert len(lines) == masked
    assert not [line for line in cautions(summary, steps="first") if "masked" in line]


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, "all"),
        ({"is_guided": False}, "none"),
        ({"reencodes": True}, "first"),
        ({"objective": "targeted"}, "first"),
        ({"objective": "cross_entropy"}, "all"),
        ({"generator": "transform"}, "first"),
    ],
)
def test_steps_count_where_the_classifier_alone_decides_whether_they_climb(changes, steps):
    usual = {"is_guided": True, "reencodes": False, "objective": "margin", "generator": "vqgan"}
    assert judged_steps(**{**usual, **changes}) == steps


@pytest.mark.slow
def test_the_slope_near_the_boundary_is_measured_when_a_split_ends(tmp_path, notes):
    """LeNet, whose gradient is its own; and one that is LeNet far from the boundary, and hides its gradient near it."""
    hidden = "{kind: module, target: 'masked_networks:SureThenMasked'}"
    options = ["source.limit=40", "perturb.budget=12", "perturb.step_size=0.05"]
    slopes = {}
    for split, *more in (("lenet",), ("hidden", f"classifier={hidden}")):
        notes.clear()
        make_split(load_recipe("mnist-lenet", [*options, f"output.split={split}", *more]), tmp_path)
        slopes[split] = read_provenance(SplitPaths(tmp_path, "mnist", split)).slope
        told = [line for line in notes if line.startswith("on the images nearest the boundary the classifier changes")]
        assert len(told) == (split == "hidden"), notes
    assert slopes["lenet"] == pytest.approx(1, abs=0.1)
    assert abs(slopes["hidden"]) < 0.1
    card = (tmp_path / "README.md").read_text()
    assert card.count("on the images nearest the boundary the classifier changes by") == 1
    found = evaluate(f"{tmp_path}:mnist/hidden", {"hidden": hidden})
    assert any("of what its gradient says" in note for note in found.splits[0].notes)


@pytest.mark.slow
def test_a_masked_network_is_not_ranked_and_the_line_says_why(tmp_path):
    """Splits of LeNet and of networks that answer as it does: `masked`, and `control` by random steps."""
    shares = {}
    for split, *more in (("lenet",), ("masked", f"classifier={MASKED}"), ("control", "perturb.update=random")):
        shared = ["source.limit=60", "perturb.budget=6", "perturb.step_size=0.1", f"output.split={split}"]
        with noted() as notes:
            make_split(load_recipe("mnist-lenet", [*shared, *more]), tmp_path)
        told = [line for line in notes if "gradient may be masked" in line]  # so few rows have no control
        assert len(told) == (split == "masked"), notes
        shares[split] = summary_of(read_provenance(SplitPaths(tmp_path, "mnist", split))).first_steps_up
    assert shares["lenet"].value == 100
    assert shares["masked"].high < 80
    assert shares["control"].high < 80
    splits = [f"{tmp_path}:mnist/{name}" for name in shares]
    found = evaluate(splits, {"lenet": "asset:mnist/lenet", "masked": MASKED})
    masked = {(result.split.rpartition("/")[2], result.classifier) for result in found.results if result.masked}
    assert masked == {("masked", "masked")}
    assert found.own is None  # one network is left, and one is no ranking
    (line,) = warning_lines(found)
    assert line.startswith("the gradient of masked may be masked on ")
    assert "mnist/masked, so it is not ranked there: the first step raises its loss hardly more often" in line
    text = to_markdown(evaluation_report(found))
    assert text.index("**Warning:** the gradient of masked may be masked") < text.index("## ")
    assert any("gradient may be masked" in note for note in found.splits[1].notes)
    notes = [note for result in found.results for note in result.notes]
    assert sum("it gives the same predictions as lenet" in note for note in notes) == 3  # masked, on each split
    assert not any("be masked" in note for split in found.splits[::2] for note in split.notes)


@pytest.mark.nightly
def test_a_rough_network_is_ranked_and_reported_as_rough(tmp_path):
    """LeNet with logits that jump: 100 digits, all of them controls."""
    rough = "{kind: module, target: 'masked_networks:Rough'}"
    options = ["source.limit=100", "perturb.budget=20", "perturb.step_size=0.05", "perturb.control=100"]
    for split, *more in (("lenet",), ("rough", f"classifier={rough}")):
        make_split(load_recipe("mnist-lenet", [*options, f"output.split={split}", *more]), tmp_path)
    splits = [f"{tmp_path}:mnist/lenet", f"{tmp_path}:mnist/rough"]
    found = evaluate(splits, {"lenet": LENET, "rough": rough})
    result = found.result(found.splits[1].name, "rough")
    assert (result.rough, result.masked) == (True, False)
    assert result.total.first_steps_up.high < 80
    assert {place.classifier for place in found.own.ranking if place.best is not None} == {"lenet", "rough"}
    assert any(line.startswith("the gradient of rough is rough on ") for line in warning_lines(found))
    assert "| rough (rough gradient) |" in to_markdown(evaluation_report(found))
    assert any("Its gradient is its own and rough" in note for note in found.splits[1].notes)
