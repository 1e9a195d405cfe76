"""The predictions of one classifier for the images of a split, new or stored before."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
import torch
from datasets import ClassLabel
from torch import Tensor, nn

from fmrgen.classifiers.base import left_out_note
from fmrgen.config import FINGERPRINT
from fmrgen.distributed.launch import Sharing
from fmrgen.engine.attacks import Attack
from fmrgen.engine.images import to_batch
from fmrgen.errors import UserError
from fmrgen.evaluation.images import CachedImages
from fmrgen.evaluation.measured import MeasuredSplit, OnSplit
from fmrgen.files import fingerprint
from fmrgen.labels import match_classes
from fmrgen.metrics.outputs import outputs_in_another_order
from fmrgen.metrics.rows import as_label
from fmrgen.split.classify import Predicted, classify, predicted_of
from fmrgen.split.models import LoadedClassifier
from fmrgen.storage.predictions import PredictionStore
from fmrgen.storage.provenance import Provenance

_OF_ANY = ("id", "label", "valid", "iterations", "queries", "original_oracle_label", "stop_reason")
SCHEMA = pa.schema([("prediction", pa.int32()), ("confidence", pa.float32()), ("margin", pa.float32())])
_VERSION = 5  # of what a key is made of
_ROUNDED = 1e-2  # of a margin, a probability: more than they differ between batches of other sizes


class Attacked(nn.Module):
    """A classifier on images that were first attacked away from its own predictions.

    An image that it gets right is so attacked away from its label; what is said of the others is not to be counted. The
    random start of an image depends on its pixels, and on no other image.
    """

    def __init__(self, classifier: nn.Module, attack: Attack) -> None:
        super().__init__()
        self.classifier, self.attack = classifier, attack

    def forward(self, images: Tensor) -> Tensor:
        with torch.inference_mode(False):
            images = images.clone()  # one of inference mode takes no gradient
            with torch.no_grad():
                predictions: Tensor = self.classifier(images).argmax(1)
            attacked = self.attack(self.classifier, images, predictions, row_seeds=[_seed(image) for image in images])
        with torch.no_grad():
            logits: Tensor = self.classifier(attacked)
        return logits


def _seed(image: Tensor) -> int:
    return int.from_bytes(hashlib.blake2b(image.cpu().numpy().tobytes(), digest_size=8).digest()) >> 1


@dataclass
class Predictor:
    """A classifier that predicts one split after another.

    Its new predictions are stored by `keep`, once it is known that it stayed what it was.
    """

    model: LoadedClassifier
    store: PredictionStore
    puts: bool  # whether this process writes to the store
    sharing: Sharing
    device: torch.device
    batch_size: int
    attack: Attack | None  # on originals, too
    _pending: list[tuple[str, pa.Table]] = field(default_factory=list)

    def on_split(self, measured: MeasuredSplit, on_images: Callable[[int], None]) -> OnSplit:
        """Return its predictions for every kind of images of a split.

        `on_images` is called with a number of images as they go by. Raises UserError if it can't predict the split's
        labels, its outputs are in another order than these, or it fails on an image.
        """
        model, labels = self.model, measured.labels
        first = to_batch(measured.images["image"].first[None], self.device)
        network = self.sharing.together(lambda: model.in_labels(labels, first, measured.name))
        predicted = {}
        for name, images in measured.images.items():
            predicted[name] = self._stored_or_new(network, images, measured, on_images)
        if self.attack is not None:
            attacked = Attacked(network, self.attack)
            predicted["attacked"] = self._new(attacked, measured.images["original"], measured, on_images)
        columns = _summarised(measured, predicted)
        notes = []
        if not _order_is_known(model, measured):
            _check_order(model.name, measured, columns)
            why = "not all of its classes match by name"
            if model.class_names is None:
                why = "it does not name its classes"
            notes.append(f"{why}: its outputs are assumed to be in the order of the labels")
        left_out = left_out_note(network, labels)
        if left_out is not None:
            notes.append(left_out)
        for name, of_images in predicted.items():
            missing = int((of_images.prediction < 0).sum())
            if missing:
                notes.append(f"its highest logit is not finite on {missing} of the column {name}; these count as wrong")
        provenance = measured.split.provenance
        has_section = (
            provenance is not None
            and model.section is not None
            and model.section.model_dump(mode="json") == provenance.recipe.classifier.tree
        )
        return OnSplit(columns, _has_recorded_weights(model, provenance), has_section, notes)

    def keep(self) -> None:
        """Store its new predictions."""
        for key, table in self._pending:
            self.store.put(key, table)

    def _stored_or_new(
        self, network: nn.Module, images: CachedImages, measured: MeasuredSplit, on_images: Callable[[int], None]
    ) -> Predicted:
        """Return the stored predictions for images if the classifier still gives them for some of these; else new ones.

        Its identity may not show all that they follow from, as a file that its forward reads.
        """
        if not self.model.is_known:
            return self._new(network, images, measured, on_images)
        truth = measured.columns["label"]
        key = self._key(images, measured)
        stored, table = None, self.store.get(key, SCHEMA, len(truth))
        if table is not None and not any(column.null_count for column in table.columns):  # else it is damaged
            stored = Predicted(*(table[name].to_numpy() for name in table.column_names))
        if stored is not None and not self._gives(stored, network, images, truth):
            stored = None
        everyone_knows = all(self.sharing.gather(stored is not None))  # machines may have stores of their own
        if stored is not None and everyone_knows:
            on_images(len(truth))
            return stored
        predicted = self._new(network, images, measured, on_images)
        if not self._gives(predicted, network, images, truth):
            raise UserError(
                f"classifier {self.model.name}: its predictions for the same images changed during the run; nothing in "
                "its forward may depend on earlier calls"
            )
        if self.puts:
            self._pending.append((key, pa.table(predicted._asdict(), schema=SCHEMA)))
        return predicted

    @torch.inference_mode()
    def _gives(self, predicted: Predicted, network: nn.Module, images: CachedImages, truth: np.ndarray) -> bool:
        """Return whether the classifier gives these predictions for images from the whole set, but for rounding."""
        for row, pixels in zip(images.numbers[list(images.spread)].tolist(), images.spread.values(), strict=True):
            label = torch.from_numpy(truth[row : row + 1]).to(self.device)
            try:
                columns = predicted_of(network(to_batch(pixels[None], self.device)).float(), label)
            except (Exception, SystemExit):  # anyone's code stands there; `classify` says what it throws
                return False
            prediction, confidence, margin = (column[0].cpu().numpy() for column in columns)
            now, then = (confidence, margin), (predicted.confidence[row], predicted.margin[row])
            if not np.allclose(now, then, rtol=_ROUNDED, atol=_ROUNDED, equal_nan=True):
                return False
            is_tied = confidence <= 0.5 + _ROUNDED  # another class may be as likely
            if prediction != predicted.prediction[row] and not is_tied:
                return False
        return True

    def _new(
        self, network: nn.Module, images: CachedImages, measured: MeasuredSplit, on_images: Callable[[int], None]
    ) -> Predicted:
        predictions = classify(
            images.batches(self.batch_size),
            {self.model.name: network},
            measured.columns["label"].__getitem__,
            self.sharing,
            self.device,
            on_images,
        )
        return predictions[self.model.name][images.name]

    def _key(self, images: CachedImages, measured: MeasuredSplit) -> str:
        """Return what all predictions for images follow from, as one word."""
        model = self.model
        section = None if model.section is None else model.section.model_dump(mode="json")
        truth_sha256 = hashlib.sha256(np.ascontiguousarray(measured.columns["label"]).data).hexdigest()
        dataset = [images.sha256, truth_sha256, asdict(measured.labels)]
        return fingerprint([model.identity.key, section, dataset, _VERSION, self.batch_size, self.device.type])


def _summarised(measured: MeasuredSplit, predicted: Mapping[str, Predicted]) -> dict[str, np.ndarray]:
    """Return the columns [N] that a summary of a classifier is made of, from its predictions by the kind of images."""
    stored = measured.columns
    columns = {name: stored[name] for name in _OF_ANY if name in stored}
    for name, of_images in predicted.items():
        column = "prediction" if name == "image" else f"{name}_prediction"
        columns[column] = as_label(of_images.prediction, stored["label"], stored.get("accepted_labels"))
    if "attacked" in predicted:
        # What was wrong before an attack stays so: it is not attacked.
        original = columns["original_prediction"]
        columns["attacked_prediction"] = np.where(original == stored["label"], columns["attacked_prediction"], original)
    return columns


def _check_order(classifier: str, measured: MeasuredSplit, columns: Mapping[str, np.ndarray]) -> None:
    """Raise UserError if a classifier's outputs, by the columns of its summary, are in another order than labels."""
    predictions = columns.get("original_prediction", columns["prediction"])
    if outputs_in_another_order(columns["label"], predictions, len(measured.labels)):
        cure = "" if measured.split.labels else ", and give the split's label column its names (ClassLabel)"
        raise UserError(
            f"classifier {classifier} on {measured.name}: its predictions match the labels only if its classes "
            "are put in another order; list its classes, in the order of its outputs, as class_names of its section"
            f"{cure}"
        )


def _has_recorded_weights(model: LoadedClassifier, provenance: Provenance | None) -> bool:
    """Return whether a split was generated against this network: by its weights, or if it has none, as an endpoint,
    by its section."""
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


def _order_is_known(model: LoadedClassifier, measured: MeasuredSplit) -> bool:
    """Return whether every label was found by its name among the classifier's classes."""
    feature = measured.split.features["label"]
    if model.class_names is None:
        return model.in_words
    if not isinstance(feature, ClassLabel) and "string" not in feature.dtype:
        return False
    match = match_classes(model.class_names, measured.labels.names)
    return match is not None and match.by_name
