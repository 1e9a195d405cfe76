"""The Hub's earlier format of results: a model card with `model-index` metadata for each classifier."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from fmrgen.evaluation.results import EvaluatedSplit, EvaluationResults, Result
from fmrgen.files import to_yaml, write_atomically
from fmrgen.metrics.summary import COMPARED
from fmrgen.publish.results import dataset_name, file_name
from fmrgen.report.markdown import escape, to_markdown

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
            eval_results=[entry for split, result in pairs for entry in _eval_results(split, result)],
        )
        alone = EvaluationResults(
            schema=evaluation.schema,
            splits=[replace(split, name=_public_name(split)) for split, _ in pairs],
            classifiers=[classifier],
            results=[replace(result, split=_public_name(split)) for split, result in pairs],
            comparisons=[],
        )
        card = ModelCard(f"---\n{to_yaml(data.to_dict())}---\n\n# {escape(classifier.name)}\n\n{to_markdown(alone)}")
        paths.append(folder / f"{file_name(classifier)}.md")
        write_atomically(paths[-1], str(card).encode())
    return paths


def _eval_results(split: EvaluatedSplit, result: Result) -> list[EvalResult]:
    """SA, PA and FMR of one result as the Hub's evaluation results, in percent."""
    name = dataset_name(split)
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


def _public_name(split: EvaluatedSplit) -> str:
    return f"{dataset_name(split)}:{split.config}/{split.split}" if split.config else dataset_name(split)
