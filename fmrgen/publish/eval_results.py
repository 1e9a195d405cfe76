"""Results in the Hub's own format, `.eval_results/*.yaml`, which model pages and the boards of benchmarks show."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResultEntry, constants, eval_result_entries_to_yaml

from fmrgen.errors import UserError
from fmrgen.files import check_inside, parse_yaml, read_plain, to_yaml, write_atomically
from fmrgen.publish.benchmark import task_id
from fmrgen.publish.card import citation_tag
from fmrgen.publish.results import Recorded, file_name, result_path
from fmrgen.results.evaluation import EvaluatedClassifier, EvaluatedSplit, Evaluation, Result

_FOLDER = ".eval_results"  # in a model's repo
_WHEN = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"


def write_eval_results(evaluation: Evaluation, recorded: Sequence[Recorded], folder: Path) -> list[Path]:
    """Write `NAME/.eval_results/*.yaml` into `folder` for each classifier: a file for each split on the Hub.

    Args:
        evaluation: the figures.
        recorded: where each split's are recorded, as `record_results` returns it: an entry points to them.
        folder: to write into.

    Returns:
        The files. A split that is not on the Hub has no board and no entry, and a classifier without FMR has none.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    written = []
    for split, row, outcome in zip(evaluation.splits, evaluation.matrix, recorded, strict=True):
        if split.revision is None or split.files is None:
            continue
        for classifier, result in zip(evaluation.classifiers, row, strict=True):
            if result.total.fmr is not None:
                entry = _entry(split, classifier, result, outcome.commit, now)
                path = results_of(folder, classifier) / _entry_file(split)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, _text(entry))
                written.append(path)
    return written


class SentResult(NamedTuple):
    """An entry for the repo of a model: the split that it is about, its path in the repo, and its content."""

    split: EvaluatedSplit
    path: str
    content: bytes


def read_eval_results(evaluation: Evaluation, classifier: EvaluatedClassifier, folder: Path) -> list[SentResult]:
    """Return the entries of a classifier, as `write_eval_results` put them into `folder`.

    Args:
        evaluation: the figures.
        classifier: one of its classifiers.
        folder: to read from.

    Raises:
        UserError: a file is not what this evaluation gives, so it must not be sent to the Hub.
    """
    splits = {_entry_file(split): split for split in evaluation.splits}
    entries = []
    for path in sorted(results_of(folder, classifier).glob("*.yaml")):
        check_inside(path, folder)
        tree = parse_yaml(read_plain(path).decode(errors="replace"), str(path))
        split = splits.get(path.name)
        entry = None
        if split is not None:
            entry = _entry_again(tree, split, classifier, evaluation.result(split.name, classifier.name))
        if split is None or entry is None:
            raise UserError(
                f"{path}: is not what this evaluation gives; delete it, or run fmrgen evaluate --eval-results again"
            )
        entries.append(SentResult(split, f"{_FOLDER}/{path.name}", _text(entry)))
    return entries


def results_of(folder: Path, classifier: EvaluatedClassifier) -> Path:
    """Return the folder of a classifier's entries, which is laid out like the repo of its model."""
    return folder / file_name(classifier) / _FOLDER


def _entry_file(split: EvaluatedSplit) -> str:
    """Return the name of a split's file. Each board has its own, so that it needs to keep nothing of other boards."""
    return f"{str(split.repo).replace('/', '--')}--{task_id(str(split.config), str(split.split))}.yaml"


def _entry(
    split: EvaluatedSplit, classifier: EvaluatedClassifier, result: Result, commit: str | None, now: str
) -> EvalResultEntry:
    fmr = result.total.fmr
    assert fmr is not None
    address = source = None
    if commit:
        address = f"{constants.ENDPOINT}/datasets/{split.repo}/blob/{commit}/{result_path(split, classifier)}"
        source = "fmrgen"
    return EvalResultEntry(
        dataset_id=str(split.repo),
        task_id=task_id(str(split.config), str(split.split)),
        value=round(fmr.value, 2),
        dataset_revision=split.revision,
        date=now,
        source_url=address,
        source_name=source,
        notes=_notes(split, result),
    )


def _entry_again(
    tree: Any, split: EvaluatedSplit, classifier: EvaluatedClassifier, result: Result
) -> EvalResultEntry | None:
    """Return the entry of a result, with the time and the commit of a file; None if the file differs in anything else.

    Args:
        tree: the content of the file.
        split: of the result.
        classifier: of the result.
        result: of this evaluation.
    """
    url: str | None = None
    commit: str | None = None
    match tree:
        case [{"date": str(now), "source": {"url": str(address)}}]:
            match_address = re.fullmatch(r"https?://[^/]+/datasets/.*/blob/([0-9a-f]{40})/.*", address)
            if match_address is None:
                return None
            url, commit = address, match_address[1]
        case [{"date": str(now)}]:
            pass
        case _:
            return None
    if result.total.fmr is None or not re.fullmatch(_WHEN, now):
        return None
    entry = _entry(split, classifier, result, commit, now)
    if url is not None and _path_on_hub(str(entry.source_url)) != _path_on_hub(url):
        return None
    expected = eval_result_entries_to_yaml([replace(entry, source_url=url)])
    return entry if tree == expected else None


def _path_on_hub(url: str) -> str:
    """Return a dataset's file on the Hub, without the address of the Hub, which may be that of a mirror."""
    return url.partition("/datasets/")[2]


def _text(entry: EvalResultEntry) -> bytes:
    return to_yaml(eval_result_entries_to_yaml([entry])).encode()


def _notes(split: EvaluatedSplit, result: Result) -> str:
    """Return what explains the one number of an entry: its kind, its interval and the very split."""
    total = result.total
    notes = [
        f"FMR {total.fmr} %",
        f"SA {total.standard_accuracy}",
        f"PA {total.perturbed_accuracy}",
        f"{total.rows} images",
        "made against this model" if result.conditioned else "made against another model",
    ]
    if split.valid_by:
        notes.append(f"valid by {split.valid_by}")
    tag = citation_tag(str(split.config), str(split.split), str(split.fingerprint), str(split.files))
    notes.append(f"split {tag}")
    return "; ".join(notes)
