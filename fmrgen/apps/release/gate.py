"""A gate for releases: is the candidate less robust than the baseline, on the same images?"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fmrgen.apps.explain.rows import JudgedImages
from fmrgen.apps.release.conditions import (
    OF_ANOTHER_SEED,
    ORIGINALS,
    NoOracle,
    compare_on_recipe,
    compare_under_changes,
)
from fmrgen.classifiers.base import has_weights
from fmrgen.distributed.launch import Processes, together
from fmrgen.errors import UserError, option
from fmrgen.jobs.compare import JobProgress, no_progress, own_recipes
from fmrgen.jobs.evaluate import AnySplit
from fmrgen.jobs.generate import make_split
from fmrgen.jobs.verify import load_judges
from fmrgen.metrics.cautions import has_masked_gradient, has_rough_gradient, is_at_chance
from fmrgen.metrics.rows import accepted_as_label, as_label
from fmrgen.metrics.sequential_test import ERROR, Condition, Gate, decide, drops_of
from fmrgen.metrics.sequential_test import gate as gate_of_rows
from fmrgen.progress.tqdm_bars import OnRows
from fmrgen.recipe.build import ClassifierAndOracle
from fmrgen.recipe.job import Recipe
from fmrgen.recipe.objects import AnyClassifier, classifier_section
from fmrgen.results.own_splits import rows_of
from fmrgen.results.samples import Sampler
from fmrgen.split.classify import classify
from fmrgen.split.models import LoadedClassifier, answering_in, first_image, labels_of, load_named
from fmrgen.split.open import Split, open_split
from fmrgen.split.rows import Reader, check_columns
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance, read_provenance
from fmrgen.storage.shards import SplitFolder

_SATURATED = 95.0  # percent
_ONE_NETWORK = "baseline and candidate are one network: they have the same weights and give the same answers"
_OF_OWN = ("id", "label", "accepted_labels", "valid", "prediction", "original_prediction")  # columns
_ONLY_ROWS = (
    "its images alone show too little to let a candidate pass, and changed originals can't be tried; take a split with "
    "originals, or have one made for each"
)
_NO_COMMON_ORIGINAL = "there is no original that both have right, so changed originals can't be tried"
_FIRST = 500  # rows of the first look; each further one takes as many as all before it


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
    """Whether the candidate's accuracy on a split's valid perturbed images is lower by more than `max_drop` points.

    Both classify the same rows in a random order, and only as many as it takes. Runs on every process of `accelerate
    launch`, with the same outcome on each.

    Args:
        split: a reference, a parquet file or a dataset, as for `evaluate`; it is read from local files, and fetched
            first where it is on the Hub.
        candidate: a classifier, as for `evaluate`.
        baseline: the one that it must not fall behind.
        max_drop: in points, from 0 to less than 100.
        batch_size: images that a classifier gets at once.
        seed: of the order of the rows.
        trust: let the oracle in the split's recipe, which may be a stranger's, run the code and read the places that it
            names.
        on_rows: called with (split, rows classified, valid rows).

    Returns:
        The verdict, with what it rests on. A pass is wrong in 5 % of cases at most, a fail in 7.5 %: 5 % by the rows,
        and 2.5 % by changed originals. It is `invalid` where one of the two gives outputs that are not finite, or is
        hardly better than chance on the originals, and `undecided` where both are one network.

    Raises:
        UserError: a split or classifier can't be used, with the cure.
    """
    check_max_drop(max_drop)
    processes = Processes()
    device = processes.device
    models = [load_named("baseline", baseline, device), load_named("candidate", candidate, device)]
    opened = open_split(split, download=True)
    check_columns(opened)
    image = first_image(opened, device)
    labels = labels_of(opened, [lambda: models[0], lambda: models[1]], image)
    answering = {model.named.name: answering_in(labels, model, image, opened.name) for model in models}
    rows = Reader(opened, labels, Sampler(1, len(labels)))
    columns = rows.pass_over(["label", "valid", "accepted_labels"])
    valid = np.flatnonzero(columns["valid"]) if "valid" in columns else np.arange(len(columns["label"]))
    if not len(valid):
        raise UserError(f"{opened.name}: has no valid row to compare on")
    order = np.random.default_rng(seed).permutation(valid)
    right: dict[str, list[np.ndarray]] = {name: [] for name in answering}
    standard: dict[str, float] = {}
    faults: list[str] = []
    one_network = _have_the_same_weights(models)
    for start, stop in itertools.pairwise(_looks(len(order))):
        wanted = np.sort(order[start:stop])
        images = rows.images if start == 0 else ["image"]  # the first originals tell whether the networks work
        batches = rows.batches_of(wanted, batch_size, images)
        answers = classify(batches, answering, columns["label"][wanted].__getitem__, processes, device)
        truth = columns["label"][wanted], columns["accepted_labels"][wanted] if "accepted_labels" in columns else None
        said = {
            name: {of: as_label(found.prediction, *truth) for of, found in one.items()} for name, one in answers.items()
        }
        faults += _faults(said, columns["label"][wanted], len(labels))
        if "original" in images:
            known = {name: said[name]["original"] == columns["label"][wanted] for name in said}
            standard = {name: 100 * float(is_right.mean()) for name, is_right in known.items()}
        place = np.searchsorted(wanted, order[start:stop])
        for name, found_right in right.items():
            found_right.append(said[name]["image"][place] == columns["label"][order[start:stop]])
        one_network &= np.array_equal(said["baseline"]["image"], said["candidate"]["image"])
        old, new = (np.concatenate(right[name]) for name in ("baseline", "candidate"))
        on_rows(opened.name, stop, len(order))
        if faults or one_network or decide(drops_of(old, new), max_drop / 100)[0] != "undecided":
            break
    found = gate_of_rows(old, new, columns["label"][order[:stop]], list(labels.names), max_drop, len(order))
    found = _concluded(found, faults, one_network, [*_notes(opened, models), *_saturated(found)], standard)
    return found if faults or one_network else _with_conditions(found, opened, answering, trust, processes)


def _concluded(found: Gate, faults: list[str], one_network: bool, notes: list[str], standard: dict[str, float]) -> Gate:
    """What was found of the rows, unless one of the two does not work, or both are one; with what is to be known."""
    if faults:
        found, notes = replace(found, verdict="invalid", rows_more=None, classes=[]), faults
    elif one_network:
        found, notes = replace(found, verdict="undecided", rows_more=None), [_ONE_NETWORK]
    return replace(
        found,
        notes=notes,
        baseline_standard=standard.get("baseline"),
        candidate_standard=standard.get("candidate"),
    )


def _with_conditions(
    found: Gate, opened: Split, answering: Mapping[str, nn.Module], trust: bool, processes: Processes
) -> Gate:
    """Return what was found, with what changed originals show, where the candidate has not failed on the rows.

    Images that were made against another network, or against each, show little of what a candidate broke elsewhere: a
    network that fails on moved images may well be right on those. So nothing passes by its rows alone.
    """
    if found.verdict == "fail":
        return found
    provenance = opened.provenance
    if provenance is None or "original" not in opened.features:
        own = option("recipe", "gate_on_own_splits")
        lacks = "was not made by fmrgen" if provenance is None else "has no originals (output.keep_original)"
        return replace(found, verdict="undecided", notes=[*found.notes, f"{opened.name} {lacks}: {_ONLY_ROWS} ({own})"])
    margin = OF_ANOTHER_SEED + found.max_drop / 100
    work = partial(_conditions, opened, provenance, answering, margin, trust, processes.device)
    conditions, notes = processes.gather(together(processes, work))[0]
    return _with_verdict(found, conditions, notes)


def _with_verdict(found: Gate, conditions: list[Condition], notes: list[str]) -> Gate:
    """Return what was found on the rows, with what changed originals say; they can fail a candidate, and pass none."""
    if not conditions:
        return replace(found, verdict="undecided", notes=[*found.notes, *notes, _NO_COMMON_ORIGINAL])
    found = replace(found, conditions=conditions, notes=[*found.notes, *notes])
    return replace(found, verdict="fail", rows_more=None) if found.worse else found


def _conditions(
    opened: Split,
    provenance: Provenance,
    answering: Mapping[str, nn.Module],
    margin: float,
    trust: bool,
    device: torch.device,
) -> tuple[list[Condition], list[str]]:
    """Return how baseline and candidate fare on changed originals, and notes on that."""
    candidate, baseline = answering["candidate"], answering["baseline"]
    notes = []
    try:
        judges, *_ = load_judges(
            opened.name, provenance, classifier=candidate, may_differ=("classifier",), trust=trust, device=device
        )
    except UserError as error:  # as of a model that is not on this machine
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
    job_progress: JobProgress = no_progress,
    on_note: Callable[[str], None] = lambda line: None,
) -> Gate:
    """The same with a split made for each, so that neither is spared.

    Of originals whose image is valid in both, whether each is right on the image that was made to fool it.

    Args:
        recipe: of the splits, but for the classifier.
        output: the dataset folder, in which they are `baseline` and `candidate`; what is there already is used.
        candidate: a classifier, as for `evaluate`.
        baseline: the one that it must not fall behind.
        max_drop: in points, from 0 to less than 100.
        seed: of the order of the rows.
        job_progress: returns a progress callback for a split's recipe.
        on_note: called with a line on what was found while splits were made.

    Returns:
        The verdict, as of `gate`; `invalid` also where the gradient of one of the two is masked: its own images are
        harmless then.

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
    for name, made in zip(sections, own_recipes(recipe, sections), strict=True):
        with job_progress(made) as on_progress:
            summary = make_split(made, output, on_progress=on_progress, on_note=on_note)
        paths = SplitPaths(output, made.output.config, made.output.split)
        provenance = read_provenance(paths)
        table = SplitFolder.of(paths, provenance).read_columns(_OF_OWN)
        columns[name] = accepted_as_label({column: table[column].to_numpy() for column in table.column_names})
        columns[name].pop("accepted_labels", None)
        said = {name: {"original": columns[name]["original_prediction"]}}
        faults += _faults(said, columns[name]["label"], len(provenance.labels))
        digests.add(provenance.weights_sha256.classifier)
        if provenance.recipe.perturb.is_guided and has_masked_gradient(summary):
            verb = "may be" if summary.guided_less_random is None else "is"
            faults.append(f"the gradient of the {name} {verb} masked: its own images are harmless, however weak it is")
        if provenance.recipe.perturb.is_guided and has_rough_gradient(summary):
            notes.append(
                f"the gradient of the {name} is rough: its own images fool it far more than random steps do, and a "
                "search without gradients (perturb.update=nes) may fool it more"
            )
        if summary.standard_accuracy is not None:
            standard[name] = summary.standard_accuracy.value
    of_valid = [of["id"][of["valid"].astype(bool)] for of in columns.values()]
    common = np.random.default_rng(seed).permutation(np.intersect1d(*of_valid))
    if not len(common):
        raise UserError(f"{output}: no original has a valid image in both splits")
    aligned = {name: rows_of(of, common) for name, of in columns.items()}
    old, new = (aligned[name]["prediction"] == aligned[name]["label"] for name in ("baseline", "candidate"))
    found = gate_of_rows(old, new, aligned["baseline"]["label"], list(provenance.labels), max_drop, len(common))
    said_alike = all(np.array_equal(of, aligned["candidate"][name]) for name, of in aligned["baseline"].items())
    one_network = said_alike and len(digests) == 1 and None not in digests
    found = _concluded(found, faults, one_network, notes, standard)
    if faults or one_network:
        return found
    if found.verdict == "fail":
        return found
    processes = Processes()
    margin = OF_ANOTHER_SEED + max_drop / 100
    networks = sections["baseline"], sections["candidate"]
    work = partial(compare_on_recipe, recipe, provenance, *networks, processes.device, margin=margin, error=ERROR / 2)
    return _with_verdict(found, processes.gather(together(processes, work))[0], [])


def check_max_drop(max_drop: float) -> None:
    """Raises UserError for what are no points that an accuracy can drop by."""
    if not 0 <= max_drop < 100:
        raise UserError(f"{option('max-drop', 'max_drop')}: must be points from 0 to less than 100, not {max_drop}")


def _saturated(found: Gate) -> list[str]:
    """A note where the images hardly fool either, so that what a candidate lost can't be seen."""
    if min(found.baseline, found.candidate) < _SATURATED:
        return []
    return [
        f"both are right on more than {_SATURATED:.0f} % of the images, which hardly fool either: a drop can't show; "
        f"compare them on images made to fool each ({option('recipe', 'gate_on_own_splits')})"
    ]


def _have_the_same_weights(models: list[LoadedClassifier]) -> bool:
    first, second = (model.named.weights_sha256 for model in models)
    return first is not None and first == second


def _faults(said: Mapping[str, Mapping[str, np.ndarray]], labels: np.ndarray, classes: int) -> list[str]:
    """A line for each classifier that is no working network: its outputs are not finite, which would count as wrong
    answers, or it does not know the originals.
    """
    found = []
    for name, images in said.items():
        silent = sum(int((answers < 0).sum()) for answers in images.values())
        if silent:
            found.append(
                f"the {name} gives outputs that are not finite on {silent:,} of {len(labels) * len(images):,} images: "
                "check its weights and its preprocessing"
            )
        elif "original" in images and is_at_chance(labels, images["original"], classes):
            found.append(
                f"the {name} is right on {(images['original'] == labels).mean():.1%} of {len(labels):,} originals, "
                "hardly better than chance: are its weights loaded, and its classes in the order of the labels?"
            )
    return found


def _notes(opened: Split, models: list[LoadedClassifier]) -> list[str]:
    """What a verdict is worth on a split that was made against one of the two."""
    recorded = None if opened.provenance is None else opened.provenance.weights_sha256.classifier
    own = [model.named.name for model in models if recorded is not None and has_weights(model.module, recorded)]
    meanings = {
        "baseline": "only the baseline is attacked, so a pass says little",
        "candidate": "only the candidate is attacked, so a fail says little",
    }
    return (
        [f"the split was made against the {own[0]}: {meanings[own[0]]}; use one made against a third classifier"]
        if len(own) == 1
        else []
    )


def _looks(rows: int) -> list[int]:
    """After how many rows one looks whether it is decided: 0 first, all last."""
    looks = [0, min(_FIRST, rows)]
    while looks[-1] < rows:
        looks.append(min(2 * looks[-1], rows))
    return looks
