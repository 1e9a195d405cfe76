"""What other judges make of a split and of its classifiers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fmrgen.errors import UserError
from fmrgen.metrics.intervals import Estimate, proportion
from fmrgen.metrics.rows import as_label
from fmrgen.results.corrected import Corrected, Verdicts, corrected, label_preservation
from fmrgen.results.judges import JudgeFigures, Kind
from fmrgen.results.kappa import cohen_kappa, krippendorff_alpha
from fmrgen.split.judgements import HUMAN, PEOPLE, JudgeFile, Judgements
from fmrgen.storage.provenance import Provenance

_UNASKED = -3  # beside the labels of those who were asked
_BANDS = 4  # of iterations
_MOST_STRATA = 100  # a sample has six


@dataclass(frozen=True)
class Judge:
    """A judge's verdicts by row: labels [N], `_UNASKED` where it was not asked, of images and of originals; `about` is
    the file about it, None of all persons together."""

    name: str
    kind: Kind
    labels: np.ndarray
    of_originals: np.ndarray
    verdicts: Verdicts
    about: JudgeFile | None = None


def judges_by_row(
    judgements_of_judges: Sequence[Judgements], columns: Mapping[str, np.ndarray], classes: int
) -> list[Judge]:
    """Return the judges of a split over its rows; several people are there once more together.

    Args:
        judgements_of_judges: their tables.
        columns: of the split, `id`, `label`, `valid` among them.
        classes: how many labels there are.
    """
    judges = [_by_row(judgements, columns, classes) for judgements in judgements_of_judges]
    people = [judge for judge in judges if judge.kind == "person"]
    if len(people) > 1:
        judges.append(_together(people, columns, classes))
    return judges


def _by_row(judgements: Judgements, columns: Mapping[str, np.ndarray], classes: int) -> Judge:
    table, about = judgements.table, judgements.about
    rows = {example_id: row for row, example_id in enumerate(columns["id"].tolist())}
    labels = np.full(len(rows), _UNASKED)
    of_originals = np.full(len(rows), _UNASKED)
    cells = (table[name].to_pylist() for name in ("id", "which", "label"))
    for example_id, which, label in zip(*cells, strict=True):
        of_which = labels if which == "image" else of_originals
        of_which[rows[example_id]] = label
    accepted = columns.get("accepted_labels")
    labels = as_label(labels, columns["label"], accepted)
    of_originals = as_label(of_originals, columns["label"], accepted)
    strata = _strata(about, columns)
    seen = (labels == columns["label"]).astype(float)
    audited = labels != _UNASKED
    verdicts = _verdicts(about.kind == "person", audited, seen, strata, of_originals, columns["label"], classes)
    return Judge(about.judge, about.kind, labels, of_originals, verdicts, about)


def _verdicts(
    is_person: bool,
    audited: np.ndarray,
    seen: np.ndarray,
    strata: np.ndarray,
    of_originals: np.ndarray,
    truth: np.ndarray,
    classes: int,
) -> Verdicts:
    """Return a judge's verdicts; the originals that a person saw show how often that person misses the label."""
    is_control = of_originals != _UNASKED
    if not is_person or not is_control.any():
        return Verdicts(audited, seen, strata)
    sensitivity = float((of_originals == truth)[is_control].mean())
    false_positives = (1 - sensitivity) / classes
    return Verdicts(audited, seen, strata, sensitivity, int(is_control.sum()), false_positives, 1 / classes)


def _strata(about: JudgeFile, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the stratum of every row, audited or not, by the names of strata that a sample has.

    Raises UserError for names that no sample has; anyone may have written them.
    """
    strata = np.zeros(len(columns["id"]), dtype=int)
    names = (about.section or {}).get("strata")
    if about.kind != "person" or not isinstance(names, dict):
        return strata
    fooled = columns["prediction"] != columns["label"]
    if len(names) > _MOST_STRATA:
        raise UserError(f"judge {about.judge}: has {len(names):,} strata, more than a sample has; it is not read")
    for number, name in enumerate(names):
        parts = re.fullmatch(r"(fooled|right) (\d{1,7})-(\d{1,7})", name)
        if parts is None:
            raise UserError(f"judge {about.judge}: has a stratum {name!r}, which no sample has; it is not read")
        inside = (columns["iterations"] >= int(parts[2])) & (columns["iterations"] <= int(parts[3]))
        strata = np.where(inside & (fooled == (parts[1] == "fooled")) & columns["valid"], number, strata)
    return strata


def _together(people: Sequence[Judge], columns: Mapping[str, np.ndarray], classes: int) -> Judge:
    """Return all persons as one judge, who sees a label as far as they do."""
    truth = columns["label"]
    audited, seen = _share_that_sees([person.labels for person in people], truth)
    is_control, seen_in_originals = _share_that_sees([person.of_originals for person in people], truth)
    labels = np.where(audited, np.where(seen > 0.5, truth, -1), _UNASKED)
    of_originals = np.where(is_control, np.where(seen_in_originals > 0.5, truth, -1), _UNASKED)
    sensitivity = 1.0
    if is_control.any():
        sensitivity = float(seen_in_originals[is_control].mean())
    stratum = people[0].verdicts.stratum
    false_positives = (1 - sensitivity) / classes
    verdicts = Verdicts(audited, seen, stratum, sensitivity, int(is_control.sum()), false_positives, 1 / classes)
    return Judge(PEOPLE, "person", labels, of_originals, verdicts)


def _share_that_sees(labels: Sequence[np.ndarray], truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows anyone was asked about, bool [N], and the share of those who name the true label, [N]."""
    answers = np.stack(labels)
    is_answer = answers != _UNASKED
    askers = is_answer.sum(0)
    return askers > 0, ((answers == truth) & is_answer).sum(0) / np.maximum(askers, 1)


def labels_of_row(judges: Sequence[Judge], row: int) -> dict[str, int]:
    """Return what each judge who was asked sees in the image of a row, by the judge's name."""
    return {judge.name: int(judge.labels[row]) for judge in judges if judge.labels[row] != _UNASKED}


def judge_figures(
    judge: Judge, columns: Mapping[str, np.ndarray], provenance: Provenance, classifiers: Mapping[str, str | None]
) -> JudgeFigures:
    """Return the figures of a judge on a split; `classifiers` are the digests of those that are measured, by name."""

    def preserved(among: np.ndarray) -> Estimate | None:
        return label_preservation(columns["valid"] & among, judge.verdicts)

    taken, valid = columns["iterations"], columns["valid"]
    cuts = np.zeros(0)
    if valid.any():
        cuts = np.unique(np.quantile(taken[valid], np.arange(1, _BANDS) / _BANDS))
    band = np.searchsorted(cuts, taken)
    bands = {}
    for number in np.unique(band[valid]):
        inside = valid & (band == number)
        share = preserved(inside)
        if share is not None:
            bands[f"{taken[inside].min()}–{taken[inside].max()}"] = share
    is_control = judge.of_originals != _UNASKED
    return JudgeFigures(
        judge=judge.name,
        kind=judge.kind,
        audited=int((judge.verdicts.audited & columns["valid"]).sum()),
        preserved=preserved(valid),
        originals_right=proportion((judge.of_originals == columns["label"])[is_control]),
        oracle_kappa=None if judge.name == PEOPLE else _kappa_with_oracle(judge, columns),
        by_class=[preserved(columns["label"] == label) for label in range(len(provenance.labels))],
        by_iterations=bands,
        shares_weights_with=[] if judge.about is None else judge.about.related(provenance, classifiers),
    )


def _kappa_with_oracle(judge: Judge, columns: Mapping[str, np.ndarray]) -> Estimate | None:
    pairs = [(judge.labels, columns["oracle_label"]), (judge.of_originals, columns["original_oracle_label"])]
    ours = np.concatenate([labels[labels != _UNASKED] for labels, _ in pairs])
    theirs = np.concatenate([oracle[labels != _UNASKED] for labels, oracle in pairs])
    return cohen_kappa(ours, theirs)


def people_alpha(judges: Sequence[Judge]) -> Estimate | None:
    """Return how far people agree on what the images show, Krippendorff's alpha; None for fewer than two."""
    people = [judge.labels for judge in judges if judge.kind == "person" and judge.name != PEOPLE]
    if len(people) < 2:
        return None
    return krippendorff_alpha(np.stack(people), _UNASKED)


def corrected_by(
    judges: Sequence[Judge], of_model: Mapping[str, np.ndarray], valid: np.ndarray
) -> dict[str, Corrected]:
    """Return PA and FMR of a classifier over the images in which each judge sees the label, by the judge's name.

    A person's sample is extended by the machines that have looked at everything, where there are such.

    Args:
        judges: of a split.
        of_model: the columns that a summary of the classifier is made of.
        valid: bool [N], which rows the split's oracle let through.
    """
    if "original_prediction" not in of_model:
        return {}
    truth = of_model["label"]
    right, original_right = of_model["prediction"] == truth, of_model["original_prediction"] == truth
    machines = [judge for judge in judges if judge.kind != "person" and judge.verdicts.audited[valid].all()]
    machine = np.mean([judge.verdicts.seen for judge in machines], axis=0) if machines else None
    by_judge = {}
    for judge in judges:
        extended = machine if judge.kind == "person" else None
        figures = corrected(valid, right, original_right, judge.verdicts, extended)
        if figures is not None:
            by_judge[judge.name] = figures
    return by_judge


def valid_rows(judges: Sequence[Judge], name: str, columns: Mapping[str, np.ndarray], split: str) -> np.ndarray:
    """Return which rows are valid if a judge sees the label too, not the oracle alone (the paper's human labour, §3.1).

    Args:
        judges: of the split.
        name: of one of them, or `human`.
        columns: of the split, `valid` among them.
        split: what it is called.

    Raises UserError where there is no such judge, or it has not looked at every valid row.
    """
    wanted = [judge for judge in judges if judge.name == name]
    if name == HUMAN and not wanted:
        people = [judge for judge in judges if judge.kind == "person"]
        wanted = people[-1:]  # all together, where they are several
    if not wanted:
        names = ", ".join(judge.name for judge in judges)
        others = f"; it was judged by {names}" if names else ""
        raise UserError(f"{split}: was not judged by {name}{others}")
    verdicts, valid = wanted[0].verdicts, columns["valid"]
    missing = int((valid & ~verdicts.audited).sum())
    if missing:
        raise UserError(
            f"{split}: {missing} of its {int(valid.sum())} valid images were not looked at by {wanted[0].name}; have "
            "all of them judged, or read the corrected FMR, which weighs a sample"
        )
    return valid & (verdicts.seen > 0.5)
