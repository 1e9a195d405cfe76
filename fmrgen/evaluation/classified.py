"""A split in an evaluation: what was read of it, and its classifiers' answers."""

from dataclasses import dataclass, field

import numpy as np

from fmrgen.evaluation.images import ImageSet
from fmrgen.labels import Labels
from fmrgen.results.samples import Sample
from fmrgen.split.classify import KeptAnswers
from fmrgen.split.judged import Judge
from fmrgen.split.rows import Split


@dataclass(frozen=True)
class Answered:
    """A classifier's answers on a split.

    Attributes:
        answers: by the kind of images: `image`, `original`, `native`, `attacked`.
        has_recorded_weights: whether it is the network that the split was made for.
        has_recorded_section: whether its section is the one that the split was made with.
        order_is_known: whether every label is among its classes by name.
        notes: on how it was asked, and what could not be asked.
    """

    answers: dict[str, KeptAnswers]
    has_recorded_weights: bool
    has_recorded_section: bool
    order_is_known: bool
    notes: list[str]


@dataclass
class Classified:
    """A split that was read, with its classifiers' answers.

    Attributes:
        split: that was read.
        labels: that its classifiers answer in.
        columns: [N] by their names, without images.
        images: the kinds of images that classifiers are asked about.
        samples: rows for a gallery.
        notes: what a reader of the figures must know.
        answered: each classifier's answers, by its name.
        judges: those who looked at it besides its oracle.
        valid: bool [N], which rows are valid by the judge `valid_by`; None if the oracle decides.
        valid_by: the judge whose verdict counts.
        groups: bool [N], the rows of each group, by the column that groups them and the group's name.
    """

    split: Split
    labels: Labels
    columns: dict[str, np.ndarray]
    images: dict[str, ImageSet]
    samples: list[Sample]
    notes: list[str]
    answered: dict[str, Answered] = field(default_factory=dict)
    judges: list[Judge] = field(default_factory=list)
    valid: np.ndarray | None = None
    valid_by: str | None = None
    groups: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
