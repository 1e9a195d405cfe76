"""Classifiers on fixed benchmarks, in the same processes as on splits."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch

from fmrgen.distributed.launch import Processes
from fmrgen.engine.images import to_batch
from fmrgen.errors import UserError
from fmrgen.evaluation.classify import classify
from fmrgen.evaluation.fixed_sets import FixedFound, SetRows, fixed_result, open_source
from fmrgen.evaluation.models import answering_in
from fmrgen.evaluation.stream import NamedClassifier
from fmrgen.evaluation.summarise import predictions_table
from fmrgen.progress.tqdm_bars import OnRows
from fmrgen.recipe.fixed_sets import FixedSets
from fmrgen.sources.base import SourceConfig


def classify_fixed_sets(
    models: list[NamedClassifier],
    chosen: Mapping[str, FixedSets],
    processes: Processes,
    device: torch.device,
    batch_size: int,
    on_rows: OnRows,
) -> FixedFound:
    """Every classifier on every fixed set, images as the sets hold them. Raises UserError where one can't be used."""
    found = FixedFound([], [])
    for name, config in chosen.items():
        rows = {}
        for (of_set, severity), source in config.sources(name).items():
            called = name if not config.sets else f"{name}: {of_set}" + ("" if severity is None else f"-{severity}")
            try:
                one, tables = _classify(called, source, models, processes, device, batch_size, on_rows)
            except UserError as error:
                raise UserError(f"{called}: {error}") from None
            rows[of_set, severity] = one
            found.predictions.extend(tables)
        found.results.extend(fixed_result(name, model.name, config, rows) for model in models)
    return found


def _classify(
    called: str,
    config: SourceConfig,
    models: list[NamedClassifier],
    processes: Processes,
    device: torch.device,
    batch_size: int,
    on_rows: OnRows,
) -> tuple[SetRows, list[pa.Table]]:
    opened = open_source(config)
    image = to_batch(opened.first()[None], device)
    answering = answering_in(opened.source.labels, models, image, called)
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        on_rows(called, done, len(opened.source))

    said = classify(opened.batches(batch_size), answering, processes, device, count)
    columns = {"id": np.array(opened.ids), "label": np.array(opened.labels)}
    tables = [
        predictions_table(called, name, {"label": columns["label"], "prediction": answers["image"]}, columns)
        for name, answers in said.items()
    ]
    right = {name: answers["image"] == columns["label"] for name, answers in said.items()}
    return SetRows(columns["id"], right), tables
