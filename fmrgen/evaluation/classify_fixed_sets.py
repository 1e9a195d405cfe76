"""A classifier on fixed benchmarks, in the same processes as on splits."""

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import torch

from fmrgen.distributed.launch import Sharing
from fmrgen.engine.images import to_batch
from fmrgen.errors import UserError
from fmrgen.evaluation.classify import classify
from fmrgen.evaluation.fixed_sets import FixedFound, SetRows, fixed_result, open_source
from fmrgen.evaluation.models import LoadedClassifier, answering_in
from fmrgen.evaluation.summarise import predictions_table
from fmrgen.recipe.fixed_sets import FixedSets
from fmrgen.sources.base import SourceConfig


def classify_fixed_sets(
    model: LoadedClassifier,
    chosen: Mapping[str, FixedSets],
    sharing: Sharing,
    device: torch.device,
    batch_size: int,
    on_images: Callable[[str, int, int], None],
) -> FixedFound:
    """A classifier on every fixed set, images as the sets hold them.

    `on_images` is called with a set's name, images done now, and its images in all. Raises UserError where the
    classifier or a set can't be used.
    """
    found = FixedFound([], [])
    for name, config in chosen.items():
        rows = {}
        for (of_set, severity), source in config.sources(name).items():
            called = name if not config.sets else f"{name}: {of_set}" + ("" if severity is None else f"-{severity}")
            try:
                rows[of_set, severity], table = _classify(called, source, model, sharing, device, batch_size, on_images)
            except UserError as error:
                raise UserError(f"{called}: {error}") from None
            found.predictions.append(table)
        found.results.append(fixed_result(name, model.named.name, config, rows))
    return found


def _classify(
    called: str,
    config: SourceConfig,
    model: LoadedClassifier,
    sharing: Sharing,
    device: torch.device,
    batch_size: int,
    on_images: Callable[[str, int, int], None],
) -> tuple[SetRows, pa.Table]:
    opened = open_source(config)
    name = model.named.name
    answering = answering_in(opened.source.labels, model, to_batch(opened.first()[None], device), called)
    total = len(opened.source)
    batches = opened.batches(batch_size)
    said = classify(
        batches,
        {name: answering},
        lambda rows: np.array(opened.labels[rows[0] : rows[-1] + 1]),
        sharing,
        device,
        lambda more: on_images(called, more, total),
    )
    prediction = said[name]["image"].prediction
    columns = {"id": np.array(opened.ids), "label": np.array(opened.labels)}
    table = predictions_table(called, name, {"label": columns["label"], "prediction": prediction}, columns)
    return SetRows(columns["id"], {name: prediction == columns["label"]}), table
