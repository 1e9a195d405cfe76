"""The oracle itself under attack (paper App. L, Table 15): over many images, for many radii, beside classifiers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fmrgen.config import ComponentConfig
from fmrgen.distributed.launch import start_process
from fmrgen.engine.attacks import Attack
from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.interfaces import Generator, Judgement, Oracle, Originals
from fmrgen.engine.models import row_seed
from fmrgen.errors import UserError
from fmrgen.metrics.intervals import Estimate, proportion
from fmrgen.recipe.build import build_classifier, build_component, build_oracle, build_source
from fmrgen.recipe.job import Recipe
from fmrgen.recipe.objects import each_training

_BATCH_SIZE = 16


@dataclass(frozen=True)
class AttackedJudge:
    """A judge under attack: `oracle`, or a classifier by its name. Rates are in percent.

    Attributes:
        name: of the judge.
        clean: accuracy on the images as they are.
        epsilon: radius of the attack, largest change of a pixel from 0 to 1.
        right: accuracy after it.
        targeted: share of images that are taken for the target after it.
        target_probability: mean probability of the target.
    """

    name: str
    clean: Estimate
    epsilon: float
    right: Estimate
    targeted: Estimate
    target_probability: float


class _Outcomes(NamedTuple):
    """What an attack did to a batch of n images, each [n].

    Attributes:
        clean: whether the judge was right before the attack, bool.
        right: whether it is right afterwards, bool.
        targeted: whether it takes the image for the target, bool.
        target_probability: its probability of the target, float.
    """

    clean: np.ndarray
    right: np.ndarray
    targeted: np.ndarray
    target_probability: np.ndarray


def attack_oracle(
    recipe: Recipe,
    classifiers: Mapping[str, ComponentConfig | list[ComponentConfig]],
    epsilons: Sequence[float],
    *,
    steps: int = 20,
    on_images: Callable[[int, int], None] = lambda done, total: None,
) -> list[AttackedJudge]:
    """Attack the oracle of a recipe, and classifiers, each image towards another class.

    The target of an image is drawn by its id, the same for all judges. PGD starts at the image. The attacked image is
    rounded to 8 bits, and judged by the judge as it is.

    Args:
        recipe: its source, oracle and `generator.image_size` are used.
        classifiers: by their names; a list is of trainings of one.
        epsilons: radii, largest change of a pixel from 0 to 1.
        steps: of the attack.
        on_images: called with (images done, images in all).

    Returns:
        For each judge, the oracle first, what each radius does.

    Raises:
        UserError: a part can't be built, or the oracle has no gradient.
    """
    device = start_process()
    source = build_source(recipe.source)
    size: int = getattr(recipe.generator, "image_size", 0)  # if its section has it, its weights are not needed
    size = size or build_component(recipe.generator, "generator", Generator, "cpu").image_size
    oracle = build_oracle(recipe.oracle, source.labels, size, device)
    judges: dict[str, Callable[[Tensor], Tensor]] = {"oracle": oracle.logits}
    for name, (section, _) in each_training(classifiers).items():
        if name in judges:
            raise UserError("--classifier: none may be called oracle; give it another name, NAME=…")
        judges[name] = build_classifier(section, source.labels, size, device, f"classifier {name}")
    classes = len(source.labels)
    if classes < 2:
        raise UserError("source: has only one class, so there is no other to attack towards")
    examples = source.load_all(size)
    done = 0
    outcomes: dict[tuple[str, float], list[_Outcomes]] = {}
    while batch := list(islice(examples, _BATCH_SIZE)):
        images = torch.stack([example.image for example in batch]).to(device)
        labels = torch.tensor([example.label for example in batch], device=device)
        target_list = [_target(example.id, example.label, classes, recipe.perturb.seed) for example in batch]
        targets = torch.tensor(target_list, device=device)
        originals = Originals(images, labels)
        for name, logits in judges.items():
            judge = _judge(name, logits, oracle)
            clean = judge(images, originals).decided == labels
            for epsilon in epsilons:
                attack = Attack.pgd(epsilon, steps, random_start=False)
                attacked = on_byte_grid(attack(logits, images, targets, is_targeted=True))
                judgement = judge(attacked, originals)
                batch_outcomes = _Outcomes(
                    clean.cpu().numpy(),
                    (judgement.decided == labels).cpu().numpy(),
                    (judgement.decided == targets).cpu().numpy(),
                    judgement.probabilities.gather(1, targets.unsqueeze(1)).squeeze(1).cpu().numpy(),
                )
                outcomes.setdefault((name, epsilon), []).append(batch_outcomes)
        done += len(batch)
        on_images(done, len(source))
    return [_summarise(name, epsilon, batches) for (name, epsilon), batches in outcomes.items()]


def _target(example_id: int, label: int, classes: int, seed: int) -> int:
    """Return another class than the label, drawn by the example's id."""
    return (label + 1 + row_seed(seed, example_id, "target") % (classes - 1)) % classes


def _judge(name: str, logits: Callable[[Tensor], Tensor], oracle: Oracle) -> Callable[[Tensor, Originals], Judgement]:
    """Return a judge's function of images: the oracle's is `judge`, not the `logits` that are differentiated."""

    def judge(images: Tensor, originals: Originals) -> Judgement:
        with torch.no_grad():
            if name == "oracle":
                return oracle.judge(images, originals)
            probabilities = logits(images).softmax(1)
            return Judgement(probabilities, probabilities)

    return judge


def _summarise(name: str, epsilon: float, batches: Sequence[_Outcomes]) -> AttackedJudge:
    outcomes = _Outcomes(*map(np.concatenate, zip(*batches, strict=True)))  # field by field
    clean, right, targeted = _rate(outcomes.clean), _rate(outcomes.right), _rate(outcomes.targeted)
    return AttackedJudge(name, clean, epsilon, right, targeted, float(outcomes.target_probability.mean()))


def _rate(hits: np.ndarray) -> Estimate:
    estimate = proportion(hits)
    assert estimate is not None  # no batch is empty
    return estimate
