"""One classifier asked about the images of a split, or what it said before."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from fmrgen.classifiers.base import has_weights, left_out_note
from fmrgen.config import FINGERPRINT
from fmrgen.distributed.launch import Sharing, together
from fmrgen.engine.attacks import Attack
from fmrgen.engine.images import as_float32, to_batch
from fmrgen.evaluation.attacked import Attacked
from fmrgen.evaluation.classify import Answers, KeptAnswers, classify
from fmrgen.evaluation.images import ImageSet
from fmrgen.evaluation.models import LoadedClassifier, answering_in
from fmrgen.evaluation.stream import Answered, ClassifiedSplit
from fmrgen.files import fingerprint
from fmrgen.storage.predictions import PredictionStore
from fmrgen.storage.provenance import Provenance

_Logits = list[float | None] | None

_VERSION = 2  # of what a key is made of
_LIBRARIES = tuple(version(name) for name in ("torch", "torchvision", "timm", "transformers"))
_NOTICED = 1e-5  # of a logit: more than rounding differs from run to run, less than another crop or mean makes
_ODD = (3, 5)  # by so many pixels higher and wider is the noise that shows how other sizes are resized


@dataclass(frozen=True)
class Asking:
    """How classifiers are asked.

    Attributes:
        store: of answers.
        puts: whether this process writes there.
        sharing: the processes among which batches are shared.
        device: of the classifiers.
        batch_size: images at once.
        attack: on originals, too.
        on_images: called with a number of images as they go by.
        pending: what is to be stored once it is known that the classifier stayed what it was.
    """

    store: PredictionStore
    puts: bool
    sharing: Sharing
    device: torch.device
    batch_size: int
    attack: Attack | None
    on_images: Callable[[int], None]
    pending: list[tuple[str, pa.Table, dict[str, Any]]]


def ask_of_split(model: LoadedClassifier, passed: ClassifiedSplit, asking: Asking) -> Answered:
    """What a classifier says of every kind of images of a split. Raises UserError where it can't answer in its labels,
    or fails on an image."""
    first = to_batch(passed.images["image"].first[None], asking.device)
    answering = together(asking.sharing, lambda: answering_in(passed.labels, model, first, passed.split.name))
    answers, notes = {}, []
    for name, images in passed.images.items():
        if name == "native":
            refusals = asking.sharing.gather(_refusal(answering, images, asking.device))
            if (refusal := next(filter(None, refusals), None)) is not None:
                height, width, _ = images.first.shape
                notes.append(f"SA native is not available, it takes no images of {height}×{width} pixels ({refusal})")
                continue
        answers[name] = _ask(model, answering, images, passed, None, asking)
    if asking.attack is not None:
        answers["attacked"] = _ask(model, answering, passed.images["original"], passed, asking.attack, asking)
    columns, classes = passed.rows.columns, len(passed.labels)
    accepted = columns.get("accepted_labels")
    kept = {name: KeptAnswers.of(of, columns["label"], classes, accepted) for name, of in answers.items()}
    provenance = passed.split.provenance
    recorded = None if provenance is None else provenance.weights_sha256.classifier
    is_own = _is_asked_alike(model, provenance) if recorded is None else has_weights(answering, recorded)
    return Answered(kept, is_own, left_out_note(answering, passed.labels), notes)


def _is_asked_alike(model: LoadedClassifier, provenance: Provenance | None) -> bool:
    """Whether what has no weights here is, by its section, what a split was made for: an endpoint, for one."""
    if provenance is None or model.named.section is None or model.named.weights_sha256 is not None:
        return False
    section, recorded = (
        model.named.section.model_dump(mode="json", context=FINGERPRINT),
        provenance.recipe.classifier.tree,
    )
    return all(recorded.get(key) == value for key, value in section.items())


def _ask(
    model: LoadedClassifier,
    answering: nn.Module,
    images: ImageSet,
    passed: ClassifiedSplit,
    attack: Attack | None,
    asking: Asking,
) -> Answers:
    """The stored answers to images, where the classifier still says the same of what it is tried on; else new ones."""
    truth = passed.rows.columns["label"]
    key, probe = None, list[_Logits]()
    # Without weights nobody knows what it will say tomorrow, and what an attack finds depends on its gradient too.
    if model.named.weights_sha256 is not None and attack is None:
        section = None if model.named.section is None else model.named.section.model_dump(mode="json")
        settings = [model.named.weights_sha256, model.settings_sha256, section, asdict(passed.labels), _LIBRARIES]
        of_images = [images.sha256, hashlib.sha256(np.ascontiguousarray(truth).data).hexdigest()]
        key = fingerprint([settings, of_images, _VERSION, asking.batch_size, asking.device.type])
        probe = _probe(answering, images, asking.device)
        stored = _unpacked(asking.store.get(key), probe, len(truth))
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
    if key is not None and asking.puts:
        about = {
            "classifier": name,
            "split": passed.split.name,
            "images": images.name,
            "rows": len(truth),
            "probe": probe,
        }
        columns = {column.name: _column(getattr(answers, column.name)) for column in fields(answers)}
        asking.pending.append((key, pa.table(columns), about))
    return answers


@torch.inference_mode()
def _refusal(answering: nn.Module, images: ImageSet, device: torch.device) -> str | None:
    """What a classifier throws at the first of the images; None where it takes it."""
    try:
        answering(to_batch(images.first[None], device))
    except (Exception, SystemExit) as error:  # anyone's code stands there, and some networks take one size alone
        return type(error).__name__
    return None


@torch.inference_mode()
def _probe(answering: nn.Module, images: ImageSet, device: torch.device) -> list[_Logits]:
    """The logits of the first image and of noise, at its size and at another one: they show what a key may not know, as
    a mean in a function. None stands for what is not finite, and for a size that the classifier does not take."""
    first = to_batch(images.first[None], device)
    shape = [*first.shape[:2], first.shape[2] + _ODD[0], first.shape[3] + _ODD[1]]
    noise = [torch.rand(of, generator=torch.Generator().manual_seed(0)).to(first) for of in (first.shape, shape)]
    found: list[_Logits] = []
    for image in (first, *noise):
        try:
            logits = as_float32(answering(image))[0].tolist()
        except (Exception, SystemExit):
            found.append(None)
        else:
            found.append([one if math.isfinite(one) else None for one in logits])
    return found


def _unpacked(found: tuple[pa.Table, dict[str, Any]] | None, probe: list[_Logits], rows: int) -> Answers | None:
    """Stored answers; None where there are none, they are no answers, or the classifier said something else then."""
    names = [column.name for column in fields(Answers)]
    if found is None or found[0].column_names != names or len(found[0]) != rows:
        return None
    table, about = found
    try:
        if not _says_the_same(about["probe"], probe) or any(table[name].null_count for name in names):
            return None
        columns = (np.stack(table[name].to_numpy()) if "top" in name else table[name].to_numpy() for name in names)
        return Answers(*columns)
    except (KeyError, TypeError, ValueError, pa.ArrowException):
        return None


def _says_the_same(before: Any, now: list[_Logits]) -> bool:
    """Whether two probes agree, but for rounding."""
    if len(before) != len(now):
        return False
    for then, today in zip(before, now, strict=True):
        if then is None or today is None:
            if then is not today:
                return False
            continue
        old, new = (np.array(of, dtype=np.float64) for of in (then, today))
        if old.shape != new.shape or not np.array_equal(np.isnan(old), np.isnan(new)):
            return False
        known = ~np.isnan(new)
        if not (np.abs(old - new)[known] <= _NOTICED * (1 + np.abs(new[known]))).all():
            return False
    return True


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
