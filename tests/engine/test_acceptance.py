"""What a step climbs and when the oracle accepts, on numbers that can be worked out by hand."""

import math

import pytest
import torch

from fmrgen import PerturbOptions
from fmrgen.engine.acceptance import accepts, targets
from fmrgen.engine.interfaces import NONE, Judgement
from fmrgen.engine.objectives import OBJECTIVES

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
    assert OBJECTIVES[objective](LOGITS, torch.tensor([1, 0])).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [True, True, False]),
        ({"min_probability": 0.5}, [True, False, False]),
        ({"min_margin": 0.1}, [True, False, False]),
        ({"min_probability": 0.45, "min_margin": 0.04}, [True, True, False]),
        ({"min_probability": 0.6}, [False, False, False]),
    ],
)
def test_the_oracle_accepts_its_target_where_it_is_sure_enough(options, expected):
    options = PerturbOptions(**options)
    judgement = Judgement(PROBABILITIES, PROBABILITIES)
    accepted, probability = accepts(judgement, torch.tensor([0, 0, 0]), options)
    assert accepted.tolist() == expected
    assert probability.tolist() == [0.5, 0.45, 0.3]


def test_an_oracle_that_sees_none_of_the_classes_accepts_nothing():
    labels, seen = torch.tensor([0, 1, 1]), torch.tensor([NONE, 0, NONE])
    judgement = Judgement(PROBABILITIES, PROBABILITIES, labels=seen)
    for rule, expected in (("label", [False, False, False]), ("consistent", [False, True, False])):
        options = PerturbOptions(oracle_rule=rule)
        assert accepts(judgement, targets(labels, seen, options), options)[0].tolist() == expected
