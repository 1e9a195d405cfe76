"""One classifier asked about the images of a split, or what it said before."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import ClassLabel
from torch import nn

from fmrgen.classifiers.base import left_out_note
from fmrgen.config import FINGERPRINT
from fmrgen.distributed.launch import Sharing
from fmrgen.engine.attacks import Attack
from fmrgen.engine.images import to_batch
from fmrgen.errors import UserError
from fmrgen.evaluation.attacked import Attacked
from fmrgen.evaluation.classified import Answered, Classified
from fmrgen.evaluation.images import ImageSet
from fmrgen.files import fingerprint
from fmrgen.labels import match_classes
from fmrgen.split.classify import NO_ANSWER, TOP, Answers, KeptAnswers, answers_of, classify
from fmrgen.split.models import LoadedClassifier
from fmrgen.storage.predictions import PredictionStore
from fmrgen.storage.provenance import Provenance

_VERSION = 4  # of what a key is made of
_ROUNDED = 1e-2  # of a margin, a probability: more than they differ between batches of other sizes
_NOTICED = 1e-5  # above one, of a probability


@dataclass
class Predictor:
    """A classifier that is asked about one split after another.

    Its new answers are stored by `keep`, once it is known that it stayed what it was.

    Attributes:
        model: the classifier.
        store: of answers.
        puts: whether this process writes there.
        sharing: the processes among which batches are shared.
        device: of the classifier.
        batch_size: images at once.
        attack: on originals, too.
    """

    model: LoadedClassifier
    store: PredictionStore
    puts: bool
    sharing: Sharing
    device: torch.device
    batch_size: int
    attack: Attack | None
    _pending: list[tuple[str, pa.Table, dict[str, Any]]] = field(default_factory=list)

    def answers(self, classified: Classified, on_images: Callable[[int], None]) -> Answered:
        """Return its answers to every kind of images of a split.

        Args:
            classified: the split.
            on_images: called with a number of images as they go by.

        Raises:
            UserError: it can't answer in the split's labels, or fails on an image.
        """
        model, labels = self.model, classified.labels
        first = to_batch(classified.images["image"].first[None], self.device)
        answering = self.sharing.together(lambda: model.answering_in(labels, first, classified.split.name))
        answers: dict[str, Answers] = {}
        refused = []
        for name, images in classified.images.items():
            if name == "native":
                refusals = self.sharing.gather(_refusal(answering, images, self.device))
                refusal = next((error for error in refusals if error is not None), None)
                if refusal is not None:
                    height, width, _ = images.first.shape
                    refused.append(
                        f"SA native is not available, it takes no images of {height}×{width} pixels ({refusal})"
                    )
                    continue
            answers[name] = self._stored_or_new(answering, images, classified, on_images)
        if self.attack is not None:
            network = Attacked(answering, self.attack)
            answers["attacked"] = self._new(network, classified.images["original"], classified, on_images)
        columns = classified.columns
        figures = {}
        for name, of_images in answers.items():
            figures[name] = KeptAnswers.of(of_images, columns["label"], len(labels), columns.get("accepted_labels"))
        order_is_known = _order_is_known(model, classified)
        notes = []
        if not order_is_known:
            why = "not all of its classes match by name"
            if model.class_names is None:
                why = "it does not name its classes"
            notes.append(f"{why}: its outputs are assumed to be in the order of the labels")
        left_out = left_out_note(answering, labels)
        if left_out is not None:
            notes.append(left_out)
        provenance = classified.split.provenance
        return Answered(
            answers=figures,
            has_recorded_weights=_has_recorded_weights(model, provenance),
            has_recorded_section=_has_recorded_section(model, provenance),
            order_is_known=order_is_known,
            notes=[*notes, *refused],
        )

    def keep(self) -> None:
        """Store its new answers."""
        for key, table, metadata in self._pending:
            self.store.put(key, table, metadata)

    def _stored_or_new(
        self, answering: nn.Module, images: ImageSet, classified: Classified, on_images: Callable[[int], None]
    ) -> Answers:
        """Return the stored answers to images if the classifier still gives them to some of the images; else new ones.

        Its identity may not show all that they follow from, as a file that its forward reads.
        """
        if not self.model.is_known:
            return self._new(answering, images, classified, on_images)
        truth = classified.columns["label"]
        classes = len(classified.labels)
        key = self._key(images, classified)
        stored = _unpacked(self.store.get(key, _schema(classes), len(truth)), classes)
        if stored is not None and not (
            _agrees_with_labels(stored, truth) and self._gives(stored, answering, images, truth)
        ):
            stored = None
        everyone_knows = all(self.sharing.gather(stored is not None))  # machines may have stores of their own
        if stored is not None and everyone_knows:
            on_images(len(truth))
            return stored
        answers = self._new(answering, images, classified, on_images)
        name = self.model.name
        if not self._gives(answers, answering, images, truth):
            raise UserError(
                f"classifier {name}: its answers for the same images changed during the run; nothing in its forward "
                "may depend on earlier calls"
            )
        if self.puts:
            metadata = {"classifier": name, "split": classified.split.name, "images": images.name, "rows": len(truth)}
            columns = [_column(getattr(answers, column.name)) for column in fields(answers)]
            self._pending.append((key, pa.table(columns, schema=_schema(classes)), metadata))
        return answers

    @torch.inference_mode()
    def _gives(self, answers: Answers, answering: nn.Module, images: ImageSet, truth: np.ndarray) -> bool:
        """Return whether the classifier gives these answers to images from the whole set, but for rounding."""
        for row, pixels in zip(images.numbers[list(images.spread)].tolist(), images.spread.values(), strict=True):
            label = torch.from_numpy(truth[row : row + 1]).to(self.device)
            try:
                columns = answers_of(answering(to_batch(pixels[None], self.device)).float(), label)
            except (Exception, SystemExit):  # anyone's code stands there; `classify` says what it throws
                return False
            prediction, _, probabilities, margin = (column[0].cpu().numpy() for column in columns)
            for now, then in ((probabilities, answers.top_probabilities[row]), (margin, answers.margin[row])):
                if not np.allclose(now, then, rtol=_ROUNDED, atol=_ROUNDED, equal_nan=True):
                    return False
            is_tied = probabilities[0] - probabilities[1] <= 2 * _ROUNDED
            if prediction != answers.prediction[row] and not is_tied:
                return False
        return True

    def _new(
        self, network: nn.Module, images: ImageSet, classified: Classified, on_images: Callable[[int], None]
    ) -> Answers:
        name = self.model.name
        predictions = classify(
            images.batches(self.batch_size),
            {name: network},
            classified.columns["label"].__getitem__,
            self.sharing,
            self.device,
            on_images,
        )
        return predictions[name][images.name]

    def _key(self, images: ImageSet, classified: Classified) -> str:
        """Return what all answers to images follow from, as one word."""
        model = self.model
        section = None if model.section is None else model.section.model_dump(mode="json")
        truth_sha256 = hashlib.sha256(np.ascontiguousarray(classified.columns["label"]).data).hexdigest()
        dataset = [images.sha256, truth_sha256, asdict(classified.labels)]
        return fingerprint([model.identity.key, section, dataset, _VERSION, self.batch_size, self.device.type])


def _has_recorded_weights(model: LoadedClassifier, provenance: Provenance | None) -> bool:
    """Return whether a split was made for this network: by its weights, or if it has none by its section, as an
    endpoint."""
    if provenance is None:
        return False
    recorded = provenance.weights_sha256.classifier
    if recorded is not None:
        return model.has_weights(recorded)
    if model.section is None or model.weights_sha256 is not None:
        return False
    tree = provenance.recipe.classifier.tree
    section = model.section.model_dump(mode="json", context=FINGERPRINT)
    return all(tree.get(key) == value for key, value in section.items())


def _has_recorded_section(model: LoadedClassifier, provenance: Provenance | None) -> bool:
    """Return whether a split was made with this very section, but for keys of later versions."""
    if provenance is None or model.section is None:
        return False
    return model.section.model_dump(mode="json") == provenance.recipe.classifier.tree


def _order_is_known(model: LoadedClassifier, classified: Classified) -> bool:
    """Return whether every label was found by its name among the classifier's classes."""
    feature = classified.split.features["label"]
    if model.class_names is None:
        return model.in_words
    if not isinstance(feature, ClassLabel) and "string" not in feature.dtype:
        return False
    match = match_classes(model.class_names, classified.labels.names)
    return match is not None and match.by_name


@torch.inference_mode()
def _refusal(answering: nn.Module, images: ImageSet, device: torch.device) -> str | None:
    """Return what a classifier throws at the first of the images; None where it takes it."""
    try:
        answering(to_batch(images.first[None], device))
    except (Exception, SystemExit) as error:  # anyone's code stands there, and some networks take one size alone
        return type(error).__name__
    return None


def _schema(classes: int) -> pa.Schema:
    """Return the columns of stored answers in so many classes."""
    top = min(TOP, classes)
    return pa.schema(
        [
            ("prediction", pa.int32()),
            ("top_classes", pa.list_(pa.int32(), top)),
            ("top_probabilities", pa.list_(pa.float32(), top)),
            ("margin", pa.float32()),
        ]
    )


def _unpacked(stored: tuple[pa.Table, dict[str, Any]] | None, classes: int) -> Answers | None:
    """Return stored answers; None if there are none, or they can't be answers."""
    if stored is None:
        return None
    table, _ = stored
    if any(column.null_count for column in table.columns):
        return None
    try:
        answers = Answers(*(np.stack(table[name].to_numpy()) for name in table.column_names))
    except (TypeError, ValueError, pa.ArrowException):
        return None
    return answers if _are_answers(answers, classes) else None


def _are_answers(answers: Answers, classes: int) -> bool:
    """Return whether columns are what a classifier may say in so many classes."""
    is_answer = answers.prediction != NO_ANSWER
    numbers = np.concatenate([answers.prediction[:, None], answers.top_classes], axis=1)
    probabilities = answers.top_probabilities[is_answer]
    return bool(
        (numbers[~is_answer] == NO_ANSWER).all()
        and ((numbers[is_answer] >= 0) & (numbers[is_answer] < classes)).all()
        and ((probabilities >= 0) & (probabilities <= 1 + _NOTICED)).all()
        and (np.diff(probabilities, axis=1) <= 0).all()
        and not np.isnan(answers.margin[is_answer]).any()
    )


def _agrees_with_labels(answers: Answers, labels: np.ndarray) -> bool:
    """Return whether margins are above zero where the prediction is the label, and nowhere else."""
    is_answer = answers.prediction != NO_ANSWER
    is_right = answers.prediction == labels
    margin = answers.margin
    return bool((margin[is_answer & is_right] >= 0).all() and (margin[is_answer & ~is_right] <= 0).all())


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
