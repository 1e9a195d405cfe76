"""Results in the repo or folder of their split, whose card lists them."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from fmrgen.errors import UserError
from fmrgen.files import check_inside, json_text, write_atomically
from fmrgen.publish.card import RESULT_SCHEMA
from fmrgen.publish.repo import add_to_split
from fmrgen.results.evaluation import EvaluatedClassifier, EvaluatedSplit, Evaluation, Result
from fmrgen.storage.paths import SplitPaths

_DIGITS = 8  # of the weights' sha256, in the name of a file


def record_results(evaluation: Evaluation) -> list[tuple[str, bool]]:
    """Add each result to the card of its split, if that is one of fmrgen's in a folder or on the Hub.

    Returns for each split, in their order, a line on what became of its results, and whether its card has them.
    """
    outcomes = []
    for split, results in zip(evaluation.splits, evaluation.matrix, strict=True):
        outcomes.append(_record_split(split, evaluation.classifiers, results))
    return outcomes


def _record_split(
    split: EvaluatedSplit, classifiers: Sequence[EvaluatedClassifier], results: Sequence[Result]
) -> tuple[str, bool]:
    """Add the results on one split to its card; errors are in the outcome."""
    if split.files is None or split.repo is None:
        return f"{split.name}: no split of fmrgen's, so it has no card", False
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
        return f"{split.name}: results not added to its card: {error}", False
    return f"{split.name}: {len(entries)} result{'s' * (len(entries) > 1)} added to its card", True


def _entry(split: EvaluatedSplit, classifier: EvaluatedClassifier, result: Result) -> str:
    entry = {
        "schema": RESULT_SCHEMA,
        "files": split.files,
        "classifier": classifier.name,
        "weights_sha256": classifier.weights_sha256,
        "conditioned": result.conditioned,
        "fmrgen": version("fmrgen"),
        **asdict(result.total),
    }
    return json_text(entry)
