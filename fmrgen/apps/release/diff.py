"""Which images did a new classifier break? Flips on real images first, then on transformed ones; one verdict over all.

Importing this brings no torch: predictions are compared without it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmrgen.apps.release.evidence import Verdict, judged
from fmrgen.apps.release.flips import compare_predictions
from fmrgen.apps.release.outcome import Diff, faults_of, notes_on_swapped
from fmrgen.apps.release.predictions import Predictions, predictions_of_columns, read_predictions
from fmrgen.errors import UserError, option

if TYPE_CHECKING:
    from fmrgen.recipe.job import Recipe
    from fmrgen.recipe.objects import AnyClassifier


def diff(old: Any, new: Any, labels: Any = None, *, margin: float = 0.0, by: Sequence[str] = ()) -> Diff:
    """Return the flips between two classifiers and whether NEW is worse, by predictions for the same images.

    Args:
        old: a file of predictions, an array of classes [N] or of scores [N, K], or a data frame or mapping with columns
            `id`, `label` and `prediction`; or a list of such, of several trainings of one recipe.
        new: likewise, of the candidate to replace it.
        labels: the true classes [N], for arrays.
        margin: points of accuracy that NEW may lose, from 0 to less than 100.
        by: columns to group the images by, `COLUMN` or `COLUMN:BOUND,…`; by default all with few values.

    Raises:
        UserError: the two are not about the same images, or something can't be used, with the cure.
    """
    _check_margin(margin)
    trainings = old if _are_trainings(old) else [old]
    of_old = [_as_predictions(f"old {number}", values, labels) for number, values in enumerate(trainings, 1)]
    of_new = _as_predictions("new", new, labels)
    flips, evidence = compare_predictions(of_old, of_new, margin=margin, by=by)
    of_all = [*of_old, of_new]
    faults = faults_of(of_all)
    verdict: Verdict = "invalid"
    if not faults:
        verdict, evidence = judged(evidence, has_suspect=flips.has_suspect(margin))
    notes = faults or notes_on_swapped(of_all)
    if labels is None and not all(predictions.has_ids for predictions in of_all):
        notes.append("there are no ids: the rows of OLD and NEW are paired by their place; add a column id")
    for predictions in of_all:
        notes += _notes_on_spelling(predictions)
    if all(np.array_equal(training.predicted, of_new.predicted) for training in of_old):
        notes.append("OLD and NEW have the same predictions on every image")
    return Diff(verdict, margin, evidence, flips, notes=notes)


def diff_classifiers(
    old: "AnyClassifier | list[AnyClassifier]",
    new: "AnyClassifier",
    images: Any = None,
    *,
    recipe: "Recipe | None" = None,
    output: str | Path | None = None,
    margin: float = 0.0,
    by: Sequence[str] = (),
) -> Diff:
    """Return the flips between two classifiers and whether NEW is worse, by their predictions for images.

    On labelled images; or by a recipe: on all images of its source, whatever its limit, and on its originals
    transformed at random, and generates images against the two. Runs on every process of a launch, with the
    same outcome on each.

    Args:
        old: a classifier, as for `evaluate`; on images also a list of trainings of one recipe.
        new: the candidate to replace it.
        images: a split, a dataset, a folder with a folder for each class, or a section of a source.
        recipe: instead of images: source, generator, oracle and steps; its classifier is ignored. Two splits of the
            same originals are generated, or resumed: in one OLD is right and NEW wrong, in the other it is the other
            way round.
        output: the dataset folder of these splits; needed with a recipe.
        margin: points of accuracy that NEW may lose, from 0 to less than 100. On transformed images it may lose as
            many more as trainings of one recipe are apart (5 to 30).
        by: columns to group the images by, `COLUMN` or `COLUMN:BOUND,…`; without a recipe.

    Raises:
        UserError: the images, the recipe or a classifier can't be used, with the cure.
    """
    _check_margin(margin)
    if (images is None) == (recipe is None):
        raise UserError("images: give labelled images, or a recipe")
    if recipe is not None and by:
        raise UserError("by: groups real images; leave it out, or give images and no recipe")
    if isinstance(old, list) and not old:
        raise UserError("old: give at least one classifier")
    if recipe is None:
        from fmrgen.apps.release.on_images import diff_on_images

        trainings = old if isinstance(old, list) else [old]
        return diff_on_images(images, trainings, new, margin=margin, by=by)[0]
    if isinstance(old, list):
        raise UserError("old: a recipe takes one network; several trainings work on real images only")
    if output is None:
        raise UserError("output: name the dataset folder of the two splits")
    from fmrgen.apps.release.on_recipe import diff_on_recipe

    return diff_on_recipe(recipe, output, old, new, margin=margin)


def _check_margin(margin: float) -> None:
    if not 0 <= margin < 100:
        raise UserError(f"{option('margin', 'margin')}: must be points from 0 to less than 100, not {margin:g}")


def _are_trainings(old: Any) -> bool:
    """Return whether `old` is a list of several trainings, and not one list of predictions."""
    if not isinstance(old, list) or not old:
        return False
    tables = (Predictions, Mapping, np.ndarray, list, tuple)
    return isinstance(old[0], tables) or hasattr(old[0], "columns")


def _as_predictions(name: str, values: Any, labels: Any) -> Predictions:
    """Return predictions that were given in any form. Raises UserError if they can't be used.

    `values` is a file, an array of classes [N] or of scores [N, K], a data frame or a mapping. With an array, `labels`
    are the true classes [N]. `name` says whose they are, for messages.
    """
    if isinstance(values, Predictions):
        return values
    if isinstance(values, str | Path):
        return read_predictions(values)
    if isinstance(values, Mapping):
        columns = dict(values)
    elif hasattr(values, "columns"):
        columns = {str(column): values[column].to_numpy() for column in values.columns}
    elif labels is None:
        raise UserError(
            f"{name}: has predictions alone; give labels too, or a table with label and prediction; two networks are "
            "for fmrgen.diff_classifiers(old, new, images)"
        )
    else:
        if len(labels) != len(values):
            raise UserError(f"{name}: has {len(values)} predictions for {len(labels)} labels")
        array = np.asarray(values)
        columns = {"label": np.asarray(labels), "scores" if array.ndim == 2 else "prediction": array}
    return predictions_of_columns(name, columns)


def _notes_on_spelling(predictions: Predictions) -> list[str]:
    """Return a line if predictions differ from labels in nothing but capitals or spaces."""
    labels = {_folded(label): label for label in set(predictions.labels.tolist())}
    for prediction in sorted(set(predictions.predicted.tolist()) - set(labels.values())):
        if _folded(prediction) in labels:
            label = labels[_folded(prediction)]
            return [f"{predictions.name}: the prediction {prediction!r} is not the label {label!r}"]
    return []


def _folded(name: str) -> str:
    return "".join(name.casefold().split())
