"""The same images under several classifiers (paper Figures 2 and 3): one row an example, one column a split."""

from collections.abc import Sequence
from typing import Any

from fmrgen.report.plot import Plot, extremes, shortened
from fmrgen.report.sheet import SIDE, blank_canvas, draw_image, told_answer
from fmrgen.report.tables import short_names
from fmrgen.results.evaluation import Evaluation
from fmrgen.results.samples import Sample

_ROWS = 8  # examples
_STEP = 1.1  # inches from one image to the next


def common_rows(evaluation: Evaluation) -> list[Any]:
    """Return the ids of a few examples of which each classifier's own split has a sample; none without two such
    splits."""
    if evaluation.own is None:
        return []
    first, *others = _samples_by_id(evaluation).values()
    common = set(first) - {None}
    for samples in others:
        common &= samples.keys()
    return _of_each_label({example: first[example] for example in sorted(common)})


def side_by_side(evaluation: Evaluation, ids: Sequence[Any]) -> Plot:
    """Return a picture of the examples with these ids in each classifier's own split, its answer above each."""
    by_id = _samples_by_id(evaluation)
    splits = list(by_id)
    names = {split.name: split.class_names for split in evaluation.splits}
    short = short_names(splits)
    figure, canvas = blank_canvas(_STEP * (len(splits) + 1), _STEP * len(ids) + 0.4)
    for row, example in enumerate(ids):
        first = by_id[splits[0]][example]
        label = first.columns["label"]
        top = 0.6 + row * _STEP
        draw_image(canvas, (0, top), first.original, names[splits[0]][label])
        for column, split in enumerate(splits, 1):
            sample = by_id[split][example]
            answer = sample.columns.get("prediction")
            text = told_answer(answer, names[split])
            draw_image(canvas, (column * _STEP, top), sample.image, text, answer != label)
    for column, title in enumerate(["original", *map(short.__getitem__, splits)]):
        canvas.text(column * _STEP + SIDE / 2, 0.2, shortened(title, 16), ha="center", fontsize=7)
    return figure


def _samples_by_id(evaluation: Evaluation) -> dict[str, dict[Any, Sample]]:
    """Return the samples of each classifier's own split, in the order of the ranking; if there are many splits, of the
    first and last ones."""
    if evaluation.own is None:
        return {}
    ranking, _ = extremes(evaluation.own.ranking)
    by_id = {}
    for place in ranking:
        by_id[place.split] = {sample.columns.get("id"): sample for sample in evaluation.samples[place.split]}
    return by_id


def _of_each_label(samples: dict[Any, Sample]) -> list[Any]:
    """Return a few ids of many labels, valid rows first."""
    order = sorted(samples, key=lambda example: not samples[example].columns.get("valid", True))
    seen: set[int] = set()
    first_of_label: list[Any] = []
    others: list[Any] = []
    for example in order:
        label = samples[example].columns["label"]
        if label in seen:
            others.append(example)
        else:
            first_of_label.append(example)
        seen.add(label)
    return [*first_of_label, *others][:_ROWS]
