"""SA, PA, VR, FMR (paper §3.3) and transfer (App. D) of any classifiers on any splits."""

import gc
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fmrgen.distributed.launch import Processes, Sharing, errors_of_one_process
from fmrgen.engine.attacks import Attack, attack_of_short_form
from fmrgen.errors import UserError, option
from fmrgen.evaluation.fixed_sets import classify_fixed_sets
from fmrgen.evaluation.measured import MeasuredSplit, OnSplit
from fmrgen.evaluation.predictor import Predictor
from fmrgen.evaluation.read import read_split
from fmrgen.evaluation.summarise import summarise_evaluation
from fmrgen.progress.bars import progress_shown, report
from fmrgen.recipe.fixed_sets import FixedSets
from fmrgen.recipe.job import load_classifiers, load_fixed_sets
from fmrgen.recipe.objects import AnyClassifier, each_training
from fmrgen.results.evaluation import EvaluatedClassifier, Evaluation, FailedClassifier
from fmrgen.results.fixed_sets import FixedSetResults
from fmrgen.sources.base import SourceConfig
from fmrgen.split.models import LoadedClassifier
from fmrgen.split.open import open_split
from fmrgen.split.rows import Split
from fmrgen.storage.predictions import PredictionStore
from fmrgen.weights.digest import check_same_weights

_log = logging.getLogger(__name__)

# A classifier, with its predictions on each split and its results on fixed sets.
_Measured = tuple[EvaluatedClassifier, list[OnSplit], FixedSetResults]
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
    fixed: Mapping[str, FixedSets] | Sequence[str] = (),
    download: bool = False,
    by: Sequence[str] = (),
    trust: bool = False,
    batch_size: int = 64,
    shown: int = 300,
    progress: bool = True,
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
        source: of the originals of splits without a column `original`, for SA and FMR; by default the one in their
            provenance.
        attack: an attack on pixels, such as `pgd-20@8/255`, `pgd-20-l2@0.5` or `fgsm@8/255`; accuracy on originals
            attacked against each classifier is measured too.
        store: folder of cached predictions, or its address in an object store (`s3://…`); by default fmrgen's cache.
        fixed: labelled sets other than splits, as recipes (`sets/imagenet-c`) or source sections; accuracy on them is
            measured too. With fixed sets, `splits` may be empty.
        download: download a split on the Hub before it is read.
        by: columns of the splits to group rows by, `COLUMN` or `COLUMN:BOUND,…`, as `width:30,60`; figures of each
            group are in `Result.groups`.
        trust: let the source in a provenance run the code and read the places that it names.
        batch_size: images that a classifier gets at once.
        shown: approximate number of rows of each split to keep for a gallery.
        progress: show a bar for each split.

    Returns:
        Figures in percent, predictions by row, and samples; classifiers that failed are in `failed`.

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
    _check_splits(opened, attack_on_pixels)
    if source is not None and all("original" in split.features for split in opened):
        raise UserError(f"{option('source')}: every split has its originals; leave it out")
    groupings = [split.groupings(by) for split in opened]

    with TemporaryDirectory(prefix="fmrgen-") as folder, progress_shown(progress):
        splits_read = []
        load = LoadedClassifier.load
        loaders = [partial(load, name, classifier, processes.device) for name, (classifier, _) in trainings.items()]
        for split, of_split in zip(opened, groupings, strict=True):
            count = partial(_add, Counter(), f"{split.name} (reading)", total=split.rows)
            splits_read.append(
                read_split(split, loaders, processes, Path(folder), shown, batch_size, source, trust, of_split, count)
            )
        job = _Job(trainings, splits_read, fixed_sets, processes, attack_on_pixels, batch_size, prediction_store)
        measured, failed = job.run()
    for number, split_read in enumerate(splits_read):
        split_read.classifiers.update({about.name: on_splits[number] for about, on_splits, _ in measured})
    # Set by set, all classifiers on the first set first.
    results = chain(*zip(*[fixed.results for *_, fixed in measured], strict=True))
    predictions = chain(*zip(*[fixed.predictions for *_, fixed in measured], strict=True))
    on_fixed_sets = FixedSetResults(list(results), list(predictions))
    about = [about for about, *_ in measured]
    return summarise_evaluation(about, splits_read, processes, attack, on_fixed_sets, failed)


def _open_all(splits: Mapping[str, AnySplit] | Sequence[AnySplit], processes: Processes, download: bool) -> list[Split]:
    """Return the splits, opened; what the Hub has to send is fetched once for all processes of a machine."""
    named = splits.items() if isinstance(splits, Mapping) else [(None, split) for split in splits]
    if not processes.is_first:
        processes.gather(None)  # the first process downloads
    opened = [open_split(split, name=name, download=download) for name, split in named]
    if processes.is_first:
        processes.gather(None)
    return opened


def _check_splits(opened: Sequence[Split], attack: Attack | None) -> None:
    """Raise UserError if a split can't be evaluated, is there twice, or can't be attacked."""
    where = option("attack", "attack")
    for split in opened:
        split.check_columns()
        if [other.name for other in opened].count(split.name) > 1:
            raise UserError(f"split {split.name} is given twice")
        if attack is not None and "original" not in split.features:
            raise UserError(f"{where}: {split.name} has no column original to attack")
        if attack is not None and "accepted_labels" in split.features:
            raise UserError(f"{where}: supports one label, and {split.name} has several for a row; leave it out")


def _add(done: Counter[str], name: str, more: int, total: int | None) -> None:
    """Add to the number of what is done under a name, and report that."""
    done[name] += more
    report(name, done[name], total)


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
    return {entry if isinstance(entry, str) else f"{kind} {number}": entry for number, entry in enumerate(value, 1)}


@dataclass
class _Job:
    """Measures classifiers one after another, so that one at a time is in memory.

    Processes share the classifiers out, or where there are fewer of these the batches of each.
    """

    trainings: Mapping[str, tuple[AnyClassifier, str | None]]
    splits: list[MeasuredSplit]
    fixed: Mapping[str, FixedSets]
    processes: Processes
    attack: Attack | None
    batch_size: int
    store: PredictionStore

    def __post_init__(self) -> None:
        self.processes.check_same("classifiers", list(self.trainings))
        self.shares_models = len(self.trainings) >= self.processes.size
        self.sharing = Sharing() if self.shares_models else self.processes
        self.own = list(self.trainings)
        if self.shares_models:
            self.own = self.own[self.processes.rank :: self.processes.size]
        self._done: Counter[str] = Counter()

    def run(self) -> tuple[list[_Measured], list[FailedClassifier]]:
        """Return the measured classifiers and those that failed, each in the order in which they were given.

        Raises UserError if all fail.
        """
        measured: dict[str, _Measured] = {}
        failed: dict[str, str] = {}
        for name in self.own:
            try:
                with errors_of_one_process() if self.shares_models else nullcontext():
                    measured[name] = self._measure(name)
            except UserError as error:
                if len(self.trainings) == 1:
                    raise
                failed[name] = str(error)
            if name in failed:  # whose frames held its network
                gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        if self.shares_models:
            for measured_there, failed_there in self.processes.gather((measured, failed)):
                measured |= measured_there
                failed |= failed_there
        if not measured:
            raise UserError(next(iter(failed.values())))
        in_order = [measured[name] for name in self.trainings if name in measured]
        return in_order, [FailedClassifier(name, failed[name]) for name in self.trainings if name in failed]

    def _measure(self, name: str) -> _Measured:
        classifier, group = self.trainings[name]
        device, sharing = self.processes.device, self.sharing
        title = f"classifier {name}"

        def load() -> LoadedClassifier:
            try:
                return LoadedClassifier.load(name, classifier, device, group)
            except (torch.OutOfMemoryError, MemoryError):
                raise UserError(f"{title}: does not fit in memory") from None

        model = sharing.together(load)
        if model.identity.unknown is not None:
            _log.warning("%s: can't be hashed (%s), so its predictions are not kept", title, model.identity.unknown)
        sharing.check_same(f"weights of {title}", model.weights_sha256)
        predictor = Predictor(
            model,
            self.store,
            puts=self.shares_models or self.processes.is_first_here,
            sharing=sharing,
            device=device,
            batch_size=self.batch_size,
            attack=self.attack,
        )
        on_splits = []
        for split in self.splits:
            images = sum(len(of_kind.numbers) for of_kind in split.images.values())
            if self.attack is not None:
                images += len(split.images["original"].numbers)
            on_splits.append(predictor.on_split(split, partial(self._count, split.name, images=images)))
        fixed = classify_fixed_sets(model, self.fixed, sharing, device, self.batch_size, self._count)
        check_same_weights(title, model.module, model.weights_sha256)
        predictor.keep()
        section = None if model.section is None else model.section.model_dump(mode="json", exclude_none=True)
        about = EvaluatedClassifier(model.name, section, model.weights_sha256, model.training_of)
        return about, on_splits, fixed

    def _count(self, name: str, more: int, images: int) -> None:
        _add(self._done, name, more, images * len(self.own))
