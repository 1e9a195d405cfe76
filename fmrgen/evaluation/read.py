"""A split read for its classifiers: in one pass, decoded once, by one process of each machine."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from fmrgen.distributed.launch import Processes, errors_of_one_process
from fmrgen.errors import UserError
from fmrgen.evaluation.images import CachedImages, decode_once
from fmrgen.evaluation.measured import MeasuredSplit
from fmrgen.evaluation.originals import originals_reader
from fmrgen.metrics.grouping import Grouping
from fmrgen.sources.base import SourceConfig
from fmrgen.split.classify import Batch
from fmrgen.split.judged import judges_by_row, labels_of_row
from fmrgen.split.judgements import check_of_split, judgements_of
from fmrgen.split.models import LoadedClassifier
from fmrgen.split.rows import Split, joined_columns
from fmrgen.split.sampler import Sampler


def read_split(
    split: Split,
    loaders: Sequence[Callable[[], LoadedClassifier]],
    processes: Processes,
    folder: Path,
    shown: int,
    batch_size: int,
    source: str | SourceConfig | None,
    trust: bool,
    groupings: Sequence[Grouping],
    on_rows: Callable[[int], None],
) -> MeasuredSplit:
    """Return a split with its images decoded, by one process of each machine.

    One of the classifiers that `loaders` load names the labels if the split does not. Decoded images go to `folder`;
    about `shown` rows are taken for a gallery. Where the split has no originals, they are from `source` instead of the
    recorded one, of which `trust` says whether it may run code. `on_rows` is called with a number of rows as they go
    by. Raises UserError if there are too many groups, or judges saw other images.
    """
    labels = split.labels_for(loaders, processes.device)
    _, notes = split.known_columns()
    judgements, judgement_notes = judgements_of(split)
    parts: list[dict[str, np.ndarray]] = []
    sampler = Sampler(shown, len(labels))
    digests: dict[str, list[str]] = {name: [] for name in split.image_columns if judgements}  # of the stored images
    values: dict[str, list[Any]] = {grouping.column: [] for grouping in groupings}

    def batches() -> Iterator[Batch]:
        """Yield the images of all rows, and collect everything else on the way."""
        for part in split.parts(batch_size, labels, [*split.image_columns, *values]):
            parts.append(part.columns)
            sampler.add(part, split.image_of)
            for name in digests:
                digests[name] += [sha256(stored["bytes"]).hexdigest() for stored in part.table[name].to_pylist()]
            for name in values:
                values[name] += part.table[name].to_pylist()
            rows = np.arange(part.first_row, part.first_row + len(part.table))
            yield Batch(rows, partial(split.decode_images, part.table.select(split.image_columns), rows))

    readers = {name: partial(split.images, [name], size=batch_size) for name in split.image_columns}
    images = _decoded(batches(), readers, folder, processes, on_rows)
    parts, digests, values, samples = processes.of_first_here((parts, digests, values, sampler.samples))
    columns = joined_columns(split.name, parts)
    measured = MeasuredSplit(split, labels, columns, images, samples, [*notes, *judgement_notes])
    for grouping in groupings:
        column, groups = grouping.column, grouping.groups(values[grouping.column])
        if len(groups) > 100:
            raise UserError(
                f"by: the column {column} of {split.name} has {len(groups):,} values; name the bounds of groups, as in "
                f"{column}:30,60"
            )
        measured.groups[column] = groups
    if "original" not in split.features:
        read = originals_reader(measured, source, trust, batch_size)
        if read is not None:
            measured.images |= _decoded(read(), {"original": read}, folder, processes, lambda rows: None)
    if judgements and split.has_own_classes:
        for of_judge in judgements:
            check_of_split(of_judge, split.name, columns["id"], digests, len(labels))
        measured.judges = judges_by_row(judgements, columns)
        for sample in samples:
            sample.columns["later_judges"] = labels_of_row(measured.judges, sample.row)
    return measured


def _decoded(
    batches: Iterator[Batch],
    readers: Mapping[str, Callable[[], Iterator[Batch]]],
    folder: Path,
    processes: Processes,
    on_rows: Callable[[int], None],
) -> dict[str, CachedImages]:
    """Return the images of `batches`, which one process of each machine decodes, on all processes of it.

    The files are deleted at once: they last as long as they are mapped, and a kill leaves none.
    """
    images: dict[str, CachedImages] = {}
    with errors_of_one_process():
        if processes.is_first_here:
            images = decode_once(batches, folder, processes.device, on_rows)
    shared = {}
    for name, image_set in processes.of_first_here(images).items():
        shared[name] = image_set.opened(readers[name])
    processes.gather(None)
    for image_set in images.values():
        if image_set.path is not None:
            image_set.path.unlink()
    return shared
