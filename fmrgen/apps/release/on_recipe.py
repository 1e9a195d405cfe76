"""Two classifiers by a recipe: on all images of its source, and on its originals transformed.

Does NEW lose where images are rotated, shifted, darker, or partly covered? Accuracy on the originals may show nothing
of a regression that only such images bring out: a checkpoint that never saw a shifted digit in training is right on all
that are centred.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F
from torchvision.transforms.v2.functional import InterpolationMode

from fmrgen.apps.explain.rows import DrawnRows
from fmrgen.apps.release.evidence import Evidence, evidence_of, judged
from fmrgen.apps.release.flips import groups_tested
from fmrgen.apps.release.generated import generate_against, has_gradient
from fmrgen.apps.release.on_images import diff_on_images
from fmrgen.apps.release.outcome import Diff
from fmrgen.distributed.launch import Processes
from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.interfaces import Generator
from fmrgen.engine.options import WITHOUT_GRADIENT
from fmrgen.errors import UserError
from fmrgen.recipe.build import ClassifierAndOracle, build_component, build_oracle, build_source
from fmrgen.recipe.job import Recipe
from fmrgen.recipe.objects import AnyClassifier, classifier_section

_ORIGINALS = 300  # that are transformed, where there are as many
_BATCH = 64


def diff_on_recipe(
    recipe: Recipe, output: str | Path, old: AnyClassifier, new: AnyClassifier, *, margin: float
) -> Diff:
    """Return the comparison on all images of a recipe's source, and on its originals transformed; arguments as `diff`
    has them."""
    sections = classifier_section(old), classifier_section(new)
    if sections[0] == sections[1]:
        raise UserError("diff: old and new are one network: they have the same weights and settings; name two")
    outcome, models, differ = diff_on_images(recipe.source.whole(), sections[:1], sections[1], margin=margin)
    if not differ:
        return outcome
    source, processes = build_source(recipe.source), Processes()
    device = processes.device
    size = build_component(recipe.generator, "generator", Generator, device).image_size
    grey = torch.full((1, 3, size, size), 0.5, device=device)
    of_old, of_new = (model.in_labels(source.labels, grey, "the recipe's source") for model in models)
    judges = ClassifierAndOracle(of_new, build_oracle(recipe.oracle, source.labels, size, device))
    rows = DrawnRows.of_source(source, size, judges, recipe.perturb, _ORIGINALS, device)
    networks = {"OLD": of_old, "NEW": of_new}
    without = [name for name, network in networks.items() if not has_gradient(network, rows.originals[:2])]
    generated = None
    notes = [*outcome.notes]
    if without and recipe.perturb.runs[0].update not in WITHOUT_GRADIENT:
        notes.append(
            f"no images were generated against the two, for {' and '.join(without)} gave no gradient; "
            "perturb.update=nes needs none"
        )
    else:
        generated = generate_against(recipe, output, *sections)
    names = source.labels.names
    on_first = processes.together(
        lambda: _on_transformed(rows, of_old, names, margin=margin) if processes.is_first else []
    )
    of_transformed = processes.gather(on_first)[0]
    verdict, evidence = judged(outcome.evidence, of_transformed, has_suspect=outcome.flips.has_suspect(margin))
    return replace(outcome, verdict=verdict, evidence=evidence, generated=generated, notes=notes)


def _geometric(image: Tensor, draw: np.random.Generator) -> Tensor:
    """Return an image [3, H, W] rotated, scaled, sheared or shifted; its edge is repeated."""
    side, kind = image.shape[-1], draw.integers(4)
    angle = draw.uniform(-40, 40) if kind == 0 else 0.0
    scale = np.exp(draw.uniform(-0.5, 0.5)) if kind == 1 else 1.0
    shear = draw.uniform(-26, 26) if kind == 2 else 0.0
    length, direction = draw.uniform(0, 0.2 * side), draw.uniform(0, 2 * np.pi)
    shift = [length * np.cos(direction), length * np.sin(direction)] if kind == 3 else [0.0, 0.0]
    wide = F.pad(image, [side // 2] * 4, padding_mode="edge")
    moved = F.affine(wide, angle, shift, scale, [shear, 0.0], interpolation=InterpolationMode.BILINEAR)
    return F.center_crop(moved, [side, side])


def _photometric(image: Tensor, draw: np.random.Generator) -> Tensor:
    """Return an image [3, H, W] of another brightness, contrast or gamma."""
    kind, amount = draw.integers(3), draw.uniform(-1, 1)
    if kind == 0:
        return (image + 0.4 * amount).clamp(0, 1)
    if kind == 1:
        return ((image - 0.5) * np.exp(amount) + 0.5).clamp(0, 1)
    return F.adjust_gamma(image, np.exp(amount))


def _occluding(image: Tensor, draw: np.random.Generator) -> Tensor:
    """Return an image [3, H, W] with a grey square, or a grey stripe from top to bottom."""
    side = image.shape[-1]
    is_square = draw.integers(2) == 0
    width = round(draw.uniform(0, 0.4 if is_square else 0.25) * side)
    left, top = (int(draw.integers(side - width + 1)) for _ in range(2))
    height = width if is_square else side
    return F.erase(image, top if is_square else 0, left, height, width, image.new_full((1, 1, 1), 0.5))


# By family: the transformation, what it is in words, and the points by which trainings of one recipe that differ in
# their seed alone may be apart beyond chance (docs/results/diff.md). A user's margin is added to these.
_FAMILIES: dict[str, tuple[Callable[[Tensor, np.random.Generator], Tensor], str, float]] = {
    "geometric": (_geometric, "rotation, scale, shear, shift", 5.0),
    "photometric": (_photometric, "brightness, contrast, gamma", 30.0),
    "occluding": (_occluding, "square, stripe", 10.0),
}


def _on_transformed(rows: DrawnRows, old: nn.Module, class_names: Sequence[str], *, margin: float) -> list[Evidence]:
    """Compare two networks on originals transformed at random, ten times in each of three families.

    Returns the evidence for each family, and for the class that geometric transformations break most surely. An
    original is a negative flip if OLD is right and NEW wrong on one of its ten images that the oracle accepts. Each
    original has its own transformations, which are the same for all networks and in every run.

    `rows` are the originals, judged by the new network and the oracle; `old` answers in the same labels. The new
    network may lose `margin` points, besides those that another seed may cost.
    """
    before = replace(rows, judges=rows.judges._replace(classifier=old))
    labels = np.array(class_names)[rows.labels]
    evidence = []
    for number, (family, (transform, words, of_another_seed)) in enumerate(_FAMILIES.items()):
        negative, positive = _flips(rows, before, transform, number)
        name = f"transformed at random ({words})"
        evidence.append(evidence_of("transformed", f"originals {name}", negative, positive, margin, of_another_seed))
        if family == "geometric":  # by ten points: in the others trainings are too far apart to tell by class
            of_class = f"originals of class {{name}} {name}"
            evidence += groups_tested(labels, negative, positive, of_class, margin, 10.0)[1]
    return evidence


def _flips(
    new: DrawnRows, old: DrawnRows, transform: Callable[[Tensor, np.random.Generator], Tensor], family: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return whether OLD alone is right on an accepted image of each original, and whether NEW alone, bool [N] each.

    `new` and `old` are the originals, judged by each network; `family` is the number of the transformations.
    """
    negative, positive = (np.zeros(len(new), dtype=bool) for _ in range(2))
    for start in range(0, len(new), _BATCH):
        places = np.arange(start, min(start + _BATCH, len(new)))
        of_new, of_old = new.at(places), old.at(places)
        for copy in range(10):
            images = []
            for example_id, image in zip(of_new.ids, of_new.originals, strict=True):
                images.append(transform(image, np.random.default_rng([example_id, copy, family])))
            batch = on_byte_grid(torch.stack(images))
            new_right, old_right = (rows.predictions(batch) == rows.labels for rows in (of_new, of_old))
            differs = np.flatnonzero(new_right != old_right)
            if len(differs):
                accepted = of_new.at(differs).accepts(batch[torch.from_numpy(differs).to(batch.device)])
                differs = differs[accepted]
                negative[places[differs]] |= old_right[differs]
                positive[places[differs]] |= new_right[differs]
    return negative, positive
