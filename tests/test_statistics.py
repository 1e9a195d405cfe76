"""The figures of a split against cases worked by hand, against scipy, and the intervals against simulation."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from fmrgen.statistics import foundation_model_robustness, proportion, summarise


def columns(**changed):
    """Four examples of class 1; the third is invalid."""
    table = {
        "label": [1, 1, 1, 1],
        "valid": [True, True, False, True],
        "iterations": [3, 5, 0, 1],
        "prediction": [1, 0, 1, 0],
        "original_prediction": [1, 1, 1, 0],
        "reconstruction_prediction": [1, 1, 0, 0],
        "original_oracle_label": [1, 1, 1, 1],
        **changed,
    }
    return {name: np.array(values) for name, values in table.items()}


def test_figures_worked_by_hand():
    summary = summarise(columns())
    assert summary.rows == 4
    assert summary.standard_accuracy.value == 75
    assert summary.perturbed_accuracy.value == pytest.approx(100 / 3)  # the invalid row's hit does not count
    assert summary.validation_rate.value == 75
    assert summary.fmr.value == pytest.approx(100 / 3 / 75 * 100)
    assert summary.mean_iterations == 3
    assert summary.reconstruction_accuracy.value == 50
    assert summary.oracle_accuracy.value == 100


def test_what_has_no_divisor_is_none_without_a_warning():
    nothing_valid = summarise(columns(valid=[False] * 4))
    assert (nothing_valid.perturbed_accuracy, nothing_valid.fmr, nothing_valid.mean_iterations) == (None, None, None)
    assert nothing_valid.validation_rate.value == 0
    assert summarise(columns(original_prediction=[0] * 4)).fmr is None
    empty = summarise({name: np.array([], dtype=int) for name in columns()})
    assert empty.rows == 0
    assert empty.standard_accuracy is None
    assert empty.fmr is None


def test_wilson_interval_worked_by_hand():
    estimate = proportion(np.arange(10) < 8)  # Wilson 1927: centre (0.8 + z²/20) / (1 + z²/10), z = 1.96
    assert estimate.value == 80
    assert (estimate.low, estimate.high) == pytest.approx((49.02, 94.33), abs=0.01)
    certain = proportion(np.ones(1000, dtype=bool))
    assert (certain.value, certain.high) == (100, 100)
    assert 99.5 < certain.low < 100


def simulate(rng, size):
    """Examples of a classifier with SA 0.9 and, where valid (0.95), PA 0.2 that leans on the original's answer."""
    original = rng.random(size) < 0.9
    valid = rng.random(size) < 0.95
    return rng.random(size) < np.where(original, 0.22, 0.02), valid, original


def test_paired_bootstrap_agrees_with_scipy():
    perturbed, valid, original = simulate(np.random.default_rng(1), 400)
    estimate = foundation_model_robustness(perturbed, valid, original)

    def fmr(perturbed, valid, original):
        return 100 * (perturbed & valid).sum() / valid.sum() / original.mean()

    interval = bootstrap(
        (perturbed, valid, original), fmr, paired=True, vectorized=False, method="percentile", n_resamples=4000, rng=2
    ).confidence_interval
    assert estimate.value == pytest.approx(fmr(perturbed, valid, original))
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high), abs=0.5)


def test_the_intervals_contain_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    truth = 100 * (0.9 * 0.22 + 0.1 * 0.02) / 0.9
    within = {"fmr": 0, "sa": 0}
    for _ in range(2000):
        perturbed, valid, original = simulate(rng, 1000)
        fmr = foundation_model_robustness(perturbed, valid, original, resamples=1000)
        sa = proportion(original)
        within["fmr"] += fmr.low <= truth <= fmr.high
        within["sa"] += sa.low <= 90 <= sa.high
    assert 0.94 <= within["fmr"] / 2000 <= 0.96, within
    assert 0.94 <= within["sa"] / 2000 <= 0.96, within


def test_the_interval_is_the_same_each_time():
    examples = simulate(np.random.default_rng(1), 200)
    assert foundation_model_robustness(*examples) == foundation_model_robustness(*examples)
