"""Whether a network got worse where images are changed: two networks on the same originals, moved, blurred, darkened.

Accuracy on originals, and on images that were made against a third network, may show nothing of a regression that only
a condition brings out. Here originals are changed by one attribute at a time, and what counts is on how many of them
the new network errs where the old one does not.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.apps.explain.attributes import ATTRIBUTES, Attribute
from fmrgen.apps.explain.interventions import DOSES
from fmrgen.apps.explain.rows import JudgedImages
from fmrgen.config import ComponentConfig
from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.interfaces import Judgement, Oracle, Originals
from fmrgen.engine.models import row_seed
from fmrgen.metrics.intervals import Estimate, proportion
from fmrgen.metrics.sequential_test import ERROR, Condition, log_capital
from fmrgen.recipe.build import (
    blank_image,
    build_classifier_and_oracle,
    build_component,
    build_source,
    fit_to_labels,
)
from fmrgen.recipe.job import Recipe
from fmrgen.storage.provenance import Provenance

ORIGINALS = 300  # that are changed, where there are as many
# Trainings of one recipe that differ by their seed alone are up to 16 points apart under some condition (six LeNets,
# thirty ordered pairs). So a network counts as worse under one if it loses significantly more than this share there.
OF_ANOTHER_SEED = 0.1
_WITHOUT_ORACLE = 0.5  # the largest dose at which nobody has to look whether an image still shows its class
_TOGETHER = 64
_LARGEST_EXPONENT = 700.0


def compare_on_recipe(
    recipe: Recipe,
    provenance: Provenance,
    old: ComponentConfig,
    new: ComponentConfig,
    device: torch.device,
    *,
    margin: float = OF_ANOTHER_SEED,
    error: float = ERROR,
) -> list[Condition]:
    """Compare two networks on changed originals of a recipe's source, which its oracle judges.

    Args:
        recipe: its classifier and generator have no part.
        provenance: of a split that was made of the recipe, for the labels and the size of its images.
        old: the network to compare with.
        new: the network that may be worse.
        device: of the models.
        margin: as of `compare_under_changes`.
        error: likewise.

    Returns:
        The conditions, as of `compare_under_changes`.
    """
    labels, blank = provenance.job_labels, blank_image(provenance.image_size, device)
    judges = build_classifier_and_oracle(new, recipe.oracle, labels, blank)
    before = fit_to_labels(build_component(old, "classifier", nn.Module, device), labels, blank, "classifier")
    source = build_source(recipe.source)
    rows = JudgedImages.of_source(source, provenance.image_size, judges, recipe.perturb, ORIGINALS, device)
    return compare_under_changes(rows, before, margin=margin, error=error)


class NoOracle(Oracle):
    """Stands where no oracle can be had; nobody asks it."""

    def judge(self, images: Tensor, originals: Originals | None = None) -> Judgement:
        raise NotImplementedError


def compare_under_changes(
    rows: JudgedImages,
    old: nn.Module,
    *,
    has_oracle: bool = True,
    margin: float = OF_ANOTHER_SEED,
    error: float = ERROR,
    attributes: Sequence[Attribute] = ATTRIBUTES,
) -> list[Condition]:
    """Compare two networks on originals of a split, changed by each attribute in both directions.

    An image counts if the oracle accepts it, which is asked where the networks disagree. Without an oracle changes are
    half as large at most, so that an image still shows its class.

    Args:
        rows: of the split, judged by the new network and the oracle.
        old: the network to compare with, which answers in the same labels.
        has_oracle: whether the oracle may be asked.
        margin: the share by which more may break than is fixed, from 0 to less than 1.
        error: the probability of calling any condition worse by mistake.
        attributes: to change.

    Returns:
        A condition for each attribute and direction, the strongest evidence first; none where the networks have no
        original right together.
    """
    before = replace(rows, judges=rows.judges._replace(classifier=old))
    both_right = (rows.answers(rows.originals) == rows.labels) & (before.answers(before.originals) == rows.labels)
    new_rows, old_rows = rows.of(both_right), before.of(both_right)
    if not len(new_rows):
        return []
    seeds = [row_seed(0, int(example_id), "order") for example_id in new_rows.columns["id"]]
    order = np.argsort(seeds, kind="stable")  # evidence depends on the order, so it is drawn once for each example
    doses = DOSES if has_oracle else [dose for dose in DOSES if dose <= _WITHOUT_ORACLE]
    enough = 2 * len(attributes) / error
    conditions = []
    for attribute in attributes:
        for sign, words in ((1, attribute.more), (-1, attribute.less)):
            broke = np.zeros(len(new_rows), dtype=bool)
            fixed = np.zeros(len(new_rows), dtype=bool)
            for start in range(0, len(new_rows), _TOGETHER):
                part = np.arange(start, min(start + _TOGETHER, len(new_rows)))
                for dose in doses:
                    worse, better = _differences(
                        new_rows.at(part), old_rows.at(part), attribute, sign * dose, has_oracle
                    )
                    broke[part] |= worse
                    fixed[part] |= better
            capital, _ = log_capital((broke.astype(np.int8) - fixed.astype(np.int8))[order], margin)
            e_value = math.exp(min(float(capital[-1]), _LARGEST_EXPONENT))
            condition = Condition(
                words=words,
                attribute=attribute.name,
                originals=len(new_rows),
                broke=cast(Estimate, proportion(broke)),
                fixed=cast(Estimate, proportion(fixed)),
                e_value=e_value,
                is_worse=e_value >= enough,
            )
            conditions.append(condition)
    return sorted(conditions, key=lambda condition: -condition.e_value)


def _differences(
    new: JudgedImages, old: JudgedImages, attribute: Attribute, amount: float, has_oracle: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return which changed originals the old network alone has right, and which the new one alone, bool [N] each."""
    images = on_byte_grid(attribute.change(new.originals, amount))
    new_right = new.answers(images) == new.labels
    old_right = old.answers(images) == old.labels
    counts = new_right != old_right
    if has_oracle and counts.any():
        differ = np.flatnonzero(counts)
        counts[differ] = new.at(differ).sees(images[torch.from_numpy(differ).to(images.device)])
    return counts & old_right, counts & new_right
