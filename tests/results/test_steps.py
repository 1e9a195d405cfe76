"""What is read off the steps of a split, against runs of their own and against figures counted by hand."""

import numpy as np
import pytest
from fakes import BUDGET, COUNT, Fixture
from small_models import LABELS, tiny_vqgan

from fmrgen.metrics.summary import summarise
from fmrgen.results.steps import step_figures


def columns_of(rows):
    names = ("label", "valid", "iterations", "prediction", "original_prediction")
    columns = {name: np.array([getattr(row, name) for row in rows.values()]) for name in names}
    for name in ("step_predictions", "step_oracle_probabilities"):
        columns[name] = np.empty(len(rows), dtype=object)
        columns[name][:] = [np.float32(getattr(row, name)) for row in rows.values()]
    return columns


@pytest.fixture
def whole(double):
    """A random network, right on all originals but every fourth, under an oracle that stays with its own labels."""
    setting = Fixture(tiny_vqgan(), 0.02)
    predicted = setting.classifier(setting.images).argmax(1).tolist()
    setting.labels = [(label + (i % 4 == 0)) % LABELS for i, label in enumerate(predicted)]
    return setting, columns_of(setting.engine(slots=8, oracle_rule="consistent"))


def test_every_budget_has_the_figures_of_a_run_of_its_own(whole):
    setting, columns = whole
    figures = step_figures(columns, BUDGET)
    assert [at.budget for at in figures.budgets] == list(range(1, BUDGET + 1))
    for budget in (1, 2, 5, BUDGET):
        alone = summarise(columns_of(setting.engine(slots=8, oracle_rule="consistent", budget=budget)))
        at = figures.budgets[budget - 1]
        assert at.perturbed_accuracy == alone.perturbed_accuracy
        assert at.fmr.value == pytest.approx(alone.fmr.value)
    assert figures.budgets[-1].fmr == figures.thresholds[0].fmr == summarise(columns).fmr  # one figure, one interval
    mean = np.mean([at.fmr.value for at in figures.budgets])
    assert figures.area_under_fmr.value == pytest.approx(mean)
    assert figures.area_under_fmr.low < mean < figures.area_under_fmr.high


def test_every_threshold_has_the_figures_of_a_run_of_its_own(whole):
    setting, columns = whole
    different = set()
    for at in step_figures(columns, BUDGET).thresholds:
        settings = {"slots": 8, "oracle_rule": "consistent", "min_probability": at.min_probability}
        alone = summarise(columns_of(setting.engine(**settings)))
        assert at.validation_rate == alone.validation_rate
        assert at.perturbed_accuracy == alone.perturbed_accuracy
        assert at.mean_iterations == alone.mean_iterations
        different.add(at.validation_rate.value)
    assert len(different) > 1


def test_only_what_is_stricter_than_the_splits_own_oracle_is_told(whole):
    _, columns = whole
    thresholds = [at.min_probability for at in step_figures(columns, BUDGET, own_threshold=0.82).thresholds]
    assert thresholds[:2] == [0.82, 0.85]


def test_a_split_whose_rows_all_stopped_at_the_reconstruction(whole):
    setting, _ = whole
    columns = columns_of(setting.engine(slots=8, min_probability=0.999))
    assert not columns["iterations"].any()
    figures = step_figures(columns, BUDGET)
    assert [at.validation_rate.value for at in figures.thresholds] == [0] * len(figures.thresholds)
    assert figures.area_under_fmr is None


def test_steps_that_do_not_fit_their_rows_say_nothing(whole):
    _, columns = whole
    assert step_figures({**columns, "iterations": columns["iterations"] + 1}, BUDGET) is None
    assert step_figures(columns, 2) is None  # rows of more steps than the provenance allows
    assert step_figures(columns, 10**9) is None
    assert step_figures({name: columns[name] for name in columns if name != "step_predictions"}, BUDGET) is None
    assert len(step_figures(columns, 1000).budgets) <= 60
    assert len(columns["label"]) == COUNT
