"""What the engine refuses at the door: inputs that would only make wrong rows, silently."""

import re
from typing import get_args, get_type_hints

import pytest
import torch
from fakes import STEP, Brightness, Identity, Patient, grey
from small_models import SIZE
from torch import nn

from fmrgen import Example, Labels, PerturbOptions, UserError
from fmrgen import perturb as run_engine
from fmrgen.engine.objectives import OBJECTIVES
from fmrgen.engine.options import WITHOUT_GRADIENT, AttackOptions
from fmrgen.engine.updates import UPDATES
from fmrgen.oracles.clip import Config as ClipConfig

PLAIN = torch.full((3, SIZE, SIZE), 0.3)


def perturb(*examples, classifier=None, generator=None, oracle=None):
    models = (classifier or Brightness().eval(), generator or Identity(), oracle or Patient(1))
    return list(run_engine(examples, *models, PerturbOptions(budget=2, step_size=STEP, slots=2)))


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        ((PLAIN * 255).to(torch.uint8), 0, r"of torch.uint8; give RGB \[3, H, W\], as floats from 0 to 1"),
        (PLAIN * 255, 0, r"has values from 76.5 to 76.5; give RGB .* image / 255"),
        (PLAIN - 0.5, 0, r"has values from -0.2 to -0.2; give"),
        (PLAIN * float("nan"), 0, r"has values from nan to nan; give"),
        (PLAIN[:1], 0, rf"has the shape \[1, {SIZE}, {SIZE}\]; give RGB"),
        (PLAIN[:, :8], 0, rf"has {SIZE}×8 pixels, and the generator takes {SIZE}×{SIZE}; resize it"),
        (PLAIN.numpy(), 0, r"is a ndarray, not a tensor"),
        (PLAIN, -1, r"its label is -1; classes count from 0"),
        (PLAIN, 5, r"classifier: has 2 outputs, and an example has the label 5"),
    ],
)
def test_an_example_that_is_none(image, label, message):
    with pytest.raises(UserError, match=message):
        perturb(Example(7, image, label))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "budget must be from 1 to 1,000,000 steps, not 0"),
        ({"budget": 2.5}, "budget must be an integer, not 2.5"),
        ({"step_size": 0.0}, "step_size must be auto or a positive number, not 0.0"),
        ({"step_size": float("nan")}, "step_size must be auto or a positive number, not nan"),
        ({"step_size": "0.1"}, "step_size must be a number or auto, not '0.1'"),
        ({"update": "foo"}, "unknown update 'foo', choose from sign, l2, adam, nes, random"),
        ({"objective": "cross_entrpy"}, "unknown objective 'cross_entrpy', did you mean cross_entropy?"),
        ({"attacks": "strong"}, "unknown attacks 'strong'"),
        ({"attacks": [AttackOptions()]}, "attacks must be one, or a list of 2 to 100, not 1"),
        ({"attacks": ["l2", "sign"]}, "attacks must be one, standard, thorough, or a list of AttackOptions"),
        ({"attacks": "standard", "update": "l2"}, "update belongs to each attack of a list"),
        ({"attacks": "standard", "start_noise": 0.1}, "start_noise belongs to each attack of a list"),
        ({"attacks": "standard", "reencode": True}, "several attacks start from one encoding: leave out reencode"),
        ({"start": "pdg"}, "unknown start 'pdg', did you mean pgd?"),
        ({"reencode": "no"}, "reencode must be True or False, not 'no'"),
        ({"oracle_rule": "labels"}, "unknown oracle_rule 'labels', did you mean label?"),
        ({"oracle_rule": "none", "min_margin": 0.1}, "oracle_rule none accepts every image: set min_margin to 0"),
        ({"control": -1}, "control must be auto or from 0 to 1,000,000, not -1"),
        ({"control": "all"}, "control must be an integer or auto, not 'all'"),
        ({"control": 4, "update": "random"}, "control compares guided steps from one encoding"),
        ({"slots": 0}, "slots must be auto or from 1 to 65,536, not 0"),
        ({"slots": "autoo"}, "slots must be an integer or auto, not 'autoo'"),
        ({"precision": "fp16"}, "unknown precision 'fp16', did you mean bf16?"),
    ],
)
def test_an_option_that_is_none(options, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        PerturbOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 0}, "step must be a positive number, not 0"),
        ({"noise": -1.0}, "noise must not be negative, it is -1.0"),
        ({"target": -1}, "target must be a class's number or one of runner_up, third, fourth, least_likely, not -1"),
        ({"update": "sgd"}, "unknown update 'sgd'"),
    ],
)
def test_an_option_of_an_attack_that_is_none(options, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        AttackOptions(**options)


def test_a_classifier_in_training_mode():
    with pytest.raises(UserError, match=r"classifier: is in training mode; call eval\(\)"):
        perturb(*grey(0.2), classifier=Brightness().train())
    assert perturb(*grey(0.2), classifier=nn.Sequential(Brightness().eval()))


@pytest.mark.parametrize(("scale", "shift"), [(255, 0), (2, -1)])
def test_a_generator_of_another_scale(scale, shift):
    class Scaled(Identity):
        def decode(self, latents):
            return super().decode(latents) * scale + shift

    with pytest.raises(UserError, match="generator: decodes to values from .*; they must be from 0 to 1"):
        perturb(*grey(0.2, 0.1), generator=Scaled())


def test_an_oracle_that_answers_with_a_tensor_or_knows_no_labels():
    class Bare(Patient):
        def judge(self, images, originals=None):
            return super().judge(images).probabilities

    with pytest.raises(UserError, match=r"oracle: judge returns a Tensor; it must return fmrgen.Judgement"):
        perturb(*grey(0.2), oracle=Bare(1))
    oracle = ClipConfig(model="asset:mnist/clip").build()
    with pytest.raises(UserError, match="oracle: does not know its labels yet; call set_labels"):
        perturb(*grey(0.2), oracle=oracle)
    oracle.set_labels(Labels(("0", "1")))
    assert perturb(*grey(0.2), oracle=oracle)


def test_each_rule_and_objective_that_can_be_asked_for_is_there():
    hints = get_type_hints(PerturbOptions)
    assert set(get_args(hints["update"])) == set(UPDATES)
    assert set(WITHOUT_GRADIENT) == {name for name, rule in UPDATES.items() if not rule.needs_gradient}
    assert set(get_args(hints["objective"])) == set(OBJECTIVES)
