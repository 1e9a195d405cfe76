"""Results that travel: `model-index` metadata for a model's page, and rows of a split's leaderboard."""

import json
import logging
import re
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from fmrgen.errors import UserError
from fmrgen.evaluation.results import EvaluatedClassifier, EvaluatedSplit, EvaluationResults, Result
from fmrgen.files import check_inside, write_atomically
from fmrgen.hub.card import RESULT_SCHEMA, renew_card
from fmrgen.hub.repo import Change, HubRepo, RepoState
from fmrgen.metrics import COMPARED
from fmrgen.report.markdown import escape, to_markdown
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import read_provenance

_log = logging.getLogger(__name__)

_TYPES = {"fmr": "fmr"}  # what the Hub calls a metric that is no accuracy, by its field


def write_model_cards(evaluation: EvaluationResults, folder: Path) -> list[Path]:
    """Writes a model card with `model-index` results for each classifier into `folder`; returns their paths."""
    paths = []
    for place, classifier in enumerate(evaluation.classifiers):
        pairs = [(split, row[place]) for split, row in zip(evaluation.splits, evaluation.matrix, strict=True)]
        data = ModelCardData(
            model_name=classifier.name,
            pipeline_tag="image-classification",
            tags=["robustness", "fmrgen"],
            eval_results=[entry for split, result in pairs for entry in eval_results(split, result)],
        )
        alone = EvaluationResults(
            schema=evaluation.schema,
            splits=[replace(split, name=_public_name(split)) for split, _ in pairs],
            classifiers=[classifier],
            results=[replace(result, split=_public_name(split)) for split, result in pairs],
            comparisons=[],
        )
        card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {escape(classifier.name)}\n\n{to_markdown(alone)}")
        paths.append(folder / f"{_file_name(classifier)}.md")
        write_atomically(paths[-1], str(card).encode())
    return paths


def eval_results(split: EvaluatedSplit, result: Result) -> list[EvalResult]:
    """SA, PA and FMR of one result as the Hub's evaluation results, in percent."""
    name = _dataset(split)
    described: dict[str, Any] = {
        "task_type": "image-classification",
        "task_name": "Image classification",
        "dataset_type": name,
        "dataset_name": f"{name} {split.config}/{split.split}" if split.config else name,
        "dataset_config": split.config,
        "dataset_split": split.split,
        "dataset_revision": split.revision,
        "dataset_args": {"fingerprint": split.fingerprint} if split.fingerprint else None,
    }
    found = []
    for metric in COMPARED.values():
        if (estimate := result.total[metric]) is not None:
            # Without the interval: an entry with other arguments is not updated on a model's page, it is put beside.
            kind: dict[str, Any] = {"metric_type": _TYPES.get(metric.field, "accuracy"), "metric_name": metric.name}
            found.append(EvalResult(**described, **kind, metric_value=estimate.value))
    return found


def record_results(evaluation: EvaluationResults) -> list[str]:
    """Adds each result to the leaderboard of its split, where that is one of fmrgen's in a folder or on the Hub.

    Returns a line for each split that was written to, or could not be.
    """
    told = []
    for split, results in zip(evaluation.splits, evaluation.matrix, strict=True):
        if split.files is None or split.repo is None:
            told.append(f"{split.name}: no split of fmrgen's, so it has no leaderboard")
            continue
        paths = SplitPaths(Path(), str(split.config), str(split.split))
        entries = {
            paths.in_repo(paths.results / f"{_file_name(classifier)}.json"): _entry(split, classifier, result)
            for classifier, result in zip(evaluation.classifiers, results, strict=True)
        }
        try:
            if split.revision is None:
                for path, text in entries.items():
                    check_inside((Path(split.repo) / path).parent, Path(split.repo))
                    write_atomically(Path(split.repo) / path, text.encode())
                renew_card(Path(split.repo))
            else:
                _commit_entries(split, entries)
            told.append(f"{split.name}: {len(entries)} rows in its leaderboard")
        except UserError as error:  # the evaluation itself is safe
            told.append(f"{split.name}: leaderboard not written: {error}")
    return told


def _check_same_files(root: Path, split: EvaluatedSplit) -> None:
    provenance = read_provenance(SplitPaths(root, str(split.config), str(split.split)))
    if provenance.files_digest != split.files:
        raise UserError("the split was regenerated after the revision that was evaluated; evaluate the current one")


def _commit_entries(split: EvaluatedSplit, entries: dict[str, str]) -> None:
    """One commit with the entries and the card that shows them."""

    def change(folder: Path, state: RepoState) -> Change:
        _check_same_files(folder, split)
        for path, text in entries.items():
            write_atomically(folder / path, text.encode())
        return Change(f"Results of {len(entries)} classifiers on {split.config}/{split.split}", [])

    HubRepo(str(split.repo), None, _log.warning).update(change)


def _entry(split: EvaluatedSplit, classifier: EvaluatedClassifier, result: Result) -> str:
    told: dict[str, Any] = {
        "schema": RESULT_SCHEMA,
        "files": split.files,
        "classifier": classifier.name,
        "weights_sha256": classifier.weights_sha256,
        "conditioned": result.conditioned,
        "fmrgen": version("fmrgen"),
        **asdict(result.total),
    }
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def _public_name(split: EvaluatedSplit) -> str:
    return f"{_dataset(split)}:{split.config}/{split.split}" if split.config else _dataset(split)


def _dataset(split: EvaluatedSplit) -> str:
    """The dataset's name without the way to it on this machine."""
    name = split.repo or split.name
    return name if split.revision else Path(name).resolve().name


def _file_name(classifier: EvaluatedClassifier) -> str:
    """A name for files: of two classifiers with one name, the weights tell."""
    plain = re.sub(r"[^\w.-]+", "-", classifier.name).strip("-.") or "classifier"
    return plain if classifier.weights_sha256 is None else f"{plain}-{classifier.weights_sha256[:8]}"
