"""A split in an evaluation: what was read of it, and what its classifiers predict."""

from dataclasses import dataclass, field

import numpy as np

from fmrgen.evaluation.images import CachedImages
from fmrgen.labels import Labels
from fmrgen.results.evaluation import Result
from fmrgen.results.samples import Sample
from fmrgen.split.judged import Judge
from fmrgen.split.rows import Split


@dataclass(frozen=True)
class OnSplit:
    """A classifier on a split.

    Attributes:
        columns: [N] each, that its summary is made of: the split's that say the same of any classifier, and its own
            predictions.
        has_recorded_weights: whether it is the network that the split was generated against.
        has_recorded_section: whether its section is the one that the split was generated with.
        notes: on its predictions, and on those that it could not give.
    """

    columns: dict[str, np.ndarray]
    has_recorded_weights: bool
    has_recorded_section: bool
    notes: list[str]


@dataclass
class MeasuredSplit:
    """A split that was read, with its classifiers.

    Attributes:
        split: that was read.
        labels: that its classifiers predict.
        columns: [N] by their names, without images.
        images: the kinds of images that classifiers predict: `image` and `original`.
        samples: rows for a gallery.
        notes: what a reader of the figures must know.
        classifiers: by their names.
        judges: those who looked at it besides its oracle.
        groups: bool [N], the rows of each group, by the column that groups them and the group's name.
        made_for: the result of the classifier that it was generated against; None if that is not among them.
    """

    split: Split
    labels: Labels
    columns: dict[str, np.ndarray]
    images: dict[str, CachedImages]
    samples: list[Sample]
    notes: list[str]
    classifiers: dict[str, OnSplit] = field(default_factory=dict)
    judges: list[Judge] = field(default_factory=list)
    groups: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    made_for: Result | None = None

    @property
    def name(self) -> str:
        return self.split.name
