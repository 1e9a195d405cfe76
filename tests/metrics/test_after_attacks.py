"""Figures of rows that went through several attacks, against figures counted by hand."""

import numpy as np
import pytest

from fmrgen.metrics.cautions import cautions, tightness
from fmrgen.metrics.rows import Rows, accepted_as_label
from fmrgen.metrics.summary import summarise
from fmrgen.results.steps import step_figures

# The predictions of each attack on six rows of class 0, from the reconstruction on; the last row has no valid step.
PREDICTIONS = [
    [[0, 0, 1]],
    [[0, 0], [0, 0, 0], [0, 1, 0]],
    [[0, 0], [0], [0, 0, 0]],
    [[0], [0, 0], [0, 0]],
    [[0, 0], [0, 2]],
    [[0], [0], [0]],
]
ATTACK = [0, 2, 0, 1, 1, 0]  # that made the stored image
STORED = [2, 1, 1, 1, 1, 0]  # the step of it that is the stored image


def lists(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def record_of(steps):
    return {
        "stop_reason": "oracle" if len(steps) > 1 else "rejected",
        "predictions": steps,
        "objectives": np.linspace(-1, 1, len(steps)).tolist(),
        "oracle_probabilities": [1.0, *(0.9 - 0.1 * step for step in range(1, len(steps)))],
        "rejected_prediction": 0,
    }


def columns_of(predictions=PREDICTIONS, attack=ATTACK, stored=STORED):
    records = [[record_of(steps) for steps in attacks] for attacks in predictions]
    count = len(records)
    chosen = [row[number] for row, number in zip(records, attack, strict=True)]

    def steps_of(name):
        return [record[name][: step + 1] for record, step in zip(chosen, stored, strict=True)]

    return {
        "label": np.zeros(count, int),
        "valid": np.array(stored) > 0,
        "iterations": np.array(stored),
        "attack": np.array(attack),
        "attacks": lists(records),
        "prediction": np.array([steps[-1] for steps in steps_of("predictions")]),
        "original_prediction": np.array([0] * (count - 1) + [1]),
        "stop_reason": np.array([record["stop_reason"] for record in chosen]),
        "step_predictions": lists([np.array(steps) for steps in steps_of("predictions")]),
        "step_oracle_probabilities": lists([np.array(steps) for steps in steps_of("oracle_probabilities")]),
    }


def test_fmr_after_each_attack_is_that_of_the_rows_valid_by_then():
    figures = Rows(columns_of()).after_each_attack()
    sa = 5 / 6
    # Four rows are valid by the first attack, of which it fools one; five by the second, of which two are fooled.
    assert [figure.value for figure in figures] == pytest.approx([75 / sa, 60 / sa, 40 / sa])
    summary = summarise(columns_of())
    assert summary.fmr.value == pytest.approx(figures[-1].value)
    assert summary.first_attack_fmr.value == pytest.approx(75 / sa)


def test_the_first_attack_alone_counts_its_last_image():
    predictions = [[[0, 1, 0]], *PREDICTIONS[1:]]  # fooled on the way, right in the end
    summary = summarise(columns_of(predictions, stored=[1, *STORED[1:]]))
    assert summary.first_attack_fmr.value == pytest.approx(100 / (5 / 6))
    assert summary.fmr.value == pytest.approx(40 / (5 / 6))


def test_the_last_two_attacks_say_whether_fmr_has_converged():
    summary = summarise(columns_of())
    drop = summary.last_attacks_drop
    assert drop.value == pytest.approx(100 * 2 / 10 / (5 / 6))  # two rows in two attacks on five
    assert drop.low < drop.value < drop.high
    assert summary.has_converged is False
    assert tightness(summary).startswith("an upper bound, not converged: each of the last two attacks lowered it by")
    assert any(line.startswith("FMR has not converged") for line in cautions(summary))
    many = columns_of(PREDICTIONS[2:3] * 400, [0] * 400, [1] * 400)
    settled = summarise({**many, "original_prediction": np.zeros(400, int)})
    assert (settled.last_attacks_drop.value, settled.has_converged) == (0, True)
    assert tightness(settled).startswith("converged: ")
    assert not any("converged" in line for line in cautions(settled))


def test_two_attacks_do_not_say_it_and_one_is_an_upper_bound():
    two = summarise(columns_of([[[0, 0], [0, 0]]] * 30, [0] * 30, [1] * 30))
    assert (two.last_attacks_drop, two.has_converged) == (None, None)
    assert tightness(two) == "an upper bound (two attacks)"
    unattacked = {name: values for name, values in columns_of().items() if name not in ("attack", "attacks")}
    summary = summarise(unattacked)
    assert (summary.first_attack_fmr, summary.last_attacks_drop, summary.has_converged) == (None, None, None)
    assert tightness(summary) == "an upper bound (one attack)"


def test_rows_that_are_all_fooled_do_not_show_how_many_attacks_there_were():
    fooled = [[[0, 1]], [[0, 0], [0, 1]], [[0, 0], [0, 0], [0, 1]]]
    summary = summarise(columns_of(fooled, [0, 1, 2], [1, 1, 1]))
    assert (summary.fmr.value, summary.last_attacks_drop, summary.has_converged) == (0, None, True)
    assert tightness(summary) == "converged: it can't be lower"


def test_another_true_label_is_right_in_every_attack():
    columns = columns_of()
    columns["accepted_labels"] = lists([[0, 1]] * 6)  # so that only the fifth row is fooled, by label 2
    figures = Rows(columns).after_each_attack()
    assert [figure.value for figure in figures] == pytest.approx([100, 80, 80])
    replaced = accepted_as_label(columns)
    assert [at.perturbed_accuracy.value for at in step_figures(replaced, budget=2).budgets] == pytest.approx([80, 80])
    assert summarise(columns).first_attack_fmr.value == pytest.approx(100)


def test_a_row_that_a_judge_finds_invalid_does_not_count():
    columns = columns_of()
    columns["valid"] = columns["valid"] & (np.arange(6) != 0)  # the row that the first attack fools
    summary = summarise(columns)
    assert summary.first_attack_fmr.value == pytest.approx(100 / (5 / 6))
    figures = step_figures(columns, budget=2)
    assert figures.budgets[-1].fmr.value == pytest.approx(summary.fmr.value)
    unattacked = {name: values for name, values in columns.items() if name not in ("attack", "attacks")}
    assert step_figures(unattacked, budget=2).thresholds[0].validation_rate.value == pytest.approx(100 * 4 / 6)


def test_records_that_do_not_fit_are_left_out():
    columns = columns_of()
    columns["attacks"][0] = []
    summary = summarise(columns)
    assert summary.fmr is not None
    assert summary.first_attack_fmr is summary.last_attacks_drop is None


def test_a_smaller_budget_counts_every_attack_up_to_it():
    figures = step_figures(columns_of(), budget=2)
    sa = 5 / 6
    at_one, at_two = figures.budgets
    assert at_one.fmr.value == pytest.approx(60 / sa)  # the fools of one step: the second and the fifth row's
    assert at_two.fmr.value == pytest.approx(40 / sa)
