"""Whether a network got worse where images are changed: two networks on the same originals, moved, blurred, darkened.

Accuracy on originals, and on images that were made against a third network, may show nothing of a regression that only
a condition brings out. Here originals are changed by one attribute at a time, and what counts is on how many of them
the new network errs where the old one does not.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.apps.explain.attributes import ATTRIBUTES, Attribute
from fmrgen.apps.explain.betting import ERROR, drops_of, e_value
from fmrgen.apps.explain.interventions import DOSES
from fmrgen.apps.explain.rows import JudgedImages
from fmrgen.apps.release.sequential_test import Condition
from fmrgen.config import ComponentConfig
from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.interfaces import Judgement, Oracle, Originals
from fmrgen.engine.models import row_seed
from fmrgen.metrics.intervals import Estimate, proportion
from fmrgen.recipe.build import ClassifierAndOracle, build_classifier, build_oracle, build_source
from fmrgen.recipe.job import Recipe
from fmrgen.storage.provenance import Provenance

ORIGINALS = 300  # that are changed, where there are as many
# Trainings of one recipe that differ by their seed alone are up to 16 points apart under some condition (six LeNets,
# thirty ordered pairs). So a network counts as worse under one if it loses significantly more than this share there.
OF_ANOTHER_SEED = 0.1
_MAX_DOSE_UNCHECKED = 0.5  # up to which an image shows its class without an oracle to confirm it
_BATCH = 64


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
        error: as of `compare_under_changes`.

    Returns:
        The conditions, as of `compare_under_changes`.
    """
    labels, size = provenance.job_labels, provenance.image_size
    oracle = build_oracle(recipe.oracle, labels, size, device)
    judges = ClassifierAndOracle(build_classifier(new, labels, size, device), oracle)
    before = build_classifier(old, labels, size, device)
    source = build_source(recipe.source)
    rows = JudgedImages.of_source(source, size, judges, recipe.perturb, ORIGINALS, device)
    return compare_under_changes(rows, before, margin=margin, error=error)


class NoOracle(Oracle):
    """A placeholder if the oracle can't be loaded; it is never called."""

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

    An image counts if the oracle accepts it; only images on which the networks disagree are shown to it. Without an
    oracle changes are at most half as large, so that an image still shows its class.

    Args:
        rows: of the split, judged by the new network and the oracle.
        old: the network to compare with, which answers in the same labels.
        has_oracle: whether `rows` has an oracle that works.
        margin: the share by which more may break than is fixed, from 0 to less than 1.
        error: the probability of calling any condition worse by mistake.
        attributes: to change.

    Returns:
        A condition for each attribute and direction, the strongest evidence first; none if there is no original that
        both networks have right.
    """
    before = replace(rows, judges=rows.judges._replace(classifier=old))
    both_right = (rows.answers(rows.originals) == rows.labels) & (before.answers(before.originals) == rows.labels)
    new_rows, old_rows = rows.of(both_right), before.of(both_right)
    if not len(new_rows):
        return []
    seeds = [row_seed(0, int(example_id), "order") for example_id in new_rows.columns["id"]]
    order = np.argsort(seeds, kind="stable")  # evidence depends on the order, so it is drawn once for each example
    doses = [dose for dose in DOSES if has_oracle or dose <= _MAX_DOSE_UNCHECKED]
    threshold = 2 * len(attributes) / error  # two directions of each
    conditions = []
    for attribute in attributes:
        for sign, words in ((1, attribute.more), (-1, attribute.less)):
            amounts = [sign * dose for dose in doses]
            broke, fixed = _broke_and_fixed(new_rows, old_rows, attribute, amounts, has_oracle)
            evidence = e_value(drops_of(broke, fixed)[order], margin)
            condition = Condition(
                words=words,
                attribute=attribute.name,
                originals=len(new_rows),
                broke=cast(Estimate, proportion(broke)),
                fixed=cast(Estimate, proportion(fixed)),
                e_value=evidence,
                is_worse=evidence >= threshold,
            )
            conditions.append(condition)
    return sorted(conditions, key=lambda condition: -condition.e_value)


def _broke_and_fixed(
    new: JudgedImages, old: JudgedImages, attribute: Attribute, amounts: Sequence[float], has_oracle: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return which originals broke at some amount of an attribute, and which were fixed at some, bool [N] each."""
    broke = np.zeros(len(new), dtype=bool)
    fixed = np.zeros(len(new), dtype=bool)
    for start in range(0, len(new), _BATCH):
        batch = np.arange(start, min(start + _BATCH, len(new)))
        for amount in amounts:
            worse, better = _differences(new.at(batch), old.at(batch), attribute, amount, has_oracle)
            broke[batch] |= worse
            fixed[batch] |= better
    return broke, fixed


def _differences(
    new: JudgedImages, old: JudgedImages, attribute: Attribute, amount: float, has_oracle: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return which changed originals the old network alone has right, and which the new one alone, bool [N] each."""
    images = on_byte_grid(attribute.change(new.originals, amount))
    new_right = new.answers(images) == new.labels
    old_right = old.answers(images) == old.labels
    differs = new_right != old_right
    if has_oracle and differs.any():
        places = np.flatnonzero(differs)
        differs[places] = new.at(places).sees(images[torch.from_numpy(places).to(images.device)])
    return differs & old_right, differs & new_right
