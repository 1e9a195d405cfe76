"""A gate for releases: is the candidate less robust than the baseline, on the same images?"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fmrgen.apps.explain.betting import ERROR, drops_of
from fmrgen.apps.explain.rows import JudgedImages
from fmrgen.apps.release.conditions import (
    OF_ANOTHER_SEED,
    ORIGINALS,
    NoOracle,
    compare_on_recipe,
    compare_under_changes,
)
from fmrgen.apps.release.sequential_test import Condition, Gate, decide
from fmrgen.apps.release.sequential_test import gate as gate_of_rows
from fmrgen.distributed.launch import Processes
from fmrgen.errors import UserError, option
from fmrgen.jobs.compare import JobProgress, make_splits, own_recipes
from fmrgen.jobs.evaluate import AnySplit
from fmrgen.jobs.verify import load_judges
from fmrgen.metrics.cautions import is_at_chance
from fmrgen.metrics.gradients import has_masked_gradient, has_rough_gradient, may_be_rough
from fmrgen.metrics.rows import as_label
from fmrgen.metrics.summary import Summary
from fmrgen.progress.tqdm_bars import OnRows
from fmrgen.recipe.build import ClassifierAndOracle
from fmrgen.recipe.job import Recipe
from fmrgen.recipe.objects import AnyClassifier, classifier_section
from fmrgen.results.own_splits import rows_of
from fmrgen.split.classify import classify
from fmrgen.split.models import LoadedClassifier
from fmrgen.split.open import open_own_split, open_split
from fmrgen.split.rows import Split
from fmrgen.storage.provenance import Provenance

_SATURATED = 95.0  # percent: accuracy of both above which the images show too little
_ONE_NETWORK = "baseline and candidate are one network: they have the same weights and give the same answers"
_OWN_COLUMNS = ("id", "label", "accepted_labels", "valid", "prediction", "original_prediction")
_ONLY_ROWS = (
    "its images alone show too little to let a candidate pass, and changed originals can't be tried; take a split with "
    "originals, or have one made for each"
)
_NO_COMMON_ORIGINAL = "there is no original that both have right, so changed originals can't be tried"
_FIRST_ROWS = 500  # before the first look; each further look takes as many rows as all before it


def gate(
    split: AnySplit,
    *,
    candidate: AnyClassifier,
    baseline: AnyClassifier,
    max_drop: float,
    batch_size: int = 64,
    seed: int = 0,
    trust: bool = False,
    on_rows: OnRows = lambda name, done, rows: None,
) -> Gate:
    """Return whether the candidate is less accurate than the baseline on perturbed images by more than `max_drop`.

    Both classify the same valid rows of a split in random order, until the verdict is clear. Runs on every process of
    `accelerate launch`, with the same outcome on each.

    Args:
        split: a reference, a parquet file or a dataset, as for `evaluate`; a split on the Hub is downloaded first.
        candidate: a classifier, as for `evaluate`.
        baseline: the one that it must not fall behind.
        max_drop: largest allowed drop in points, from 0 to less than 100.
        batch_size: images per batch of a classifier.
        seed: random seed for the order of the rows.
        trust: let the oracle in the split's recipe, which may be a stranger's, run the code and read the places that it
            names.
        on_rows: called with (split, rows classified, valid rows).

    Returns:
        The verdict and its evidence. A pass is wrong in at most 5 % of cases, a fail in at most 7.5 % (5 % from the
        rows, 2.5 % from changed originals). The verdict is `invalid` if the outputs of either are not finite, or hardly
        better than chance on the originals, and `undecided` if both are the same network.

    Raises:
        UserError: a split or classifier can't be used, with the cure.
    """
    check_max_drop(max_drop)
    processes = Processes()
    device = processes.device
    sections = {"baseline": baseline, "candidate": candidate}
    models = [LoadedClassifier.load(name, section, device) for name, section in sections.items()]
    opened = open_split(split, download=True)
    opened.check_columns()
    if opened.is_moved:
        raise UserError(
            f"{opened.name}: shows each original several times, moved at random, and a gate counts rows as "
            "independent; compare classifiers on it with fmrgen evaluate"
        )
    labels = opened.labels_for([lambda: models[0], lambda: models[1]], device)
    image = opened.first_image(device)
    networks = {model.name: model.answering_in(labels, image, opened.name) for model in models}
    columns = opened.columns(["label", "valid", "accepted_labels"], labels)
    valid = np.arange(len(columns["label"]))
    if "valid" in columns:
        valid = np.flatnonzero(columns["valid"])
    if not len(valid):
        raise UserError(f"{opened.name}: has no valid row to compare on")
    order = np.random.default_rng(seed).permutation(valid)
    right: dict[str, list[np.ndarray]] = {name: [] for name in networks}
    standard: dict[str, float] = {}
    faults: list[str] = []
    one_network = _have_the_same_weights(models)
    for start, stop in itertools.pairwise(_looks(len(order))):
        rows = np.sort(order[start:stop])  # read in the order of the files
        row_labels = columns["label"][rows]
        image_columns = (
            opened.image_columns if start == 0 else ["image"]
        )  # the first originals tell whether the networks work
        predictions = _predict(networks, opened, rows, columns, image_columns, batch_size, processes)
        faults += _faults(predictions, row_labels, len(labels))
        if "original" in image_columns:
            for name in predictions:
                standard[name] = 100 * float((predictions[name]["original"] == row_labels).mean())
        places = np.searchsorted(rows, order[start:stop])
        for name, parts in right.items():
            parts.append(predictions[name]["image"][places] == row_labels[places])
        one_network &= np.array_equal(predictions["baseline"]["image"], predictions["candidate"]["image"])
        baseline_right, candidate_right = np.concatenate(right["baseline"]), np.concatenate(right["candidate"])
        on_rows(opened.name, stop, len(order))
        if faults or one_network or decide(drops_of(baseline_right, candidate_right), max_drop / 100)[0] != "undecided":
            break
    ordered_labels = columns["label"][order[:stop]]
    outcome = gate_of_rows(baseline_right, candidate_right, ordered_labels, list(labels.names), max_drop, len(order))
    notes = [*_own_split_notes(opened, models), *_saturation_notes(outcome)]
    outcome = _with_faults(outcome, faults, one_network, notes, standard)
    if faults or one_network or outcome.verdict == "fail":
        return outcome
    return _with_conditions(outcome, opened, networks, trust, processes)


def _predict(
    networks: Mapping[str, nn.Module],
    opened: Split,
    rows: np.ndarray,
    columns: Mapping[str, np.ndarray],
    image_columns: Sequence[str],
    batch_size: int,
    processes: Processes,
) -> dict[str, dict[str, np.ndarray]]:
    """Return by network and column of images the predictions for `rows`, those that are accepted put as the label."""
    labels = columns["label"][rows]
    accepted = columns["accepted_labels"][rows] if "accepted_labels" in columns else None
    batches = opened.images(image_columns, rows, batch_size)
    answers = classify(batches, networks, labels.__getitem__, processes, processes.device)
    predictions: dict[str, dict[str, np.ndarray]] = {}
    for name, by_column in answers.items():
        predictions[name] = {}
        for column, answer in by_column.items():
            predictions[name][column] = as_label(answer.prediction, labels, accepted)
    return predictions


def _with_faults(
    outcome: Gate, faults: list[str], one_network: bool, notes: list[str], standard: dict[str, float]
) -> Gate:
    """Return the outcome with its notes; `invalid` if there are faults, `undecided` if both are one network."""
    if faults:
        outcome, notes = replace(outcome, verdict="invalid", rows_more=None, classes=[]), faults
    elif one_network:
        outcome, notes = replace(outcome, verdict="undecided", rows_more=None), [_ONE_NETWORK]
    return replace(
        outcome,
        notes=notes,
        baseline_standard=standard.get("baseline"),
        candidate_standard=standard.get("candidate"),
    )


def _with_conditions(
    outcome: Gate, opened: Split, networks: Mapping[str, nn.Module], trust: bool, processes: Processes
) -> Gate:
    """Return the outcome with what changed originals show, for a candidate that has not failed on the rows.

    Images that were made against another network, or against each, show little of what a candidate broke elsewhere: a
    network that fails on moved images may well be right on those. So nothing passes by its rows alone.
    """
    provenance = opened.provenance
    if provenance is None or "original" not in opened.features:
        cure = option("recipe", "gate_on_own_splits")
        lacks = "has no originals (output.keep_original)"
        if provenance is None:
            lacks = "was not made by fmrgen"
        note = f"{opened.name} {lacks}: {_ONLY_ROWS} ({cure})"
        return replace(outcome, verdict="undecided", notes=[*outcome.notes, note])
    margin = OF_ANOTHER_SEED + outcome.max_drop / 100
    work = partial(_conditions, opened, provenance, networks, margin, trust, processes.device)
    conditions, notes = processes.gather(processes.together(work))[0]
    return _with_verdict(outcome, conditions, notes)


def _with_verdict(outcome: Gate, conditions: list[Condition], notes: list[str]) -> Gate:
    """Return the outcome on the rows with the conditions, which can fail a candidate but not make it pass."""
    notes = [*outcome.notes, *notes]
    if not conditions:
        return replace(outcome, verdict="undecided", notes=[*notes, _NO_COMMON_ORIGINAL])
    outcome = replace(outcome, conditions=conditions, notes=notes)
    if outcome.worse:
        return replace(outcome, verdict="fail", rows_more=None)
    return outcome


def _conditions(
    opened: Split,
    provenance: Provenance,
    networks: Mapping[str, nn.Module],
    margin: float,
    trust: bool,
    device: torch.device,
) -> tuple[list[Condition], list[str]]:
    """Return how baseline and candidate fare on changed originals, and notes on that."""
    candidate, baseline = networks["candidate"], networks["baseline"]
    notes = []
    try:
        judges, *_ = load_judges(
            opened.name, provenance, classifier=candidate, may_differ=("classifier",), trust=trust, device=device
        )
    except UserError as error:  # for example, the oracle's model is not on this machine
        judges = ClassifierAndOracle(candidate, NoOracle())
        notes.append(
            f"the split's oracle could not be loaded, so originals were changed half as much and not checked ({error})"
        )
    has_oracle = not isinstance(judges.oracle, NoOracle)
    rows = JudgedImages.read(opened, provenance, judges, ORIGINALS, device)
    return compare_under_changes(rows, baseline, has_oracle=has_oracle, margin=margin, error=ERROR / 2), notes


def gate_on_own_splits(
    recipe: Recipe,
    output: Path,
    *,
    candidate: AnyClassifier,
    baseline: AnyClassifier,
    max_drop: float,
    seed: int = 0,
    job_progress: JobProgress | None = None,
    on_note: Callable[[str], None] = lambda line: None,
) -> Gate:
    """Return the verdict of `gate` on splits made for each of the two, so that both are attacked.

    Each is measured on the images made to fool it, from originals whose image is valid in both splits.

    Args:
        recipe: of the splits, except for the classifier.
        output: the dataset folder, in which the splits are `baseline` and `candidate`; existing files are used.
        candidate: a classifier, as for `evaluate`.
        baseline: the one that it must not fall behind.
        max_drop: in points, from 0 to less than 100.
        seed: of the order of the rows.
        job_progress: returns a progress callback for a split's recipe.
        on_note: called with a line on what was found while splits were made.

    Returns:
        The verdict, as from `gate`; also `invalid` if either gradient is masked, because that network's own images are
        then harmless.

    Raises:
        UserError: what `generate` raises, or no original has a valid image in both.
    """
    check_max_drop(max_drop)
    sections = {"baseline": classifier_section(baseline), "candidate": classifier_section(candidate)}
    columns: dict[str, dict[str, np.ndarray]] = {}
    faults: list[str] = []
    notes: list[str] = []
    standard: dict[str, float] = {}
    digests: set[str | None] = set()
    recipe.check_perturbs()
    recipes = own_recipes(recipe, sections)
    summaries = make_splits(recipes, output, job_progress=job_progress, on_note=on_note)
    for name, split_recipe, summary in zip(sections, recipes, summaries, strict=True):
        opened, provenance = open_own_split(f"{output}:{split_recipe.output.config}/{split_recipe.output.split}")
        columns[name] = opened.columns(_OWN_COLUMNS)
        columns[name].pop("accepted_labels", None)
        predictions = {name: {"original": columns[name]["original_prediction"]}}
        faults += _faults(predictions, columns[name]["label"], len(provenance.labels))
        digests.add(provenance.weights_sha256.classifier)
        if has_masked_gradient(summary, provenance.judged_steps):
            faults.append(_masked_gradient_fault(name, summary))
        if has_rough_gradient(summary, provenance.judged_steps):
            notes.append(_rough_gradient_note(name))
        if summary.standard_accuracy is not None:
            standard[name] = summary.standard_accuracy.value
    valid_ids = [rows["id"][rows["valid"].astype(bool)] for rows in columns.values()]
    ids = np.random.default_rng(seed).permutation(np.intersect1d(*valid_ids))
    if not len(ids):
        raise UserError(f"{output}: no original has a valid image in both splits")
    baseline_rows, candidate_rows = rows_of(columns["baseline"], ids), rows_of(columns["candidate"], ids)
    baseline_right = baseline_rows["prediction"] == baseline_rows["label"]
    candidate_right = candidate_rows["prediction"] == candidate_rows["label"]
    outcome = gate_of_rows(
        baseline_right, candidate_right, baseline_rows["label"], list(provenance.labels), max_drop, len(ids)
    )
    have_equal_rows = all(np.array_equal(values, candidate_rows[name]) for name, values in baseline_rows.items())
    one_network = have_equal_rows and len(digests) == 1 and None not in digests
    outcome = _with_faults(outcome, faults, one_network, notes, standard)
    if faults or one_network or outcome.verdict == "fail":
        return outcome
    processes = Processes()
    margin = OF_ANOTHER_SEED + max_drop / 100
    networks = sections["baseline"], sections["candidate"]
    work = partial(compare_on_recipe, recipe, provenance, *networks, processes.device, margin=margin, error=ERROR / 2)
    return _with_verdict(outcome, processes.gather(processes.together(work))[0], [])


def _masked_gradient_fault(name: str, summary: Summary) -> str:
    verb = "may be" if may_be_rough(summary) else "is"
    return f"the gradient of the {name} {verb} masked: its own images are harmless, however weak it is"


def _rough_gradient_note(name: str) -> str:
    return (
        f"the gradient of the {name} is rough: its own images fool it far more than random steps do, and a "
        "search without gradients (perturb.update=nes) may fool it more"
    )


def check_max_drop(max_drop: float) -> None:
    """Raise UserError unless an accuracy can drop by `max_drop` points."""
    if not 0 <= max_drop < 100:
        raise UserError(f"{option('max-drop', 'max_drop')}: must be points from 0 to less than 100, not {max_drop}")


def _saturation_notes(outcome: Gate) -> list[str]:
    """Return a line if the images hardly fool either, so that they can't show what a candidate lost."""
    if min(outcome.baseline, outcome.candidate) < _SATURATED:
        return []
    return [
        f"both are right on more than {_SATURATED:.0f} % of the images, which hardly fool either: a drop can't show; "
        f"compare them on images made to fool each ({option('recipe', 'gate_on_own_splits')})"
    ]


def _have_the_same_weights(models: list[LoadedClassifier]) -> bool:
    digests = {model.weights_sha256 for model in models}
    return len(digests) == 1 and None not in digests


def _faults(predictions: Mapping[str, Mapping[str, np.ndarray]], labels: np.ndarray, classes: int) -> list[str]:
    """Return a line for each classifier that does not work.

    Either its outputs are not finite, which would count as wrong answers, or it is at chance on the originals.
    """
    faults = []
    for name, by_column in predictions.items():
        not_finite = 0
        for prediction in by_column.values():
            not_finite += int((prediction < 0).sum())  # -1 stands for no answer
        if not_finite:
            faults.append(
                f"the {name} gives outputs that are not finite on {not_finite:,} of "
                f"{len(labels) * len(by_column):,} images: check its weights and its preprocessing"
            )
        elif "original" in by_column and is_at_chance(labels, by_column["original"], classes):
            faults.append(
                f"the {name} is right on {(by_column['original'] == labels).mean():.1%} of {len(labels):,} originals, "
                "hardly better than chance: are its weights loaded, and its classes in the order of the labels?"
            )
    return faults


def _own_split_notes(opened: Split, models: list[LoadedClassifier]) -> list[str]:
    """Return a line on the worth of a verdict if the split was made against one of the two."""
    if opened.provenance is None or opened.provenance.weights_sha256.classifier is None:
        return []
    digest = opened.provenance.weights_sha256.classifier
    attacked = [model.name for model in models if model.has_weights(digest)]
    if len(attacked) != 1:
        return []
    meanings = {
        "baseline": "only the baseline is attacked, so a pass says little",
        "candidate": "only the candidate is attacked, so a fail says little",
    }
    name = attacked[0]
    return [f"the split was made against the {name}: {meanings[name]}; use one made against a third classifier"]


def _looks(rows: int) -> list[int]:
    """Return after how many rows it is tested whether the verdict is clear: 0 first, all last."""
    looks = [0, min(_FIRST_ROWS, rows)]
    while looks[-1] < rows:
        looks.append(min(2 * looks[-1], rows))
    return looks
