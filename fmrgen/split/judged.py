"""What other judges make of a split and of its classifiers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fmrgen.metrics.intervals import Estimate, foundation_model_robustness, proportion
from fmrgen.metrics.rows import as_label
from fmrgen.results.judges import JudgeFigures, Kind
from fmrgen.split.judgements import PEOPLE, JudgeFile, Judgements
from fmrgen.storage.provenance import Provenance

_NOT_QUERIED = -3  # beside the labels of those who were


@dataclass(frozen=True)
class Judge:
    """A judge of a split, row by row."""

    name: str
    kind: Kind
    labels: np.ndarray  # what it sees in the images, [N]; `_NOT_QUERIED` where it has not looked at one
    of_originals: np.ndarray  # the same of the originals
    sees: np.ndarray  # whether it sees the label in the image, bool [N]
    about: JudgeFile | None = None  # None of all persons together


def judges_by_row(judgements_of_judges: Sequence[Judgements], columns: Mapping[str, np.ndarray]) -> list[Judge]:
    """Return the judges of a split over its rows; several people are there once more together.

    `columns` are the split's, `id` and `label` among them.
    """
    judges = [_by_row(judgements, columns) for judgements in judgements_of_judges]
    people = [judge for judge in judges if judge.kind == "person"]
    if len(people) > 1:
        labels = _together([person.labels for person in people], columns["label"])
        of_originals = _together([person.of_originals for person in people], columns["label"])
        judges.append(Judge(PEOPLE, "person", labels, of_originals, labels == columns["label"]))
    return judges


def _by_row(judgements: Judgements, columns: Mapping[str, np.ndarray]) -> Judge:
    table, about = judgements.table, judgements.about
    rows = {example_id: row for row, example_id in enumerate(columns["id"].tolist())}
    labels = np.full(len(rows), _NOT_QUERIED)
    of_originals = labels.copy()
    cells = (table[name].to_pylist() for name in ("id", "which", "label"))
    for example_id, which, label in zip(*cells, strict=True):
        of_which = labels if which == "image" else of_originals
        of_which[rows[example_id]] = label
    accepted = columns.get("accepted_labels")
    labels = as_label(labels, columns["label"], accepted)
    of_originals = as_label(of_originals, columns["label"], accepted)
    return Judge(about.judge, about.kind, labels, of_originals, labels == columns["label"], about)


def _together(labels_of_people: Sequence[np.ndarray], truth: np.ndarray) -> np.ndarray:
    """Return what all persons see together, [N]: the label where more than half of those who have looked see it."""
    labels = np.stack(labels_of_people)
    has_looked = labels != _NOT_QUERIED
    looked, seen = has_looked.sum(0), (labels == truth).sum(0)
    return np.where(looked > 0, np.where(2 * seen > looked, truth, -1), _NOT_QUERIED)


def labels_of_row(judges: Sequence[Judge], row: int) -> dict[str, int]:
    """Return what each judge who has looked at the image of a row sees in it, by the judge's name."""
    return {judge.name: int(judge.labels[row]) for judge in judges if judge.labels[row] != _NOT_QUERIED}


def judge_figures(
    judge: Judge, columns: Mapping[str, np.ndarray], provenance: Provenance, classifiers: Mapping[str, str | None]
) -> JudgeFigures:
    """Return the figures of a judge on a split; `classifiers` are the digests of those that are measured, by name."""
    looked = (judge.labels != _NOT_QUERIED) & columns["valid"]
    of_originals = judge.of_originals != _NOT_QUERIED
    return JudgeFigures(
        judge=judge.name,
        kind=judge.kind,
        looked_at=int(looked.sum()),
        preserved=proportion(judge.sees[looked]),
        originals_right=proportion((judge.of_originals == columns["label"])[of_originals]),
        shares_weights_with=[] if judge.about is None else judge.about.related(provenance, classifiers),
    )


def fmr_by_judge(
    judges: Sequence[Judge], of_model: Mapping[str, np.ndarray], valid: np.ndarray
) -> dict[str, Estimate | None]:
    """Return FMR of a classifier with PA over the images in which each judge sees the label, by the judge's name.

    A judge who misses as many of the images that fool the classifier as of the others changes nothing. `of_model` are
    the columns that a summary of the classifier is made of; `valid`, bool [N], are the rows that the split's oracle let
    through.
    """
    if "original_prediction" not in of_model:
        return {}
    truth = of_model["label"]
    right, original_right = of_model["prediction"] == truth, of_model["original_prediction"] == truth
    return {judge.name: foundation_model_robustness(right, valid & judge.sees, original_right) for judge in judges}
