"""SA, PA, VR, FMR (paper §3.3) and transfer (App. D) of any classifiers on any splits."""

import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    """Every classifier on every split, with 95 % intervals (paper §3.3, App. D).

    Runs on every process of `accelerate launch`; they share the classifiers out, or where these are fewer the batches
    of each. The result is the same whatever their number, and on each of them.

    Args:
        splits: references (`PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`), parquet files, or opened datasets with columns
            `image` and `label`; one, several, or a mapping that gives them names of your own.
        classifiers: short forms (`timm:resnet50.a1_in1k`), recipes whose classifier is meant, configs, or torch modules
            from images [B, 3, H, W] in [0, 1] to logits [B, K], which are put in evaluation mode; one, several, or a
            mapping that names them. A list under one name is of trainings of one: they are compared as such too.
        source: of the splits; accuracy on its own pixels is measured as well. If a split has no `original` column SA
            comes from it too, and by default from the source in its provenance.
        attack: on pixels, such as `pgd-20@8/255`, `pgd-20-l2@0.5` or `fgsm@8/255`: accuracy on originals that were
            attacked against each classifier is measured as well.
        store: the folder in which answers are kept, and looked for first, or the address of one in an object store
            (`s3://…`); by default fmrgen's cache.
        strict: raise the first error of a classifier; otherwise those that fail are in `failed`, unless all do.
        fixed: sets that are no splits, by recipes (`sets/imagenet-c`) or sections of sources: accuracy on them, as they
            are, is measured as well. With such, there may be no split.
        download: fetch a split on the Hub whole before it is read.
        valid_by: a judge of the splits, or `human`, all persons together: a row is valid where it too sees the label.
        trust: let the source in a provenance run the code and read the places that it names.
        batch_size: images that a classifier gets at once.
        shown: about so many rows of each split are kept for a gallery.
        progress: show a bar for each split.
        on_rows: replaces the bars; called on the first process with (`SPLIT (reading)`, rows done, rows in all or None)
            as a split is decoded, and with (split, images done, images in all) as its classifiers are asked.

    Returns:
        Figures in percent, predictions by row, and samples.

    Raises:
        UserError: a split or classifier can't be used, with the cure.
    """
    way = None if attack is None else attack_of_short_form(attack)
    kept = PredictionStore(store)
    classifiers = _several(classifiers, "classifier")
    splits = [] if fixed and not splits else _several(splits, "split")
    chosen = fixed if isinstance(fixed, Mapping) else load_fixed_sets(fixed)
    processes = Processes()
    device = processes.device
    given = each_training(classifiers if isinstance(classifiers, Mapping) else load_classifiers(classifiers))
    references = list(splits.items()) if isinstance(splits, Mapping) else [(None, split) for split in splits]
    if not processes.is_first:
        processes.gather(None)  # one download for all processes of a machine
    opened = [open_split(split, name=name, download=download) for name, split in references]
    if processes.is_first:
        processes.gather(None)
    for split in opened:
        check_columns(split)
        if [other.name for other in opened].count(split.name) > 1:
            raise UserError(f"split {split.name} is given twice")
        if way is not None and "original" not in split.features:
            raise UserError(f"{option('attack', 'attack')}: {split.name} has no column original to attack")
        if way is not None and "accepted_labels" in split.features:
            raise UserError(
                f"{option('attack', 'attack')}: leads away from one label, and {split.name} has several for a row; "
                "leave it out"
            )

    with TemporaryDirectory(prefix="fmrgen-") as folder, image_bars(progress and on_rows is None) as bars:
        tell = on_rows if on_rows is not None and processes.is_first else bars
        read = []
        for split in opened:
            each = [partial(load_named, name, one, device) for name, (one, _) in given.items()]
            passed = _read_split(split, each, processes, Path(folder), shown, batch_size, source, trust, tell)
            if valid_by is not None:
                passed.valid_by = valid_by
                passed.valid = valid_rows(passed.judges, valid_by, passed.rows.columns, split.name)
            read.append(passed)
        job = _Job(
            given,
            read,
            chosen,
            processes,
            way,
            batch_size,
            kept,
            tell,
        )
        asked, failed = job.run(strict)
    for number, passed in enumerate(read):
        passed.answered = {name: one.splits[number] for name, one in asked.items()}
    fixed_sets = _by_set([one.fixed for one in asked.values()])
    return summarise_evaluation([one.named for one in asked.values()], read, attack, fixed_sets, failed)


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


def _several(given: Any, what: str) -> Mapping[str, Any] | Sequence[str]:
    """One of `what` as several: a reference as a list of it, any other object by that name."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, Mapping | list | tuple):
        return {what: given}
    if not given:
        raise UserError(f"{what}s: give at least one")
    if not isinstance(given, Mapping) and any(not isinstance(one, str) for one in given):
        return {f"{one}" if isinstance(one, str) else f"{what} {number}": one for number, one in enumerate(given, 1)}
    return given


def _read_split(
    split: Split,
    models: Iterable[Callable[[], LoadedClassifier]],
    processes: Processes,
    folder: Path,
    shown: int,
    batch_size: int,
    source: str | SourceConfig | None,
    trust: bool,
    on_rows: OnRows,
) -> Classified:
    """A split with its images decoded, by one process of each machine; `models` load classifiers where it names no
    labels."""
    labels = labels_of(split, models, first_image(split, processes.device))
    judgements, notes = judgements_of(split)
    rows = Reader(split, labels, Sampler(shown, len(labels)), keep_digests=bool(judgements))
    decodes = processes.is_first_here

    def again(name: str) -> Iterator[Batch]:
        return rows.batches_of(np.arange(len(rows.columns["label"])), batch_size, [name])

    readers: dict[str, Callable[[], Iterator[Batch]]] = {name: partial(again, name) for name in rows.images}
    seen = 0

    def count(more: int) -> None:
        nonlocal seen
        seen += more
        on_rows(f"{split.name} (reading)", seen, split.rows)

    with errors_of_one_process():
        images = decode_once(rows.batches(batch_size), readers, folder, processes.device, count) if decodes else {}
    images = _shared(images, readers, processes)
    rows.take(processes.of_first_here(rows.collected))
    passed = Classified(split, labels, rows, images, notes=notes)
    if "original" not in split.features or source is not None:
        readers = source_readers(passed, source, trust, batch_size)
        for read in readers.values():
            with errors_of_one_process():
                found = decode_once(read(), readers, folder, processes.device) if decodes else {}
            passed.images |= _shared(found, readers, processes)
    passed.judges = _judges(rows, judgements)
    for sample in rows.sampler.samples if passed.judges else ():
        sample.columns["judges"] = labels_of_row(passed.judges, sample.row)
    return passed


def _shared(
    images: dict[str, ImageSet], readers: Mapping[str, Callable[[], Iterator[Batch]]], processes: Processes
) -> dict[str, ImageSet]:
    """What one process of each machine has decoded, on all of it. The files go at once: they last as long as they are
    mapped, and a kill leaves none."""
    bare = {name: replace(one, read=None) for name, one in images.items()}
    opened = {name: replace(one.opened(), read=readers[name]) for name, one in processes.of_first_here(bare).items()}
    processes.gather(None)
    for one in images.values():
        if one.path is not None:
            one.path.unlink()
    return opened


def _loaded(name: str, given: AnyClassifier, device: torch.device, group: str | None) -> LoadedClassifier:
    try:
        return load_named(name, given, device, group)
    except (torch.OutOfMemoryError, MemoryError):
        raise UserError(f"classifier {name}: memory is too small for it") from None


@dataclass(frozen=True)
class _Asked:
    """A classifier, and what it says of each split and of fixed sets."""

    named: NamedClassifier
    splits: list[Answered]
    fixed: FixedSetResults


class _Job:
    """Classifiers asked one after another, so that one at a time is in memory.

    Processes share the classifiers out, or where there are fewer of these the batches of each.
    """

    def __init__(
        self,
        given: Mapping[str, tuple[AnyClassifier, str | None]],
        read: list[Classified],
        fixed: Mapping[str, FixedSets],
        processes: Processes,
        attack: Attack | None,
        batch_size: int,
        store: PredictionStore,
        on_rows: OnRows,
    ) -> None:
        self.given, self.read, self.fixed, self.on_rows = given, read, fixed, on_rows
        self.processes, self.attack, self.batch_size, self.store = processes, attack, batch_size, store
        self.shares_models = len(given) >= processes.size
        self.sharing: Sharing = Alone() if self.shares_models else processes
        check_same_on_all(processes.gather({"classifiers": list(given)}))
        self.own = list(given)[processes.rank :: processes.size] if self.shares_models else list(given)
        self._done: Counter[str] = Counter()

    def run(self, strict: bool) -> tuple[dict[str, _Asked], list[FailedClassifier]]:
        """What each classifier says, in the order in which they are given, and those that failed.

        Raises UserError where all fail, or with `strict` where one does.
        """
        asked: dict[str, _Asked] = {}
        failed: dict[str, str] = {}
        for name in self.own:
            try:
                with errors_of_one_process() if self.shares_models else nullcontext():
                    asked[name] = self._ask(name)
            except UserError as error:
                if strict or len(self.given) == 1:
                    raise
                failed[name] = str(error)
            if name in failed:  # whose frames held its network
                gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        if self.shares_models:
            bare = {name: replace(one, named=replace(one.named, section=None)) for name, one in asked.items()}
            shares = self.processes.gather((bare, failed))
            of_all = {name: one for of_process, _ in shares for name, one in of_process.items()}
            failed = {name: why for _, of_process in shares for name, why in of_process.items()}
            sections = {name: section_of(name, self.given[name][0]) for name in of_all}
            asked = {
                name: replace(of_all[name], named=replace(of_all[name].named, section=sections[name]))
                for name in self.given
                if name in of_all
            }
        if not asked:
            raise UserError(next(iter(failed.values())))
        return asked, [FailedClassifier(name, failed[name]) for name in self.given if name in failed]

    def _ask(self, name: str) -> _Asked:
        given, group = self.given[name]
        model = together(self.sharing, lambda: _loaded(name, given, self.processes.device, group))
        what = f"classifier {name}"
        if model.unknown is not None:
            _log.warning(
                "%s: its attribute %s can't be compared between runs, so its answers are not kept", what, model.unknown
            )
        check_same_on_all(self.sharing.gather({f"weights of {what}": model.named.weights_sha256}))
        pending: list[tuple[str, pa.Table, dict[str, Any]]] = []
        answered = []
        for passed in self.read:
            answered.append(ask_of_split(model, passed, self._asking(passed, pending)))
            check_order(passed, model.named, answered[-1])
        beside = classify_fixed_sets(
            model, self.fixed, self.sharing, self.processes.device, self.batch_size, self._count
        )
        check_same_weights(what, model.module, model.named.weights_sha256)
        together(self.sharing, lambda: check_same_answers(model.module))
        for key, table, about in pending:
            self.store.put(key, table, about)
        return _Asked(model.named, answered, beside)

    def _asking(self, passed: Classified, pending: list[tuple[str, pa.Table, dict[str, Any]]]) -> Asking:
        images = sum(len(one.numbers) for one in passed.images.values())
        images += len(passed.images["original"].numbers) if self.attack is not None else 0
        return Asking(
            self.store,
            self.shares_models or self.processes.is_first_here,
            self.sharing,
            self.processes.device,
            self.batch_size,
            self.attack,
            lambda more: self._count(passed.split.name, more, images),
            pending,
        )

    def _count(self, what: str, more: int, images: int) -> None:
        self._done[what] += more
        self.on_rows(what, self._done[what], images * len(self.own))


def _judges(rows: Reader, judgements: list[Judgements]) -> list[Judge]:
    """Who judged the split besides its oracle. Raises UserError where they judged other images."""
    if not judgements or not rows.has_own_classes:
        return []
    columns = rows.columns
    for of_judge in judgements:
        check_of_split(of_judge, rows.opened.name, columns["id"], rows.sha256, len(rows.labels))
    return judges_by_row(judgements, columns, len(rows.labels))


transfer = evaluate  # paper Tables 6, 8 and 10: `matrix` of what it returns
