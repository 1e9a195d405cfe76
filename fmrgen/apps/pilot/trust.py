"""How far to trust perturbed images: what a reader says of them that had no part in their making."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fmrgen.apps.pilot.gradients import GradientReader
from fmrgen.labels import Labels
from fmrgen.metrics.intervals import Estimate, format_estimate, proportion
from fmrgen.sources.base import LoadedExample
from fmrgen.split.open import open_split

if TYPE_CHECKING:
    from fmrgen.report.sheet import ImagePair

_ENOUGH = 30  # images, for a share that says something
_PAIRS_SHOWN = 12


@dataclass(frozen=True)
class Reading:
    """What a reader says of images of one kind: how many it was shown, and the share that it names as labelled."""

    images: int
    named: Estimate | None

    def __str__(self) -> str:
        return f"{format_estimate(self.named)} % of {self.images}"


@dataclass(frozen=True)
class Trust:
    """A reader's verdict on the images of a trial.

    Attributes:
        reader: what it is, in words.
        originals: all of them, unchanged.
        fooling: accepted images that fool the network.
        accepted: accepted images that do not.
    """

    reader: str
    originals: Reading
    fooling: Reading
    accepted: Reading

    @property
    def legible(self) -> tuple[float, float] | None:
        """About the share of fooling images that still show their class, and its low end, in percent.

        That is the share that the reader names, of the share that it names of originals; None if there are too few.
        """
        fooling, originals = self.fooling.named, self.originals.named
        if self.fooling.images < _ENOUGH or fooling is None or originals is None or not originals.value:
            return None
        shares = [100 * share / originals.value for share in (fooling.value, fooling.ends[0])]
        return min(100.0, shares[0]), min(100.0, shares[1])

    def lines(self, split_of_recipe: str, *, by_panel: bool) -> list[str]:
        """Return three lines: what was seen, what was not, and what to do next.

        Args:
            split_of_recipe: the split that the recipe will make.
            by_panel: whether the oracle is the panel, which knows the user's images alone.
        """
        seen = (
            f"{self.reader} names {self.originals} originals as labelled, {self.accepted} accepted images that do not "
            f"fool the network, and {self.fooling} that do"
        )
        if self.legible is not None:
            about, low = self.legible
            seen += (
                f": compared with originals, about {about:.0f} % of these still show their class (at least {low:.0f}), "
                "as far as this reader can tell"
            )
        elif self.fooling.images < _ENOUGH:
            seen += f"; with fewer than {_ENOUGH} of these it says little"
        not_seen = (
            "no person and no foundation model has looked; what misleads this reader as it does the oracle goes "
            "unnoticed"
        )
        if by_panel:
            not_seen += "; both know these images alone"
        next_step = (
            f"name 40 images yourself, in three minutes: fmrgen generate && fmrgen audit {split_of_recipe} --quick 40 "
            "--raters NAME"
        )
        return [seen, not_seen, next_step]


def trust_in(split: str, taught: Iterable[LoadedExample], labels: Labels) -> "tuple[Trust, list[ImagePair]]":
    """Let a reader name the images of a split; return its verdict, and the first images that fool the network.

    Args:
        split: a reference.
        taught: examples from which the reader learns, none of them in the split.
        labels: of both.
    """
    from fmrgen.report.sheet import ImagePair  # brings matplotlib

    reader = GradientReader((Image.fromarray(example.image), example.label) for example in taught)
    opened = open_split(split)
    kinds: dict[str, list[bool]] = {"original": [], "fooling": [], "accepted": []}
    pairs: list[ImagePair] = []
    for row in opened.stored_rows(("image", "original")):
        shown = {"original": opened.decode(row["original"], "an original")}
        if row["valid"]:
            kind = "accepted" if row["prediction"] == row["label"] else "fooling"
            shown[kind] = opened.decode(row["image"], "an image")
            if kind == "fooling" and len(pairs) < _PAIRS_SHOWN:
                names = labels.names[row["label"]], labels.names[row["prediction"]]
                images = opened.image_of(row["original"]), opened.image_of(row["image"])
                pairs.append(ImagePair(*images, *names, is_wrong=True))
        answers = reader.read(list(shown.values()))
        for kind, answer in zip(shown, answers.tolist(), strict=True):
            kinds[kind].append(answer == row["label"])
    readings = {}
    for kind, right in kinds.items():
        readings[kind] = Reading(len(right), proportion(np.array(right, dtype=bool)))
    trust = Trust(
        f"a support vector machine on gradients, taught on {reader.taught:,} other images,",
        readings["original"],
        readings["fooling"],
        readings["accepted"],
    )
    return trust, pairs
