"""The outcome of a diff."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from fmrgen.apps.release.evidence import Evidence, Verdict
from fmrgen.apps.release.flips import Flips
from fmrgen.apps.release.predictions import Predictions
from fmrgen.metrics.outputs import best_order, is_at_chance, outputs_in_another_order

if TYPE_CHECKING:
    from fmrgen.apps.release.generated import Generated


_FEWEST_SWAPPED = 10  # images of a class, by which its label can be doubted


@dataclass(frozen=True)
class Diff:
    """The comparison of a classifier in use, OLD, with the one that is to take its place, NEW.

    Attributes:
        verdict: `worse`: on some kind of images NEW loses more than is allowed; `no worse`: on every kind it loses
            less; `better`: besides, it is better on some kind; `undecided`: the images do not tell; `invalid`: one
            of the two does not work. Equal networks get `worse` or `better` in at most 5 % of cases.
        margin: points that NEW may lose.
        evidence: what each kind of images shows: real ones first.
        flips: on the real images, or on the originals of a split.
        generated: images generated against the two, with a recipe; they are no part of the verdict.
        notes: cautions; the faults if the verdict is `invalid`.
    """

    verdict: Verdict
    margin: float
    evidence: list[Evidence]
    flips: Flips
    generated: "Generated | None" = None
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        flips = self.flips
        negative, positive = (round(share.value * flips.images / 100) for share in (flips.negative, flips.positive))
        return (
            f"Diff({self.verdict}: {negative} negative and {positive} positive flips of {flips.images}; accuracy "
            f"{flips.old_accuracy.value:.2f} → {flips.new_accuracy.value:.2f} %, drop {flips.drop} points)"
        )

    @property
    def worse(self) -> list[Evidence]:
        """The evidence that NEW is worse."""
        return [entry for entry in self.evidence if entry.is_worse]


def faults_of(networks: Sequence[Predictions]) -> list[str]:
    """Return a line for each network that does not work.

    Its outputs are not finite, which would count as mistakes, or are in another order than the classes, or it is at
    chance.
    """
    faults = []
    for predictions in networks:
        both = np.concatenate([predictions.labels, predictions.predicted])
        encoded = pa.array(both).dictionary_encode()
        names = encoded.dictionary.to_pylist()
        labels, predicted = np.split(encoded.indices.to_numpy(), 2)
        accuracy = (labels == predicted).mean()
        start = f"{predictions.name} is right on {accuracy:.1%} of {len(predictions):,} images"
        not_finite = int((predictions.predicted == "").sum())
        if not_finite:
            faults.append(
                f"{predictions.name} gives outputs that are not finite on {not_finite:,} of {len(predictions):,} "
                "images: check its weights and its preprocessing"
            )
        elif outputs_in_another_order(labels, predicted, len(names)):
            order = best_order(labels, predicted, len(names))
            place = next(place for place, label in enumerate(order.tolist()) if label != place)
            faults.append(
                f"{start}, and on {(order[predicted] == labels).mean():.1%} if its outputs are put in another order: "
                f"{names[place]} is mostly {names[order[place]]}; list its classes, in the order of its outputs, as "
                "class_names of its section"
            )
        elif is_at_chance(labels, predicted):
            question = "are its weights loaded, and its classes in the order of the labels?"
            faults.append(f"{start}, hardly better than chance: {question}")
    return faults


def notes_on_swapped(networks: Sequence[Predictions]) -> list[str]:
    """Return a line on each two classes that every network takes for each other on real images: whether their labels
    are swapped, not what the networks see."""
    of_networks = []
    for predictions in networks:
        images = Counter(predictions.labels.tolist())
        pairs = Counter(zip(predictions.labels.tolist(), predictions.predicted.tolist(), strict=True))
        mostly = {label: seen for (label, seen), count in pairs.items() if 2 * count > images[label] >= _FEWEST_SWAPPED}
        of_networks.append({(label, seen) for label, seen in mostly.items() if mostly.get(seen) == label < seen})
    return [
        f"all networks take most images of class {first} for {second}, and most of {second} for {first}: are the two "
        "labels swapped?"
        for first, second in sorted(set.intersection(*of_networks))
    ]
