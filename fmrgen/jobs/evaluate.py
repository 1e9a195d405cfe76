"""SA, PA, VR, FMR (paper §3.3) and transfer (App. D) of any classifiers on any splits."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from fmrgen.distributed.launch import Processes, check_same_on_all
from fmrgen.engine.attacks import attack_of_short_form
from fmrgen.errors import UserError
from fmrgen.evaluation.attacked import classify_attacked
from fmrgen.evaluation.classify import classify
from fmrgen.evaluation.classify_fixed_sets import classify_fixed_sets
from fmrgen.evaluation.judged import Judge, judges_by_row, labels_of_row, valid_rows
from fmrgen.evaluation.models import answering_in, first_image, labels_of, named_model
from fmrgen.evaluation.originals import classify_source
from fmrgen.evaluation.samples import Sampler
from fmrgen.evaluation.stream import ClassifiedSplit, NamedClassifier, SplitRows, check_columns
from fmrgen.evaluation.summarise import summarise_evaluation
from fmrgen.jobs.evaluation import Evaluation
from fmrgen.progress.tqdm_bars import OnRows, image_bars
from fmrgen.recipe.fixed_sets import FixedSets
from fmrgen.recipe.job import load_classifiers, load_fixed_sets
from fmrgen.recipe.objects import AnyClassifier, each_training
from fmrgen.sources.base import SourceConfig
from fmrgen.storage.judgements import Judgements, check_of_split, judgements_of
from fmrgen.storage.open import OpenedSplit, open_split
from fmrgen.weights.digest import check_same_weights, weights_sha256

AnySplit = Any  # `datasets` has no types
"""A split: a reference `PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]` (what `generate` returns is one), a parquet file, or a
`datasets.Dataset` or `IterableDataset` with columns `image` and `label`."""


def evaluate(
    splits: Mapping[str, AnySplit] | Sequence[str] | AnySplit,
    classifiers: Mapping[str, AnyClassifier | Sequence[AnyClassifier]] | Sequence[str] | AnyClassifier,
    *,
    source: str | SourceConfig | None = None,
    attack: str | None = None,
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

    Runs on every process of `accelerate launch` and shares the batches out; the result is the same whatever their
    number, and on each of them.

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
        fixed: sets that are no splits, by recipes (`sets/imagenet-c`) or sections of sources: accuracy on them, as they
            are, is measured as well. With such, there may be no split.
        download: fetch a split on the Hub whole before it is read.
        valid_by: a judge of the splits, or `human`, all persons together: a row is valid where it too sees the label.
        trust: let the source in a provenance run the code and read the places that it names.
        batch_size: images that a classifier gets at once.
        shown: about so many rows of each split are kept for a gallery.
        progress: show a bar for each split.
        on_rows: replaces the bars; called with (split, rows done, rows in all or None), on the first process.

    Returns:
        Figures in percent, predictions by row, and samples.

    Raises:
        UserError: a split or classifier can't be used, with the cure.
    """
    way = None if attack is None else attack_of_short_form(attack)
    classifiers = _several(classifiers, "classifier")
    splits = [] if fixed and not splits else _several(splits, "split")
    chosen = fixed if isinstance(fixed, Mapping) else load_fixed_sets(fixed)
    processes = Processes()
    device = processes.device
    named = classifiers if isinstance(classifiers, Mapping) else load_classifiers(classifiers)
    references = list(splits.items()) if isinstance(splits, Mapping) else [(None, split) for split in splits]
    models = [
        replace(named_model(name, given, device), training_of=group)
        for name, (given, group) in each_training(named).items()
    ]
    loaded = {f"weights of classifier {model.name}": weights_sha256(model.module) for model in models}
    check_same_on_all(processes.gather(loaded))
    if not processes.is_first:
        processes.gather(None)  # one download for all processes of a machine
    opened = [open_split(split, name=name, download=download) for name, split in references]
    if processes.is_first:
        processes.gather(None)
    for split in opened:
        check_columns(split)
        if [other.name for other in opened].count(split.name) > 1:
            raise UserError(f"split {split.name} is given twice")
    evaluated = []
    with image_bars(progress and on_rows is None) as bars:
        tell = on_rows if on_rows is not None and processes.is_first else bars
        for split in opened:
            passed = _classify_split(split, models, processes, device, shown, batch_size, tell)
            if valid_by is not None:
                passed.valid_by = valid_by
                passed.valid = valid_rows(passed.judges, valid_by, passed.rows.columns, split.name)
            if "original" not in split.features or source is not None:
                classify_source(passed, processes, device, source, trust, batch_size)
            if way is not None:
                classify_attacked(passed, processes, device, way, batch_size)
            evaluated.append(passed)
        beside = classify_fixed_sets(models, chosen, processes, device, batch_size, tell)
    for model in models:
        what = f"classifier {model.name}"
        check_same_weights(what, model.module, loaded[f"weights of {what}"])
    found = summarise_evaluation(models, evaluated, attack, beside)
    return Evaluation(**{field.name: getattr(found, field.name) for field in fields(found)})


def _several(given: Any, what: str) -> Mapping[str, Any] | Sequence[str]:
    """One of `what` as several: a reference as a list of it, any other object by that name."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, Mapping | list | tuple):
        return {what: given}
    if not given:
        raise UserError(f"{what}s: give at least one")
    if not isinstance(given, Mapping) and any(not isinstance(one, str) for one in given):
        return {str(one) if isinstance(one, str) else f"{what} {number}": one for number, one in enumerate(given, 1)}
    return given


def _classify_split(
    split: OpenedSplit,
    models: list[NamedClassifier],
    processes: Processes,
    device: torch.device,
    shown: int,
    batch_size: int,
    on_rows: OnRows,
) -> ClassifiedSplit:
    image = first_image(split, device)
    labels = labels_of(split, models, image)
    answering = answering_in(labels, models, image, split.name)
    judgements, notes = judgements_of(split)
    rows = SplitRows(split, labels, Sampler(shown, len(labels)), keep_digests=bool(judgements))
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        on_rows(split.name, done, split.rows)

    predictions = classify(rows.batches(batch_size), answering, processes, device, count)
    judges = _judges(rows, judgements)
    for sample in rows.sampler.samples if judges else ():
        sample.columns["judges"] = labels_of_row(judges, sample.row)
    size = (image.shape[2], image.shape[3])
    return ClassifiedSplit(split, labels, rows, answering, predictions, size, judges, notes=notes)


def _judges(rows: SplitRows, judgements: list[Judgements]) -> list[Judge]:
    """Who judged the split besides its oracle. Raises UserError where they judged other images."""
    if not judgements or not rows.has_own_classes:
        return []
    columns = rows.columns
    for of_judge in judgements:
        check_of_split(of_judge, rows.opened.name, columns["id"], rows.sha256, len(rows.labels))
    return judges_by_row(judgements, columns, len(rows.labels))


transfer = evaluate  # paper Tables 6, 8 and 10: `matrix` of what it returns
