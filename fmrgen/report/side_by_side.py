"""The same images under several classifiers (paper Figures 2 and 3): one row an example, one column a split."""

from collections.abc import Sequence
from typing import Any

from fmrgen.report.plot import INK, Plot, extremes, shortened
from fmrgen.report.sheet import SIDE, blank_canvas, draw_image, told_answer
from fmrgen.report.tables import short_names
from fmrgen.results.evaluation import Evaluation
from fmrgen.results.samples import Sample

_ROWS = 8
_STEP = 1.1  # inches from one image to the next


def common_rows(evaluation: Evaluation) -> list[Any]:
    """The ids of a few examples that are shown of each classifier's own split; none without two such splits."""
    if evaluation.own is None:
        return []
    by_id = _samples_by_id(evaluation)
    common: set[Any] = set.intersection(*(set(samples) for samples in by_id.values())) - {None}
    first = next(iter(by_id.values()))
    return _of_each_label({example: first[example] for example in sorted(common)})


def side_by_side(evaluation: Evaluation, chosen: Sequence[Any]) -> Plot:
    """The chosen examples as each classifier's own split has them, its answer above each."""
    by_id = _samples_by_id(evaluation)
    splits = list(by_id)
    names = {split.name: split.class_names for split in evaluation.splits}
    short = short_names(splits)
    figure, canvas = blank_canvas(_STEP * (len(splits) + 1), _STEP * len(chosen) + 0.4)
    for row, example in enumerate(chosen):
        first = by_id[splits[0]][example]
        label = first.columns["label"]
        top = 0.6 + row * _STEP
        draw_image(canvas, (0, top), first.original, names[splits[0]][label], INK)
        for column, split in enumerate(splits, 1):
            sample = by_id[split][example]
            answer = told_answer(sample.columns.get("prediction"), label, names[split])
            draw_image(canvas, (column * _STEP, top), sample.image, *answer)
    for column, title in enumerate(["original", *(short[split] for split in splits)]):
        canvas.text(column * _STEP + SIDE / 2, 0.2, shortened(title, 16), ha="center", fontsize=7)
    return figure


def _samples_by_id(evaluation: Evaluation) -> dict[str, dict[Any, Sample]]:
    """The shown rows of each classifier's own split, in the order of the ranking; of many its first and last."""
    ranking, _ = extremes([] if evaluation.own is None else evaluation.own.ranking)
    return {place.split: {s.columns.get("id"): s for s in evaluation.samples[place.split]} for place in ranking}


def _of_each_label(samples: dict[Any, Sample]) -> list[Any]:
    """A few ids of many labels, valid ones first."""
    order = sorted(samples, key=lambda example: not samples[example].columns.get("valid", True))
    seen: set[int] = set()
    first: list[Any] = []
    more: list[Any] = []
    for example in order:
        label = samples[example].columns["label"]
        (more if label in seen else first).append(example)
        seen.add(label)
    return [*first, *more][:_ROWS]
