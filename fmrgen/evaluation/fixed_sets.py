"""A classifier on fixed benchmarks, in the same processes as on splits."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from fmrgen.distributed.launch import Sharing
from fmrgen.engine.images import to_batch
from fmrgen.errors import UserError
from fmrgen.evaluation.summarise import predictions_table
from fmrgen.image_files import open_rgb
from fmrgen.recipe.build import build_source
from fmrgen.recipe.fixed_sets import FixedSets
from fmrgen.results.fixed_sets import FixedSetResults, SetPredictions, fixed_result
from fmrgen.sources.base import RawExample, Source, SourceConfig
from fmrgen.split.classify import Batch, Pixels, classify
from fmrgen.split.models import LoadedClassifier


def classify_fixed_sets(
    model: LoadedClassifier,
    chosen: Mapping[str, FixedSets],
    sharing: Sharing,
    device: torch.device,
    batch_size: int,
    on_images: Callable[[str, int, int], None],
) -> FixedSetResults:
    """Return a classifier's results on every fixed set, whose images stay as the sets hold them.

    `chosen` are fixed sets by name. `on_images` is called with a set's title, images done now, and its images in all.
    Raises UserError if the classifier or a set can't be used.
    """
    results = []
    predictions = []
    for name, config in chosen.items():
        of_sets = {}
        for (set_name, severity), source in config.sources(name).items():
            title = _title(name, config, set_name, severity)
            try:
                of_sets[set_name, severity], table = _classify(
                    title, source, model, sharing, device, batch_size, on_images
                )
            except UserError as error:
                raise UserError(f"{title}: {error}") from None
            predictions.append(table)
        results.append(fixed_result(name, model.name, of_sets, config.normaliser))
    return FixedSetResults(results, predictions)


def _title(name: str, config: FixedSets, set_name: str, severity: int | None) -> str:
    if not config.sets:
        return name
    return f"{name}: {set_name}" if severity is None else f"{name}: {set_name}-{severity}"


def _classify(
    title: str,
    config: SourceConfig,
    model: LoadedClassifier,
    sharing: Sharing,
    device: torch.device,
    batch_size: int,
    on_images: Callable[[str, int, int], None],
) -> tuple[SetPredictions, pa.Table]:
    opened = FixedSetImages(build_source(config))
    name = model.name
    answering = model.in_labels(opened.source.labels, to_batch(opened.first()[None], device), title)
    total = len(opened.source)
    batches = opened.batches(batch_size)
    predictions = classify(
        batches,
        {name: answering},
        lambda rows: np.array(opened.labels[rows[0] : rows[-1] + 1]),
        sharing,
        device,
        lambda more: on_images(title, more, total),
    )
    prediction = predictions[name]["image"].prediction
    columns = {"id": np.array(opened.ids), "label": np.array(opened.labels), "prediction": prediction}
    table = predictions_table(title, name, columns)
    return SetPredictions(columns["id"], {name: prediction == columns["label"]}), table


class FixedSetImages:
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


def _decoded(examples: list[RawExample]) -> dict[str, Any]:
    return {"image": [_pixels(example) for example in examples]}


def _pixels(example: RawExample) -> Pixels:
    try:
        return np.asarray(open_rgb(example.image))
    except UserError as error:
        raise UserError(f"image of id {example.id} is unreadable ({error})") from None
