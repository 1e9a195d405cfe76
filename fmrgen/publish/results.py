"""Results in the repo or folder of their split, whose card lists them."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fmrgen.errors import UserError
from fmrgen.files import check_inside, write_atomically
from fmrgen.publish.entries import RESULT_SCHEMA
from fmrgen.publish.repo import add_to_split
from fmrgen.results.evaluation import EvaluatedClassifier, EvaluatedSplit, Evaluation, Result
from fmrgen.storage.paths import SplitPaths

_DIGITS = 8  # of the weights' sha256, in the name of a file


@dataclass(frozen=True)
class Recorded:
    """What became of the results on one split; `line` says it."""

    line: str
    failed: bool = False  # whether they are on no card


def record_results(evaluation: Evaluation) -> list[Recorded]:
    """Add each result to the card of its split, if that is one of fmrgen's in a folder or on the Hub.

    Returns what became of the results on each split, in their order.
    """
    outcomes = []
    for split, results in zip(evaluation.splits, evaluation.matrix, strict=True):
        outcomes.append(_record_split(split, evaluation.classifiers, results))
    return outcomes


def _record_split(
    split: EvaluatedSplit, classifiers: Sequence[EvaluatedClassifier], results: Sequence[Result]
) -> Recorded:
    """Add the results on one split to its card; errors are in the outcome."""
    if split.files is None or split.repo is None:
        return Recorded(f"{split.name}: no split of fmrgen's, so it has no card", failed=True)
    entries = {}
    for classifier, result in zip(classifiers, results, strict=True):
        name = re.sub(r"[^\w.-]+", "-", classifier.name).strip("-.") or "classifier"
        if classifier.weights_sha256 is not None:  # which tells two classifiers of one name apart
            name += f"-{classifier.weights_sha256[:_DIGITS]}"
        entries[f"{name}.json"] = _entry(split, classifier, result)

    def write(paths: SplitPaths) -> None:
        check_inside(paths.results, paths.root)
        for name, text in entries.items():
            write_atomically(paths.results / name, text.encode())

    paths = SplitPaths(Path(split.repo), str(split.config), str(split.split))
    repo = None if split.revision is None else split.repo
    message = f"Results of {len(entries)} classifiers on {paths.name}"
    try:
        add_to_split(paths, repo, split.files, message, write)
    except UserError as error:  # the evaluation itself is safe
        return Recorded(f"{split.name}: results not added to its card: {error}", failed=True)
    return Recorded(f"{split.name}: {len(entries)} result{'s' * (len(entries) > 1)} added to its card")


def _entry(split: EvaluatedSplit, classifier: EvaluatedClassifier, result: Result) -> str:
    entry: dict[str, Any] = {
        "schema": RESULT_SCHEMA,
        "files": split.files,
        "classifier": classifier.name,
        "weights_sha256": classifier.weights_sha256,
        "conditioned": result.conditioned,
        "fmrgen": version("fmrgen"),
        **asdict(result.total),
    }
    return json.dumps(entry, indent=1, ensure_ascii=False) + "\n"
