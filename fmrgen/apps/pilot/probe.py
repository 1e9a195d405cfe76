"""A linear probe: a network for a user's images on the frozen features of a backbone that was trained elsewhere."""

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.apps.training.objectives.classifier import save_classifier
from fmrgen.classifiers.base import Classifier
from fmrgen.config import ComponentConfig, validate
from fmrgen.errors import UserError
from fmrgen.labels import Labels
from fmrgen.recipe.sections import TRAINED_CLASSIFIER
from fmrgen.records import Example

# Of the Hub: 18 MB, which takes 15 to 60 ms an image on a CPU, and CLIP's image tower of 340 MB.
ON_CPU = "timm:tf_efficientnet_lite0.in1k"
ON_GPU = "timm:vit_base_patch16_clip_224.openai"
FEWEST = 20  # images to learn from
_BATCH = 32
_ENLARGED, _LEAST_SIDE = 4, 128  # times, and pixels: small images are not enlarged to all that the backbone takes
_REGULARISATION = 0.01  # of the logistic regression, on features of unit variance
_NEVER = -30.0  # bias of a class without images


def train_probe(
    folder: Path,
    backbone: ComponentConfig,
    labels: Labels,
    examples: Iterable[Example],
    image_size: int,
    device: torch.device,
    seconds: float,
) -> int:
    """Write a trained folder of a network of timm whose head is a logistic regression on its features.

    Args:
        folder: to write.
        backbone: a classifier of kind timm.
        labels: of the examples.
        examples: to learn from, in a random order.
        image_size: side of their images in pixels; the backbone gets them four times enlarged, as far as it takes that.
        device: of the network.
        seconds: after which no more examples are taken.

    Returns:
        How many examples it learned from.

    Raises:
        UserError: the backbone is not one of timm's, can't be loaded, or has no linear head.
    """
    if backbone.kind != "timm":
        raise UserError(f"backbone: must be a network of timm (timm:NAME), not of kind {backbone.kind}")
    tree = backbone.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})
    data_config = {"crop_pct": 1.0, **_input(tree["model"], image_size)}  # images have their final frame
    tree["data_config"] = {**data_config, **tree.get("data_config", {})}
    classifier: Classifier = validate(type(backbone), tree, "backbone").build(device)
    network: Any = classifier.network
    rows, targets = [], []
    started = time.perf_counter()
    for batch in _batches(examples):
        rows.append(_features(network, classifier, torch.stack([example.image for example in batch]).to(device)))
        targets += [example.label for example in batch]
        if time.perf_counter() - started > seconds:
            break
    weight, bias = _head(np.concatenate(rows), np.array(targets), len(labels))
    network.reset_classifier(len(labels))
    head = network.get_classifier()
    if not isinstance(head, nn.Linear) or head.weight.shape != weight.shape:
        raise UserError(f"backbone: {tree['model']} has no linear head on its features; name another network")
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    tree.pop("checkpoint", None)
    arguments = {**tree.get("model_args", {}), "num_classes": len(labels)}
    section = {"kind": backbone.kind, **tree, "pretrained": False, "model_args": arguments}
    save_classifier(folder, network.to("cpu"), {**section, "class_names": list(labels.names)})
    return len(targets)


def _input(model: str, image_size: int) -> dict[str, list[int]]:
    """Return the size of a backbone's input for small images, `input_size` of timm, if it is not its own."""
    import timm

    own = timm.get_pretrained_cfg(model, allow_unregistered=True)
    side = max(_LEAST_SIDE, _ENLARGED * image_size)
    if own is None or own.fixed_input_size or side >= own.input_size[-1]:
        return {}
    return {"input_size": [3, side, side]}


def is_trained(folder: Path) -> bool:
    """Return whether `train_probe` has written a folder, to its end."""
    return (folder / TRAINED_CLASSIFIER).is_file()


def _batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    remaining = iter(examples)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


@torch.no_grad()
def _features(network: Any, classifier: Classifier, images: Tensor) -> np.ndarray:
    """Return what the head of a network gets, float64 [B, D]."""
    features = network.forward_head(network.forward_features(classifier.preprocess(images)), pre_logits=True)
    return features.double().cpu().numpy()


def _head(features: np.ndarray, targets: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weight [K, D] and bias [K] of a linear head. Raise UserError if all images are of one class."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = features.mean(0), features.std(0) + 1e-6
    present = np.unique(targets)
    if len(present) < 2:
        raise UserError("backbone: the images to learn from are of one class")
    machine = LogisticRegression(C=_REGULARISATION, max_iter=300).fit((features - mean) / scale, targets)
    coefficients, intercepts = machine.coef_, machine.intercept_
    if len(present) == 2:  # one row says how far the second is ahead
        coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
    weight = np.zeros((classes, features.shape[1]))
    bias = np.full(classes, _NEVER)
    weight[present] = coefficients / scale
    bias[present] = intercepts - weight[present] @ mean
    return weight, bias
