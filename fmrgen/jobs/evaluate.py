"""SA, PA, VR, FMR (paper §3.3) and transfer (App. D) of any classifiers on any splits."""

import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from fmrgen.classifiers.base import check_same_answers
from fmrgen.distributed.launch import (
    Alone,
    Processes,
    Sharing,
    check_same_on_all,
    errors_of_one_process,
    together,
)
from fmrgen.engine.attacks import Attack, attack_of_short_form
from fmrgen.errors import UserError, option
from fmrgen.evaluation.fixed_sets import classify_fixed_sets
from fmrgen.evaluation.summarise import check_order, summarise_evaluation
from fmrgen.progress.tqdm_bars import OnRows, image_bars
from fmrgen.recipe.fixed_sets import FixedSets
from fmrgen.recipe.job import load_classifiers, load_fixed_sets
from fmrgen.recipe.objects import AnyClassifier, each_training
from fmrgen.results.evaluation import Evaluation, FailedClassifier
from fmrgen.results.fixed_sets import FixedSetResults
from fmrgen.results.samples import Sampler
from fmrgen.sources.base import SourceConfig
from fmrgen.split.ask import Asking, ask_of_split
from fmrgen.split.classify import Batch
from fmrgen.split.images import ImageSet, decode_once
from fmrgen.split.judged import Judge, judges_by_row, labels_of_row, valid_rows
from fmrgen.split.judgements import Judgements, check_of_split, judgements_of
from fmrgen.split.models import LoadedClassifier, first_image, labels_of, load_named, section_of
from fmrgen.split.open import Split, open_split
from fmrgen.split.originals import source_readers
from fmrgen.split.rows import Answered, Classified, NamedClassifier, Reader, check_columns
from fmrgen.storage.predictions import PredictionStore
from fmrgen.weights.digest import check_same_weights

_log = logging.getLogger(__name__)

AnySplit = Any  # `datasets` has no types
"""A split: a reference `PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]` (what `generate` returns is one), a parquet file, or a
`datasets.Dataset` or `IterableDataset` with columns `image` and `label`."""


def evaluate(
    splits: Mapping[str, AnySplit] | Sequence[str] | AnySplit,
    classifiers: Mapping[str, AnyClassifier | Sequence[AnyClassifier]] | Sequence[str] | AnyClassifier,
    *,
    source: str | SourceConfig | None = None,
    attack: str | None = None,
    store: str | Path | None = None,
    strict: bool = False,
    fixed: Mapping[str, FixedSets] | Sequence[str] = (),
    download: bool = False,
    valid_by: str | None = None,
    trust: bool = False,
    batch_size: int = 64,
    shown: int = 240,
    progress: bool = True,
    on_rows: OnRows | None = None,
) -> Evaluation:
    """Return the results of every classifier on every split, with 95 % intervals (paper §3.3, App. D).

    Runs on every process of `accelerate launch`. The processes share the classifiers, or the batches of each if there
    are fewer. Every process gets the same result, whatever their number.

    Args:
        splits: references (`PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`), parquet files, or opened datasets with columns
            `image` and `label`; one, several, or a mapping that gives them names of your own.
        classifiers: short forms (`timm:resnet50.a1_in1k`), recipes whose classifier is meant, configs, or torch modules
            from images [B, 3, H, W] in [0, 1] to logits [B, K], which are put in evaluation mode; one, several, or a
            mapping that names them. A list under one name is of trainings of one: they are compared as such too.
        source: the splits' source; accuracy on its images at their own size is measured too. It also gives SA for
            splits without an `original` column; by default the source in their provenance does.
        attack: an attack on pixels, such as `pgd-20@8/255`, `pgd-20-l2@0.5` or `fgsm@8/255`; accuracy on originals
            attacked against each classifier is measured too.
        store: folder of cached predictions, or its address in an object store (`s3://…`); by default fmrgen's cache.
        strict: raise the first error of a classifier. Otherwise classifiers that fail are in `failed`, unless all do.
        fixed: labelled sets other than splits, as recipes (`sets/imagenet-c`) or source sections; accuracy on them is
            measured too. With fixed sets, `splits` may be empty.
        download: download a split on the Hub before it is read.
        valid_by: a judge of the splits, or `human` for all persons together, who must also see the label in valid rows.
        trust: let the source in a provenance run the code and read the places that it names.
        batch_size: images that a classifier gets at once.
        shown: approximate number of rows of each split to keep for a gallery.
        progress: show a bar for each split.
        on_rows: replaces the bars; called on the first process with (`SPLIT (reading)`, rows done, rows in all or None)
            while a split is decoded, and with (split, images done, images in all) while its classifiers run.

    Returns:
        Figures in percent, predictions by row, and samples.

    Raises:
        UserError: a split or classifier can't be used, with the cure.
    """
    attack_on_pixels = None if attack is None else attack_of_short_form(attack)
    prediction_store = PredictionStore(store)
    classifiers = _several(classifiers, "classifier")
    splits = [] if fixed and not splits else _several(splits, "split")
    fixed_sets = fixed if isinstance(fixed, Mapping) else load_fixed_sets(fixed)
    processes = Processes()
    trainings = each_training(classifiers if isinstance(classifiers, Mapping) else load_classifiers(classifiers))
    opened = _open_all(splits, processes, download)
    for split in opened:
        _check_split(split, opened, attack_on_pixels)

    with TemporaryDirectory(prefix="fmrgen-") as folder, image_bars(progress and on_rows is None) as bars:
        report = on_rows if on_rows is not None and processes.is_first else bars
        classified = []
        for split in opened:
            loaders = []
            for name, (classifier, _) in trainings.items():
                loaders.append(partial(load_named, name, classifier, processes.device))
            decoded = _read_split(split, loaders, processes, Path(folder), shown, batch_size, source, trust, report)
            if valid_by is not None:
                decoded.valid_by = valid_by
                decoded.valid = valid_rows(decoded.judges, valid_by, decoded.rows.columns, split.name)
            classified.append(decoded)
        job = _Job(trainings, classified, fixed_sets, processes, attack_on_pixels, batch_size, prediction_store, report)
        measured, failed = job.run(strict)
    for number, decoded in enumerate(classified):
        decoded.answered = {name: classifier.splits[number] for name, classifier in measured.items()}
    on_fixed_sets = _by_set([classifier.fixed for classifier in measured.values()])
    names = [classifier.named for classifier in measured.values()]
    return summarise_evaluation(names, classified, attack, on_fixed_sets, failed)


def _open_all(splits: Mapping[str, AnySplit] | Sequence[AnySplit], processes: Processes, download: bool) -> list[Split]:
    """Return the splits, opened; what the Hub has to send is fetched once for all processes of a machine."""
    named = splits.items() if isinstance(splits, Mapping) else [(None, split) for split in splits]
    if not processes.is_first:
        processes.gather(None)  # the first process downloads
    opened = [open_split(split, name=name, download=download) for name, split in named]
    if processes.is_first:
        processes.gather(None)
    return opened


def _check_split(split: Split, opened: Sequence[Split], attack: Attack | None) -> None:
    """Raise UserError if a split can't be evaluated, is there twice, or can't be attacked."""
    check_columns(split)
    if [other.name for other in opened].count(split.name) > 1:
        raise UserError(f"split {split.name} is given twice")
    if attack is None:
        return
    if "original" not in split.features:
        raise UserError(f"{option('attack', 'attack')}: {split.name} has no column original to attack")
    if "accepted_labels" in split.features:
        raise UserError(
            f"{option('attack', 'attack')}: leads away from one label, and {split.name} has several for a row; "
            "leave it out"
        )


def _by_set(of_classifiers: Sequence[FixedSetResults]) -> FixedSetResults:
    """Return the results of all classifiers set by set, all classifiers on the first set first."""
    by_set = FixedSetResults([], [])
    if not of_classifiers:
        return by_set
    for number in range(len(of_classifiers[0].results)):
        by_set.results.extend(classifier.results[number] for classifier in of_classifiers)
    for number in range(len(of_classifiers[0].predictions)):
        by_set.predictions.extend(classifier.predictions[number] for classifier in of_classifiers)
    return by_set


def _several(value: Any, kind: str) -> Mapping[str, Any] | Sequence[str]:
    """Return what was passed as `kind`s, by name or as a list of references: a reference alone makes a list, any other
    object alone is called `kind`."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Mapping | list | tuple):
        return {kind: value}
    if not value:
        raise UserError(f"{kind}s: give at least one")
    if isinstance(value, Mapping) or all(isinstance(entry, str) for entry in value):
        return value
    by_name = {}
    for number, entry in enumerate(value, 1):
        name = f"{entry}" if isinstance(entry, str) else f"{kind} {number}"
        by_name[name] = entry
    return by_name


def _read_split(
    split: Split,
    loaders: Sequence[Callable[[], LoadedClassifier]],
    processes: Processes,
    folder: Path,
    shown: int,
    batch_size: int,
    source: str | SourceConfig | None,
    trust: bool,
    on_rows: OnRows,
) -> Classified:
    """Return a split with its images decoded, by one process of each machine.

    Args:
        split: to read.
        loaders: load the classifiers, one of which names the labels if the split does not.
        processes: that evaluate together.
        folder: for decoded images.
        shown: rows for a gallery, about.
        batch_size: images decoded together.
        source: of originals, instead of the recorded one.
        trust: whether the recorded source may run code.
        on_rows: called with rows that are read.
    """
    labels = labels_of(split, loaders, first_image(split, processes.device))
    judgements, notes = judgements_of(split)
    rows = Reader(split, labels, Sampler(shown, len(labels)), keep_digests=bool(judgements))
    decodes = processes.is_first_here

    def read_again(name: str) -> Iterator[Batch]:
        return rows.batches_of(np.arange(len(rows.columns["label"])), batch_size, [name])

    rows_read = 0

    def count(more: int) -> None:
        nonlocal rows_read
        rows_read += more
        on_rows(f"{split.name} (reading)", rows_read, split.rows)

    readers: dict[str, Callable[[], Iterator[Batch]]] = {}
    for name in rows.images:
        readers[name] = partial(read_again, name)
    images: dict[str, ImageSet] = {}
    with errors_of_one_process():
        if decodes:
            images = decode_once(rows.batches(batch_size), readers, folder, processes.device, count)
    images = _shared(images, readers, processes)
    rows.take(processes.of_first_here(rows.collected))
    classified = Classified(split, labels, rows, images, notes=notes)
    if "original" not in split.features or source is not None:
        readers = source_readers(classified, source, trust, batch_size)
        for read in readers.values():
            originals: dict[str, ImageSet] = {}
            with errors_of_one_process():
                if decodes:
                    originals = decode_once(read(), readers, folder, processes.device)
            classified.images |= _shared(originals, readers, processes)
    classified.judges = _judges(rows, judgements)
    if classified.judges:
        for sample in rows.sampler.samples:
            sample.columns["judges"] = labels_of_row(classified.judges, sample.row)
    return classified


def _shared(
    images: Mapping[str, ImageSet], readers: Mapping[str, Callable[[], Iterator[Batch]]], processes: Processes
) -> dict[str, ImageSet]:
    """Return what one process of each machine has decoded, on all processes of it.

    The files are deleted at once: they last as long as they are mapped, and a kill leaves none.
    """
    bare = {name: replace(image_set, read=None) for name, image_set in images.items()}
    shared = {}
    for name, image_set in processes.of_first_here(bare).items():
        shared[name] = replace(image_set.opened(), read=readers[name])
    processes.gather(None)
    for image_set in images.values():
        if image_set.path is not None:
            image_set.path.unlink()
    return shared


def _load(name: str, classifier: AnyClassifier, device: torch.device, group: str | None) -> LoadedClassifier:
    try:
        return load_named(name, classifier, device, group)
    except (torch.OutOfMemoryError, MemoryError):
        raise UserError(f"classifier {name}: memory is too small for it") from None


@dataclass(frozen=True)
class _Measured:
    """A classifier, with its answers on each split and its results on fixed sets."""

    named: NamedClassifier
    splits: list[Answered]
    fixed: FixedSetResults


class _Job:
    """Measures classifiers one after another, so that one at a time is in memory.

    Processes share the classifiers out, or where there are fewer of these the batches of each.
    """

    def __init__(
        self,
        trainings: Mapping[str, tuple[AnyClassifier, str | None]],
        classified: list[Classified],
        fixed: Mapping[str, FixedSets],
        processes: Processes,
        attack: Attack | None,
        batch_size: int,
        store: PredictionStore,
        on_rows: OnRows,
    ) -> None:
        self.trainings, self.classified, self.fixed, self.on_rows = trainings, classified, fixed, on_rows
        self.processes, self.attack, self.batch_size, self.store = processes, attack, batch_size, store
        self.shares_models = len(trainings) >= processes.size
        self.sharing: Sharing = Alone() if self.shares_models else processes
        check_same_on_all(processes.gather({"classifiers": list(trainings)}))
        self.own = list(trainings)
        if self.shares_models:
            self.own = self.own[processes.rank :: processes.size]
        self._done: Counter[str] = Counter()

    def run(self, strict: bool) -> tuple[dict[str, _Measured], list[FailedClassifier]]:
        """Return the measured classifiers by name, in the order in which they were given, and those that failed.

        Raises UserError if all fail, or with `strict` if one does.
        """
        measured: dict[str, _Measured] = {}
        failed: dict[str, str] = {}
        for name in self.own:
            try:
                with errors_of_one_process() if self.shares_models else nullcontext():
                    measured[name] = self._measure(name)
            except UserError as error:
                if strict or len(self.trainings) == 1:
                    raise
                failed[name] = str(error)
            if name in failed:  # whose frames held its network
                gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        if self.shares_models:
            measured, failed = self._gather(measured, failed)
        if not measured:
            raise UserError(next(iter(failed.values())))
        return measured, [FailedClassifier(name, failed[name]) for name in self.trainings if name in failed]

    def _gather(
        self, measured: Mapping[str, _Measured], failed: Mapping[str, str]
    ) -> tuple[dict[str, _Measured], dict[str, str]]:
        """Return what all processes measured, and what failed in any; sections stay in their process, as they may hold
        networks."""
        bare = {}
        for name, classifier in measured.items():
            bare[name] = replace(classifier, named=replace(classifier.named, section=None))
        everywhere: dict[str, _Measured] = {}
        failed_anywhere: dict[str, str] = {}
        for measured_there, failed_there in self.processes.gather((bare, dict(failed))):
            everywhere |= measured_there
            failed_anywhere |= failed_there
        in_order = {}
        for name, (reference, _) in self.trainings.items():
            if name in everywhere:
                named = replace(everywhere[name].named, section=section_of(name, reference))
                in_order[name] = replace(everywhere[name], named=named)
        return in_order, failed_anywhere

    def _measure(self, name: str) -> _Measured:
        classifier, group = self.trainings[name]
        model = together(self.sharing, lambda: _load(name, classifier, self.processes.device, group))
        title = f"classifier {name}"
        if model.unknown is not None:
            _log.warning(
                "%s: its attribute %s can't be compared between runs, so its answers are not kept", title, model.unknown
            )
        check_same_on_all(self.sharing.gather({f"weights of {title}": model.named.weights_sha256}))
        pending: list[tuple[str, pa.Table, dict[str, Any]]] = []
        answers = []
        for classified in self.classified:
            answers_on_split = ask_of_split(model, classified, self._asking(classified, pending))
            check_order(classified, model.named, answers_on_split)
            answers.append(answers_on_split)
        fixed = classify_fixed_sets(
            model, self.fixed, self.sharing, self.processes.device, self.batch_size, self._count
        )
        check_same_weights(title, model.module, model.named.weights_sha256)
        together(self.sharing, lambda: check_same_answers(model.module))
        for key, table, metadata in pending:
            self.store.put(key, table, metadata)
        return _Measured(model.named, answers, fixed)

    def _asking(self, classified: Classified, pending: list[tuple[str, pa.Table, dict[str, Any]]]) -> Asking:
        images = sum(len(image_set.numbers) for image_set in classified.images.values())
        if self.attack is not None:
            images += len(classified.images["original"].numbers)
        return Asking(
            self.store,
            self.shares_models or self.processes.is_first_here,
            self.sharing,
            self.processes.device,
            self.batch_size,
            self.attack,
            lambda more: self._count(classified.split.name, more, images),
            pending,
        )

    def _count(self, name: str, more: int, images: int) -> None:
        self._done[name] += more
        self.on_rows(name, self._done[name], images * len(self.own))


def _judges(rows: Reader, judgements: Sequence[Judgements]) -> list[Judge]:
    """Return who judged the split besides its oracle. Raises UserError if they judged other images."""
    if not judgements or not rows.has_own_classes:
        return []
    columns = rows.columns
    for of_judge in judgements:
        check_of_split(of_judge, rows.opened.name, columns["id"], rows.sha256, len(rows.labels))
    return judges_by_row(judgements, columns, len(rows.labels))
