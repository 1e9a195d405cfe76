"""Predictions of classifiers on labelled images, for a comparison of what flips."""

import json
from collections.abc import Sequence
from pathlib import Path

from fmrgen.apps.release.predictions import Predictions, predictions_of_columns
from fmrgen.jobs.evaluate import evaluate
from fmrgen.recipe.job import load_fixed_sets, parse_classifier

_SET = "images"


def predictions_on(images: str, classifiers: Sequence[str], *, progress: bool = True) -> list[Predictions]:
    """Return the predictions of each classifier.

    Args:
        images: a folder with a folder for each class, or a fixed set, as for `evaluate`: `sets/NAME`, a file, or a
            section of a source.
        classifiers: as for `evaluate`.
        progress: show a bar.

    Raises:
        UserError: the images or a classifier can't be used.
    """
    if Path(images).is_dir():
        images = f"{{kind: imagefolder, path: {json.dumps(str(images))}}}"
    networks = {str(number): parse_classifier(text)[1] for number, text in enumerate(classifiers)}
    fixed = load_fixed_sets([f"{_SET}={images}"])
    evaluation = evaluate([], networks, fixed=fixed, strict=True, progress=progress)
    answers = []
    for name, text in zip(networks, classifiers, strict=True):
        columns = evaluation.predictions_of(_SET, name)
        wanted = {column: columns[column] for column in ("id", "label", "prediction")}
        answers.append(predictions_of_columns(text, wanted))
    return answers
