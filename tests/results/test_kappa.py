"""Agreement beyond chance against scikit-learn and krippendorff, and its intervals against simulation."""

import time

import krippendorff
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from fmrgen.results.kappa import cohen_kappa, krippendorff_alpha

UNASKED = -3


def judges(random, count, images, classes=10, right=0.8):
    """What judges say who are right so often, and else name any class, none (-1), or can't tell (-2)."""
    truth = random.integers(0, classes, images)
    return np.where(random.random((count, images)) < right, truth, random.integers(-2, classes, (count, images)))


def test_the_values_are_those_of_others():
    random = np.random.default_rng(0)
    for count, images in ((2, 2), (2, 50), (5, 300)):
        said = judges(random, count, images)
        assert cohen_kappa(said[0], said[1]).value == pytest.approx(cohen_kappa_score(said[0], said[1]))
        said = np.where(random.random(said.shape) < 0.2, UNASKED, said) if images > 2 else said
        theirs = np.where(said == UNASKED, np.nan, said.astype(float))
        alpha = krippendorff.alpha(reliability_data=theirs, level_of_measurement="nominal")
        assert krippendorff_alpha(said, UNASKED).value == pytest.approx(alpha)


@pytest.mark.slow
def test_intervals_hold_the_truth():
    """Of two judges of ten classes who are right in 80 % each; the truth is that of very many images."""
    random = np.random.default_rng(1)
    many = judges(random, 2, 1_000_000)
    truth = cohen_kappa_score(many[0], many[1])
    held = {"kappa": 0, "alpha": 0}
    for _ in range(200):
        said = judges(random, 2, 150)
        for name, found in (("kappa", cohen_kappa(*said)), ("alpha", krippendorff_alpha(said, UNASKED))):
            held[name] += found.low <= truth <= found.high
    assert 180 <= min(held.values()) <= max(held.values()) <= 198, held


def test_all_alike_has_an_interval_and_no_variety_no_coefficient():
    digits = np.arange(60) % 10
    for found in (cohen_kappa(digits, digits), krippendorff_alpha(np.stack([digits] * 3), UNASKED)):
        assert (found.value, found.high) == (1, 1)
        assert found.low == pytest.approx(1 - 0.0602 / 0.9, abs=0.003)  # Wilson leaves 6.0 % of 60
    steady = cohen_kappa(np.zeros(60, int), digits)
    assert steady.low < steady.value == 0 < steady.high
    same = np.zeros((2, 60), int)
    assert cohen_kappa(*same) is krippendorff_alpha(same, UNASKED) is None
    assert cohen_kappa(digits[:1], digits[:1]) is None
    assert krippendorff_alpha(np.full((2, 60), UNASKED), UNASKED) is None


def test_many_judges_of_many_images_of_many_classes_take_no_time():
    """A thousand resamples of scikit-learn's kappa took 5 s for each judge of a thousand images."""
    said = judges(np.random.default_rng(2), 200, 1000, classes=1000)
    started = time.process_time()
    for one in said[1:21]:
        assert cohen_kappa(one, said[0]) is not None
    assert krippendorff_alpha(said, UNASKED) is not None
    assert time.process_time() - started < 20
