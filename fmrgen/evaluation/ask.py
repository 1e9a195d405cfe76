"""One classifier asked about the images of a split, or what it said before."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from fmrgen.classifiers.base import has_weights, left_out_note
from fmrgen.distributed.launch import Sharing
from fmrgen.engine.attacks import Attack
from fmrgen.engine.images import as_float32, to_batch
from fmrgen.evaluation.attacked import Attacked
from fmrgen.evaluation.classify import Answers, KeptAnswers, classify
from fmrgen.evaluation.images import ImageSet
from fmrgen.evaluation.models import LoadedClassifier, answering_in
from fmrgen.evaluation.stream import Answered, ClassifiedSplit
from fmrgen.files import fingerprint
from fmrgen.storage.predictions import PredictionStore

_VERSION = 1  # of what a key is made of
_NOTICED = 1e-3  # of the range of logits: less than another crop or mean makes of it, more than another kernel does


@dataclass(frozen=True)
class Asking:
    """How classifiers are asked: `attack` is on originals, `on_images(n)` is called as images go by."""

    store: PredictionStore
    sharing: Sharing
    device: torch.device
    batch_size: int
    attack: Attack | None
    on_images: Callable[[int], None]


def ask_of_split(model: LoadedClassifier, passed: ClassifiedSplit, asking: Asking) -> Answered:
    """What a classifier says of every kind of images of a split. Raises UserError where it can't answer in its labels,
    or fails on an image."""
    first = to_batch(passed.images["image"].first[None], asking.device)
    answering = answering_in(passed.labels, model, first, passed.split.name)
    answers, notes = {}, []
    for name, images in passed.images.items():
        if name == "native" and (why := _refuses(answering, images, asking.device)) is not None:
            height, width, _ = images.first.shape
            notes.append(f"SA native is not available, it takes no images of {height}×{width} pixels ({why})")
        else:
            answers[name] = _ask(model, answering, images, passed, None, asking)
    if asking.attack is not None:
        answers["attacked"] = _ask(model, answering, passed.images["original"], passed, asking.attack, asking)
    truth = passed.rows.columns["label"]
    kept = {name: KeptAnswers.of(of, truth, len(passed.labels)) for name, of in answers.items()}
    provenance = passed.split.provenance
    recorded = None if provenance is None else provenance.weights_sha256.classifier
    is_own = recorded is not None and has_weights(answering, recorded)
    return Answered(kept, is_own, left_out_note(answering, passed.labels), notes)


def _ask(
    model: LoadedClassifier,
    answering: nn.Module,
    images: ImageSet,
    passed: ClassifiedSplit,
    attack: Attack | None,
    asking: Asking,
) -> Answers:
    """The stored answers to images, where the classifier still says the same of the first of them; else new ones."""
    truth = passed.rows.columns["label"]
    probe = _probe(answering, images, asking.device)
    key = None
    # Without weights nobody knows what it will say tomorrow, and what an attack finds depends on its gradient too.
    if model.named.weights_sha256 is not None and attack is None:
        section = None if model.named.section is None else model.named.section.model_dump(mode="json")
        settings = [model.named.weights_sha256, model.settings_sha256, section, list(passed.labels.names)]
        of_images = [images.sha256, hashlib.sha256(np.ascontiguousarray(truth).data).hexdigest()]
        key = fingerprint([settings, of_images, _VERSION, asking.batch_size, asking.device.type])
        found = asking.store.get(key)
        stored = None if found is None else _unpacked(*found, probe, len(truth))
        everyone_knows = all(asking.sharing.gather(stored is not None))  # machines may have stores of their own
        if stored is not None and everyone_knows:
            asking.on_images(len(truth))
            return stored
    asked = answering if attack is None else Attacked(answering, attack)
    name = model.named.name
    said = classify(
        images.batches(asking.batch_size),
        {name: asked},
        truth.__getitem__,
        asking.sharing,
        asking.device,
        asking.on_images,
    )
    answers = said[name][images.name]
    if key is not None and asking.sharing.rank == 0:
        about = {
            "classifier": name,
            "split": passed.split.name,
            "images": images.name,
            "rows": len(truth),
            "probe": probe,
        }
        columns = {column.name: _column(getattr(answers, column.name)) for column in fields(answers)}
        asking.store.put(key, pa.table(columns), about)
    return answers


def _refuses(answering: nn.Module, images: ImageSet, device: torch.device) -> str | None:
    """What a classifier throws at the first of the images; None where it takes it."""
    try:
        _probe(answering, images, device)
    except Exception as error:  # anyone's code stands there, and some networks take one size alone
        return type(error).__name__
    return None


@torch.inference_mode()
def _probe(answering: nn.Module, images: ImageSet, device: torch.device) -> list[list[float]]:
    """The logits of the first image and of noise: what they are when preprocessing changes, a key may not know."""
    first = to_batch(images.first[None], device)
    noise = torch.rand(first.shape, generator=torch.Generator().manual_seed(0)).to(first)
    found: list[list[float]] = as_float32(answering(torch.cat([first, noise]))).nan_to_num().tolist()
    return found


def _unpacked(table: pa.Table, about: dict[str, Any], probe: list[list[float]], rows: int) -> Answers | None:
    """Stored answers; None where the classifier said something else of the first image then, or they are no answers."""
    before, now = np.array(about.get("probe"), dtype=np.float64), np.array(probe)
    names = [column.name for column in fields(Answers)]
    if before.shape != now.shape or len(table) != rows or table.column_names != names:
        return None
    if np.abs(before - now).max() > _NOTICED * np.ptp(now) + 1e-6:
        return None
    return Answers(*(np.stack(table[name].to_numpy()) if "top" in name else table[name].to_numpy() for name in names))


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
