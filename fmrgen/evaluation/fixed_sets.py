"""Fixed benchmarks beside FMR: labelled sets, alone or as corruptions in several severities (ImageNet-C's mCE)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from fmrgen.errors import UserError
from fmrgen.evaluation.classify import Batch, Pixels
from fmrgen.image_files import open_rgb
from fmrgen.metrics.intervals import Estimate, independent_mean, mean, proportion, share
from fmrgen.recipe.build import build_source
from fmrgen.recipe.fixed_sets import FixedSets
from fmrgen.sources.base import RawExample, Source, SourceConfig


@dataclass(frozen=True)
class FixedResult:
    """One classifier on fixed sets.

    Attributes:
        name: of the sets together.
        classifier: that was measured.
        images: of all sets.
        accuracy: mean over sets and severities, in percent.
        mean_corruption_error: mCE: the mean over sets of the error relative to the normaliser's, in percent; None
            where there is none.
        by_set: accuracy on each set, by `SET` or `SET-SEVERITY`.
    """

    name: str
    classifier: str
    images: int
    accuracy: Estimate
    mean_corruption_error: Estimate | None
    by_set: dict[str, Estimate]


@dataclass(frozen=True)
class FixedFound:
    """What classifiers reach on all fixed sets, and what they say of each image, as an evaluation's predictions."""

    results: list[FixedResult]
    predictions: list[pa.Table]


@dataclass(frozen=True)
class SetRows:
    """The rows of one set: ids [N], and whether each classifier is right, bool [N], by its name."""

    ids: np.ndarray
    right: Mapping[str, np.ndarray]


def fixed_result(
    name: str, classifier: str, config: FixedSets, rows: Mapping[tuple[str, int | None], SetRows]
) -> FixedResult:
    """What a classifier reaches on sets together.

    Where all sets have the same images, as corruptions of one test set have, an image's answers stay together in the
    intervals: the sets are not so many independent samples.
    """
    right = {of: one.right[classifier] for of, one in rows.items()}
    weights = {of: 1 / len(rows) for of in rows}
    errors = None
    if config.normaliser:
        of_each = max(1, len(config.severities))
        errors = {of: 100 / (len(config.sets) * of_each * config.normaliser[of[0]]) for of in rows}
    ids = [one.ids for one in rows.values()]
    paired = all(len(other) == len(ids[0]) and np.array_equal(other, ids[0]) for other in ids[1:])
    accuracy = _weighted({of: 100 * hits for of, hits in right.items()}, weights, paired)
    error = None if errors is None else _weighted({of: 100.0 * ~hits for of, hits in right.items()}, errors, paired)
    return FixedResult(
        name,
        classifier,
        sum(map(len, ids)),
        share(accuracy, len(ids[0]) if paired else sum(map(len, ids))),
        None if error is None else replace(error, low=None if error.low is None else max(error.low, 0.0)),
        {_set_name(*of): _known(proportion(hits)) for of, hits in right.items()},
    )


def _weighted(values: Mapping[Any, np.ndarray], weights: Mapping[Any, float], paired: bool) -> Estimate:
    """The weighted sum of the sets' means."""
    if paired:
        return _known(mean(np.sum([weights[of] * found for of, found in values.items()], axis=0)))
    return independent_mean([(weights[of], found) for of, found in values.items()])


def _known(estimate: Estimate | None) -> Estimate:
    if estimate is None:
        raise UserError("a fixed set contains no images")
    return estimate


def _set_name(of_set: str, severity: int | None) -> str:
    return of_set if severity is None else f"{of_set}-{severity}"


class SourceRows:
    """The images of a source, as they are, in batches; what is no image stays in `ids` and `labels`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.ids: list[int] = []
        self.labels: list[int] = []

    def first(self) -> Pixels:
        """Its first image. Raises UserError where there is none."""
        example = next(self.source.read(0, 1), None)
        if example is None:
            raise UserError("contains no images")
        return _pixels(example)

    def batches(self, size: int) -> Iterator[Batch]:
        """All images, `size` at a time."""
        waiting: list[RawExample] = []
        for example in self.source.read(0, len(self.source)):
            waiting.append(example)
            if len(waiting) == size:
                yield self._batch(waiting)
                waiting = []
        if waiting:
            yield self._batch(waiting)

    def _batch(self, examples: list[RawExample]) -> Batch:
        rows = np.arange(len(self.ids), len(self.ids) + len(examples))
        self.ids += [example.id for example in examples]
        self.labels += [example.label for example in examples]
        return Batch(rows, partial(_decoded, examples))


def open_source(config: SourceConfig) -> SourceRows:
    """A source to be evaluated on. Raises UserError where it can't be read."""
    return SourceRows(build_source(config))


def _decoded(examples: list[RawExample]) -> dict[str, Any]:
    return {"image": [_pixels(example) for example in examples]}


def _pixels(example: RawExample) -> Pixels:
    try:
        return np.asarray(open_rgb(example.image))
    except UserError as error:
        raise UserError(f"image of id {example.id} is unreadable ({error})") from None
