"""What a step climbs and when the oracle accepts, on numbers that can be worked out by hand."""

import math

import pytest
import torch

from fmrgen import PerturbOptions
from fmrgen.engine.acceptance import accepts, targets
from fmrgen.engine.interfaces import NONE, Judgement
from fmrgen.engine.objectives import OBJECTIVES, loss, truth_of

LOGITS = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]], dtype=torch.float64)
PROBABILITIES = torch.tensor([[0.5, 0.3, 0.2], [0.45, 0.4, 0.15], [0.3, 0.6, 0.1]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("margin", [2 - 3, 3 - 1]),
        ("cross_entropy", [math.log(math.exp(1) + math.exp(2)) - 3, math.log(math.exp(3) + math.exp(2)) - 1]),
    ],
)
def test_an_objective_is_the_lead_of_the_other_classes(objective, expected):
    truth = truth_of(torch.tensor([1, 0]), 3, None)
    assert OBJECTIVES[objective](LOGITS, truth).tolist() == pytest.approx(expected)


def test_of_several_true_classes_none_is_climbed_to():
    also = torch.tensor([[False, False, True], [False, False, True]])
    truth = truth_of(torch.tensor([1, 0]), 3, also)
    assert OBJECTIVES["margin"](LOGITS, truth).tolist() == [1 - 3, 3 - 2]
    together = [1 - math.log(math.exp(3) + math.exp(2)), 3 - math.log(math.exp(1) + math.exp(2))]
    assert OBJECTIVES["cross_entropy"](LOGITS, truth).tolist() == pytest.approx(together)
    labels = torch.tensor([1, 0])
    shares = LOGITS.softmax(1)
    expected = [-math.log(shares[0, 1] + shares[0, 2]), -math.log(shares[1, 0] + shares[1, 2])]
    assert loss(LOGITS, labels, also).tolist() == pytest.approx(expected)
    one = torch.tensor([[False, False, True], [False, False, False]])
    assert loss(LOGITS, labels, one)[1] == loss(LOGITS, labels, None)[1]  # to the last bit


ALSO = torch.tensor([[False, True, False]] * 3)
OF_ONE, OF_BOTH = [0.5, 0.45, 0.3], [0.5, 0.45, 0.6]


@pytest.mark.parametrize(
    ("also", "options", "expected", "probabilities"),
    [
        (None, {}, [True, True, False], OF_ONE),
        (None, {"min_probability": 0.5}, [True, False, False], OF_ONE),
        (None, {"min_margin": 0.1}, [True, False, False], OF_ONE),
        (None, {"min_probability": 0.45, "min_margin": 0.04}, [True, True, False], OF_ONE),
        (None, {"min_probability": 0.6}, [False, False, False], OF_ONE),
        (None, {"oracle_rule": "none"}, [True, True, True], OF_ONE),
        (ALSO, {}, [True, True, True], OF_BOTH),
        (ALSO, {"min_probability": 0.5}, [True, False, True], OF_BOTH),
        (ALSO, {"min_margin": 0.31}, [False, False, True], OF_BOTH),
        (ALSO, {"oracle_rule": "consistent"}, [True, True, False], OF_ONE),  # what it saw, whatever is true
    ],
)
def test_the_oracle_accepts_any_class_that_is_true_where_it_is_sure_enough(also, options, expected, probabilities):
    judgement = Judgement(PROBABILITIES, PROBABILITIES)
    accepted, probability = accepts(judgement, torch.tensor([0, 0, 0]), PerturbOptions(**options), also)
    assert accepted.tolist() == expected
    assert probability.tolist() == probabilities


def test_an_oracle_that_sees_none_of_the_classes_accepts_nothing():
    labels, seen = torch.tensor([0, 1, 1]), torch.tensor([NONE, 0, NONE])
    judgement = Judgement(PROBABILITIES, PROBABILITIES, labels=seen)
    rules = {"label": [False, False, False], "consistent": [False, True, False], "none": [True, True, True]}
    for rule, expected in rules.items():
        options = PerturbOptions(oracle_rule=rule)
        assert accepts(judgement, targets(labels, seen, options), options)[0].tolist() == expected
