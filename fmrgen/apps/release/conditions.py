"""Whether a network got worse where images are changed: two networks on the same originals, moved, blurred, darkened.

Accuracy on originals, and on images that were made against a third network, may show nothing of a regression that only
a condition brings out. Here originals are changed by one attribute at a time, or moved at random, and what counts is
how many of them the new network has wrong where the old one has them right.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.apps.explain.attributes import ATTRIBUTES, Attribute
from fmrgen.apps.explain.interventions import DOSES
from fmrgen.apps.explain.rows import JudgedImages
from fmrgen.apps.release.evidence import Evidence, evidence_of
from fmrgen.apps.release.flips import evidence_of_classes
from fmrgen.engine.images import on_byte_grid
from fmrgen.engine.interfaces import Judgement, Latents, Oracle, Originals
from fmrgen.engine.models import row_seed
from fmrgen.generators.moves import KINDS, Moves
from fmrgen.records import MoveFamily

ORIGINALS = 300  # that are changed, where there are as many
_MAX_DOSE_UNCHECKED = 0.5  # up to which an image shows its class without an oracle to confirm it
_COPIES = 10  # random moves of each original in each family
_FAMILIES: tuple[MoveFamily, ...] = ("geometric", "photometric", "occluding")
# Points by which trainings of one recipe that differ in their seed alone may be apart on moved and changed originals,
# beyond what chance explains: docs/results/diff.md has the measurements. A user's margin is added to these. In new
# light networks that never saw it in training are apart most.
_OF_ANOTHER_SEED = {"geometric": 5.0, "occluding": 10.0, "photometric": 30.0, "background": 30.0}
_OF_ANOTHER_SEED_ELSEWHERE = 10.0
_BATCH = 64


class NoOracle(Oracle):
    """A placeholder if the oracle can't be loaded; it is never called."""

    def judge(self, images: Tensor, originals: Originals | None = None) -> Judgement:
        raise NotImplementedError


def under_changes(
    rows: JudgedImages,
    old: nn.Module,
    *,
    margin: float,
    has_oracle: bool = True,
    attributes: Sequence[Attribute] = ATTRIBUTES,
) -> list[Evidence]:
    """Compare two networks on originals changed by each attribute, in both directions and in four strengths.

    An image counts if the oracle accepts it; only images on which the networks disagree are shown to it. Without an
    oracle changes are at most half as large, so that an image still shows its class.

    Args:
        rows: originals, judged by the new network and the oracle.
        old: the network to compare with, which answers in the same labels.
        margin: points that the new network may lose, besides those that another seed may cost.
        has_oracle: whether `rows` has an oracle that works.
        attributes: to change.

    Returns:
        The evidence for each attribute and direction, the strongest first; none if there is no original that both
        networks have right.
    """
    new_rows, old_rows = right_by_both(rows, old)
    if not len(new_rows):
        return []
    doses = [dose for dose in DOSES if has_oracle or dose <= _MAX_DOSE_UNCHECKED]
    evidence = []
    for attribute in attributes:
        for sign, words in ((1, attribute.more), (-1, attribute.less)):

            def changed(batch: np.ndarray, attribute: Attribute = attribute, sign: int = sign) -> Iterator[Tensor]:
                originals = new_rows.at(batch).originals
                return (attribute.change(originals, sign * dose) for dose in doses)

            broke, fixed = _broke_and_fixed(new_rows, old_rows, changed, has_oracle)
            apart = _OF_ANOTHER_SEED.get(attribute.name, _OF_ANOTHER_SEED_ELSEWHERE)
            evidence.append(evidence_of("changed", f"originals with {words}", broke, fixed, margin, apart))
    return sorted(evidence, key=lambda entry: entry.p_worse)


def under_moves(rows: JudgedImages, old: nn.Module, class_names: Sequence[str], *, margin: float) -> list[Evidence]:
    """Compare two networks on originals moved at random, ten times in each family, as `generate --moves` moves them.

    Args:
        rows: originals, judged by the new network and the oracle.
        old: the network to compare with, which answers in the same labels.
        class_names: by label.
        margin: points that the new network may lose, besides those that another seed may cost.

    Returns:
        The evidence for each family of moves, and for the class that geometric ones break most surely.
    """
    before = rows.judged_by(old)
    evidence = []
    for family in _FAMILIES:
        generator = Moves(rows.originals.shape[-1], family)

        def moved(batch: np.ndarray, generator: Moves = generator) -> Iterator[Tensor]:
            part = rows.at(batch)
            for copy in range(_COPIES):
                generator.row_seeds = [row_seed(0, example_id * _COPIES + copy) for example_id in part.ids]
                free, fixed = generator.encode(part.originals, torch.from_numpy(part.labels))
                yield generator.decode(Latents(torch.ones_like(free), fixed))

        broke, fixed = _broke_and_fixed(rows, before, moved, has_oracle=True)
        kinds = ", ".join(name for name, kind in KINDS.items() if kind.family == family)
        images = f"originals moved at random ({kinds})"
        evidence.append(evidence_of("moved", images, broke, fixed, margin, _OF_ANOTHER_SEED[family]))
        if family == "geometric":  # of the others trainings of one recipe are too far apart to tell by class
            labels = np.array(class_names)[rows.labels]
            of_class = f"originals of class {{name}} moved at random ({kinds})"
            evidence += evidence_of_classes(labels, broke, fixed, of_class, margin, _OF_ANOTHER_SEED_ELSEWHERE)
    return evidence


def right_by_both(rows: JudgedImages, old: nn.Module) -> tuple[JudgedImages, JudgedImages]:
    """Return the originals that both networks have right, judged by the new one, and judged by the old one.

    Args:
        rows: originals, judged by the new network and the oracle.
        old: the old network, which answers in the same labels.
    """
    before = rows.judged_by(old)
    both_right = (rows.answers(rows.originals) == rows.labels) & (before.answers(before.originals) == rows.labels)
    return rows.of(both_right), before.of(both_right)


def _broke_and_fixed(
    new: JudgedImages, old: JudgedImages, changes: Callable[[np.ndarray], Iterable[Tensor]], has_oracle: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return which originals broke on some changed image, and which were fixed on some, bool [N] each.

    Args:
        new: originals, judged by the new network.
        old: the same originals, judged by the old one.
        changes: takes places [B] of originals; returns changed images of these, [B, 3, H, W] each.
        has_oracle: whether they have an oracle that works.
    """
    broke = np.zeros(len(new), dtype=bool)
    fixed = np.zeros(len(new), dtype=bool)
    for start in range(0, len(new), _BATCH):
        batch = np.arange(start, min(start + _BATCH, len(new)))
        of_new, of_old = new.at(batch), old.at(batch)
        for images in changes(batch):
            worse, better = differences(of_new, of_old, on_byte_grid(images), has_oracle=has_oracle)
            broke[batch] |= worse
            fixed[batch] |= better
    return broke, fixed


def differences(
    new: JudgedImages, old: JudgedImages, images: Tensor, *, has_oracle: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return which images the old network alone has right, and which the new one alone, bool [N] each.

    Args:
        new: originals, judged by the new network.
        old: the same originals, judged by the old one.
        images: made of them, [N, 3, H, W] in [0, 1]; an image counts if the oracle accepts it.
        has_oracle: whether they have an oracle that works; without one all count.
    """
    new_right = new.answers(images) == new.labels
    old_right = old.answers(images) == old.labels
    differs = new_right != old_right
    if has_oracle and differs.any():
        places = np.flatnonzero(differs)
        differs[places] = new.at(places).sees(images[torch.from_numpy(places).to(images.device)])
    return differs & old_right, differs & new_right
