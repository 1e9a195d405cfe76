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

    Its summary is made of `columns`, [N] each: the split's that say the same of any classifier, and its own
    predictions.
    """

    columns: dict[str, np.ndarray]
    has_recorded_weights: bool  # whether it is the network that the split was generated against
    has_recorded_section: bool  # whether its section is the one that the split was generated with
    notes: list[str]  # on its predictions, and on those that it could not give


@dataclass
class MeasuredSplit:
    """A split that was read, with its classifiers."""

    split: Split
    labels: Labels  # that its classifiers predict
    columns: dict[str, np.ndarray]  # [N] by their names, without images
    images: dict[str, CachedImages]  # the kinds that classifiers predict: `image` and `original`
    samples: list[Sample]  # rows for a gallery
    notes: list[str]  # what a reader of the figures must know
    classifiers: dict[str, OnSplit] = field(default_factory=dict)
    judges: list[Judge] = field(default_factory=list)  # who looked at it besides its oracle
    groups: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)  # bool [N], by column and name of the group
    made_for: Result | None = None  # of the classifier that it was generated against; None if that is not among them

    @property
    def name(self) -> str:
        return self.split.name
