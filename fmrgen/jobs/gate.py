"""A gate for releases: is the candidate less robust than the baseline, on the same images?"""

import itertools
from dataclasses import replace

import numpy as np

from fmrgen.classifiers.base import has_weights
from fmrgen.distributed.launch import Processes
from fmrgen.errors import UserError, option
from fmrgen.evaluation.classify import classify
from fmrgen.evaluation.gate import Gate, decide, drops_of
from fmrgen.evaluation.gate import gate as gate_of_rows
from fmrgen.evaluation.samples import Sampler
from fmrgen.evaluation.stream import NamedClassifier, SplitRows, check_columns
from fmrgen.jobs.answering import answering_in, first_image, labels_of, named_model
from fmrgen.jobs.bars import OnRows
from fmrgen.jobs.evaluate import AnySplit
from fmrgen.jobs.objects import AnyClassifier
from fmrgen.storage.open import OpenedSplit, open_split

_FIRST = 500  # rows of the first look; each further one takes as many as all before it


def gate(
    split: AnySplit,
    *,
    candidate: AnyClassifier,
    baseline: AnyClassifier,
    max_drop: float,
    batch_size: int = 64,
    seed: int = 0,
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
        on_rows: called with (split, rows classified, valid rows).

    Returns:
        The verdict, wrong in 5 % of cases at most, with what it rests on.

    Raises:
        UserError: a split or classifier can't be used, with the cure.
    """
    if not 0 <= max_drop < 100:
        raise UserError(f"{option('max-drop', 'max_drop')}: must be points from 0 to less than 100, not {max_drop}")
    processes = Processes()
    device = processes.device
    models = [named_model("baseline", baseline, device), named_model("candidate", candidate, device)]
    opened = open_split(split, download=True)
    check_columns(opened)
    image = first_image(opened, device)
    labels = labels_of(opened, models, image)
    answering = answering_in(labels, models, image, opened.name)
    rows = SplitRows(opened, labels, Sampler(1, len(labels)))
    columns = rows.pass_over(["label", "valid"])
    valid = np.flatnonzero(columns["valid"]) if "valid" in columns else np.arange(len(columns["label"]))
    if not len(valid):
        raise UserError(f"{opened.name}: has no valid row to compare on")
    order = np.random.default_rng(seed).permutation(valid)
    right: dict[str, list[np.ndarray]] = {model.name: [] for model in models}
    for start, stop in itertools.pairwise(_looks(len(order))):
        wanted = np.sort(order[start:stop])
        said = classify(rows.batches_of(wanted, batch_size), answering, processes, device)
        place = np.searchsorted(wanted, order[start:stop])
        for name, answers in right.items():
            answers.append(said[name]["image"][place] == columns["label"][order[start:stop]])
        old, new = (np.concatenate(right[name]) for name in ("baseline", "candidate"))
        on_rows(opened.name, stop, len(order))
        if decide(drops_of(old, new), max_drop / 100)[0] != "undecided":
            break
    found = gate_of_rows(old, new, columns["label"][order[:stop]], list(labels.names), max_drop, len(order))
    return replace(found, notes=_notes(opened, models))


def _notes(opened: OpenedSplit, models: list[NamedClassifier]) -> list[str]:
    """What a verdict is worth on a split that was made against one of the two."""
    recorded = None if opened.provenance is None else opened.provenance.weights_sha256.classifier
    own = [model.name for model in models if recorded is not None and has_weights(model.module, recorded)]
    meanings = {
        "baseline": "the candidate is spared what the baseline is attacked with, and a pass says little",
        "candidate": "the candidate alone is attacked, and a fail says little",
    }
    return (
        [f"the split was made against the {own[0]}: {meanings[own[0]]}; take one made against a third"]
        if len(own) == 1
        else []
    )


def _looks(rows: int) -> list[int]:
    """After how many rows one looks whether it is decided: 0 first, all last."""
    looks = [0, min(_FIRST, rows)]
    while looks[-1] < rows:
        looks.append(min(2 * looks[-1], rows))
    return looks
