"""Results in the Hub's own format, which model pages and the boards of benchmarks show: `.eval_results/*.yaml`."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResultEntry, constants, eval_result_entries_to_yaml

from fmrgen.errors import UserError
from fmrgen.files import check_inside, parse_yaml, read_plain, to_yaml, write_atomically
from fmrgen.publish.benchmark import task_id
from fmrgen.publish.card import citation_tag
from fmrgen.publish.results import Recorded, file_name, result_path
from fmrgen.results.evaluation import EvaluatedClassifier, EvaluatedSplit, Evaluation, Result

FOLDER = ".eval_results"  # in a model's repo
_WHEN = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"


def write_eval_results(evaluation: Evaluation, recorded: Sequence[Recorded], folder: Path) -> list[Path]:
    """Writes `NAME/.eval_results/*.yaml` into `folder` for each classifier: a file for each split on the Hub.

    Args:
        evaluation: the figures.
        recorded: where each split's are recorded, as `record_results` returns it: an entry points to them.
        folder: to write into.

    Returns:
        The files. Splits that are not on the Hub have no board and no entry, nor has a classifier without FMR.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    written = []
    for split, row, where in zip(evaluation.splits, evaluation.matrix, recorded, strict=True):
        if split.revision is None or split.files is None:
            continue
        for classifier, result in zip(evaluation.classifiers, row, strict=True):
            if result.total.fmr is not None:
                entry = _entry(split, classifier, result, where.commit, now)
                path = results_of(folder, classifier) / entry_file(split)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, _text(entry))
                written.append(path)
    return written


def read_eval_results(evaluation: Evaluation, classifier: EvaluatedClassifier, folder: Path) -> dict[str, bytes]:
    """The entries of a classifier, as `write_eval_results` put them into `folder`, by the names of their files.

    Raises UserError for a file that it does not make of this evaluation: what is sent to the Hub is nothing else.
    """
    own = {
        entry_file(split): (split, classifier, evaluation.result(split.name, classifier.name))
        for split in evaluation.splits
    }
    found = {}
    for path in sorted(results_of(folder, classifier).glob("*.yaml")):
        check_inside(path, folder)
        tree = parse_yaml(read_plain(path).decode(errors="replace"), str(path))
        entry = _entry_again(tree, *own[path.name]) if path.name in own else None
        if entry is None:
            raise UserError(
                f"{path}: is not what this evaluation gives; delete it, or run fmrgen evaluate --eval-results again"
            )
        found[path.name] = _text(entry)
    return found


def results_of(folder: Path, classifier: EvaluatedClassifier) -> Path:
    """Where the entries of a classifier lie, as they are to lie in the repo of its model."""
    return folder / file_name(classifier) / FOLDER


def entry_file(split: EvaluatedSplit) -> str:
    """A file per board: nothing that others wrote of other boards has to be kept in it."""
    return f"{str(split.repo).replace('/', '--')}--{task_id(str(split.config), str(split.split))}.yaml"


def _entry(
    split: EvaluatedSplit, classifier: EvaluatedClassifier, result: Result, commit: str | None, now: str
) -> EvalResultEntry:
    fmr = result.total.fmr
    assert fmr is not None
    found = f"{constants.ENDPOINT}/datasets/{split.repo}/blob/{commit}/{result_path(split, classifier)}"
    return EvalResultEntry(
        dataset_id=str(split.repo),
        task_id=task_id(str(split.config), str(split.split)),
        value=round(fmr.value, 2),
        dataset_revision=split.revision,
        date=now,
        source_url=found if commit else None,
        source_name="fmrgen" if commit else None,
        notes=_notes(split, result),
    )


def _entry_again(
    tree: Any, split: EvaluatedSplit, classifier: EvaluatedClassifier, result: Result
) -> EvalResultEntry | None:
    """The entry of a result, of the time and the commit that a file says; None where the file says anything else."""
    url: str | None = None
    commit: str | None = None
    match tree:
        case [{"date": str(now), "source": {"url": str(place)}}]:
            if (found := re.fullmatch(r"https?://[^/]+/datasets/.*/blob/([0-9a-f]{40})/.*", place)) is None:
                return None
            url, commit = place, found[1]
        case [{"date": str(now)}]:
            pass
        case _:
            return None
    if result.total.fmr is None or not re.fullmatch(_WHEN, now):
        return None
    entry = _entry(split, classifier, result, commit, now)
    # The Hub's address may have been another, of a mirror.
    same_place = url is None or str(entry.source_url).partition("/datasets/")[2] == url.partition("/datasets/")[2]
    as_there = eval_result_entries_to_yaml([replace(entry, source_url=url)])
    return entry if same_place and tree == as_there else None


def _text(entry: EvalResultEntry) -> bytes:
    return to_yaml(eval_result_entries_to_yaml([entry])).encode()


def _notes(split: EvaluatedSplit, result: Result) -> str:
    """What makes the one number of an entry one that can be understood: its kind, interval and the very split."""
    total = result.total
    notes = [f"FMR {total.fmr} %"]
    notes += [
        f"{name} {figure}" for name, figure in (("SA", total.standard_accuracy), ("PA", total.perturbed_accuracy))
    ]
    notes.append(f"{total.rows} images")
    notes.append("made against this model" if result.conditioned else "made against another model")
    notes += [f"valid by {split.valid_by}"] if split.valid_by else []
    tag = citation_tag(str(split.config), str(split.split), str(split.fingerprint), str(split.files))
    return "; ".join([*notes, f"split {tag}"])
