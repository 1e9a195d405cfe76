"""Whether the oracle itself stands an attack (paper App. L, Table 15): over many images, for many radii, beside
classifiers."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from fmrgen.apps.studies.attacked import AttackedJudge
from fmrgen.config import ComponentConfig
from fmrgen.distributed.launch import start_process
from fmrgen.engine.attacks import Attack
from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.interfaces import Generator, Judgement, Oracle, Originals
from fmrgen.engine.models import row_seed
from fmrgen.errors import UserError
from fmrgen.metrics.intervals import proportion
from fmrgen.recipe.build import blank_image, build_classifier_and_oracle, build_component, build_source, fit_to_labels
from fmrgen.recipe.job import Recipe
from fmrgen.recipe.objects import each_training

_TOGETHER = 16


def attack_oracle(
    recipe: Recipe,
    classifiers: Mapping[str, ComponentConfig | list[ComponentConfig]],
    epsilons: Sequence[float],
    *,
    steps: int = 20,
    on_images: Callable[[int, int], None] = lambda done, total: None,
) -> list[AttackedJudge]:
    """Attacks the oracle of a recipe, and classifiers, each image towards another class.

    The target of an image is drawn by its id, the same for all judges. PGD starts at the image; what is judged
    afterwards is the image as 8 bits hold it, by the judge as it is.

    Args:
        recipe: its source, oracle and `generator.image_size` are used.
        classifiers: by their names; a list is of trainings of one.
        epsilons: radii, largest change of a pixel from 0 to 1.
        steps: of the attack.
        on_images: called with (images done, images in all).

    Returns:
        For each judge, the oracle first, what each radius does.

    Raises:
        UserError: a part can't be built, or the oracle tells no gradient.
    """
    device = start_process()
    source = build_source(recipe.source)
    size: int = getattr(recipe.generator, "image_size", 0)  # where its section tells, its weights are not needed
    size = size or build_component(recipe.generator, "generator", Generator, "cpu").image_size
    blank = blank_image(size, device)
    oracle = build_classifier_and_oracle(recipe.classifier, recipe.oracle, source.labels, blank).oracle
    judges: dict[str, Callable[[Tensor], Tensor]] = {"oracle": oracle.logits}
    for name, (section, _) in each_training(classifiers).items():
        if name in judges:
            raise UserError("--classifier: none may be called oracle; give it another name, NAME=…")
        built = build_component(section, f"classifier {name}", torch.nn.Module, device)
        judges[name] = fit_to_labels(built, source.labels, blank, f"classifier {name}")
    if (classes := len(source.labels)) < 2:
        raise UserError("source: has only one class, so there is no other to attack towards")
    examples, done = source.load_all(size), 0
    found: dict[tuple[str, float], list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]] = {}
    while batch := list(islice(examples, _TOGETHER)):
        images = torch.stack([example.image for example in batch]).to(device)
        labels = torch.tensor([example.label for example in batch], device=device)
        targets = torch.tensor([_target(e.id, e.label, classes, recipe.perturb.seed) for e in batch], device=device)
        for name, logits in judges.items():
            answers = _answers(name, logits, oracle)
            originals = Originals(images, labels)
            clean = answers(images, originals).decided == labels
            for epsilon in epsilons:
                attack = Attack.pgd(epsilon, steps, random_start=False)
                attacked = on_byte_grid(attack(logits, images, targets, is_targeted=True))
                judgement = answers(attacked, originals)
                said = judgement.decided
                of_target = judgement.probabilities.gather(1, targets.unsqueeze(1)).squeeze(1)
                parts = (clean, said == labels, said == targets, of_target)
                found.setdefault((name, epsilon), []).append(tuple(part.cpu().numpy() for part in parts))  # type: ignore[arg-type]
        on_images(done := done + len(batch), len(source))
    return [_figures(name, epsilon, parts) for (name, epsilon), parts in found.items()]


def _target(example_id: int, label: int, classes: int, seed: int) -> int:
    """Another class, by the id."""
    return (label + 1 + row_seed(seed, example_id, "target") % (classes - 1)) % classes


def _answers(name: str, logits: Callable[[Tensor], Tensor], oracle: Oracle) -> Callable[..., Judgement]:
    """What a judge says: the oracle as it judges, and not as it is differentiated."""

    def answers(images: Tensor, originals: Originals) -> Judgement:
        with torch.no_grad():
            if name == "oracle":
                return oracle.judge(images, originals)
            probabilities = logits(images).softmax(1)
            return Judgement(probabilities, probabilities)

    return answers


def _figures(
    name: str, epsilon: float, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
) -> AttackedJudge:
    clean, right, targeted, of_target = (np.concatenate(values) for values in zip(*parts, strict=True))
    rates = [proportion(values) for values in (clean, right, targeted)]
    assert rates[0] is not None
    assert rates[1] is not None
    assert rates[2] is not None
    return AttackedJudge(name, rates[0], epsilon, rates[1], rates[2], float(of_target.mean()))
