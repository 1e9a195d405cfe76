"""The classifier θ: images in [0, 1] to logits over the job's labels. Resizing and normalisation live in it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from fmrgen.classifiers.networks.asked_in_words import AskedInWords
from fmrgen.engine.images import as_float32
from fmrgen.errors import UserError
from fmrgen.labels import Labels, Match, match_classes
from fmrgen.weights.digest import weights_sha256

_WRAPPERS = tuple(f"{'classifier.' * times}{of}" for times in range(3) for of in ("", "network."))  # of parameters

Interpolation = Literal["auto", "bicubic", "bilinear"]


class Classifier(nn.Module):
    """A network behind its own preprocessing.

    `forward` takes images [B, 3, H, W] in [0, 1] of any size and returns logits [B, K]; gradients reach the images.
    `preprocess` is differentiable and treats every image by itself. `class_names` are those of the outputs, None where
    they are not known. With `channels` gray, images lose their colours before it (the paper's App. H).
    """

    def __init__(
        self,
        network: nn.Module,
        preprocess: Callable[[Tensor], Tensor],
        class_names: Sequence[str] | None = None,
        channels: Literal["rgb", "gray"] = "rgb",
    ) -> None:
        super().__init__()
        self.network = network
        self.channels = channels
        self.preprocess = preprocess
        self.class_names = class_names

    def forward(self, images: Tensor) -> Tensor:
        output = self.network(self.preprocess(without_colours(images) if self.channels == "gray" else images))
        return getattr(output, "logits", output)  # transformers' models wrap them


def without_colours(images: Tensor) -> Tensor:
    """The luma of Rec. 601, in three equal channels."""
    luma = (images * _channels((0.299, 0.587, 0.114), images)).sum(1, keepdim=True)
    return luma.expand_as(images)


class Normalize:
    """Resizes the shorter side to `size` and crops the centre (None keeps the size), then (x - mean) / std.

    `interpolation` says how: `auto` takes the mean over the pixels where they are a whole number, which brings an
    enlarged image back to what it was, and else resizes antialiased and bicubic, within [0, 1]. A bilinear one blurs,
    and costs networks for small images some of their accuracy.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        size: int | None = None,
        interpolation: Interpolation = "auto",
    ) -> None:
        self.mean, self.std = ([float(value) for value in values] for values in (mean, std))
        self.size, self.interpolation = size, interpolation

    def __call__(self, images: Tensor) -> Tensor:
        if self.size is not None and images.shape[-2:] != (self.size, self.size):
            images = self._resized(images, self.size)
        return (images - _channels(self.mean, images)) / _channels(self.std, images)

    def _resized(self, images: Tensor, size: int) -> Tensor:
        shorter = min(images.shape[-2:])
        if self.interpolation == "auto" and shorter % size == 0:
            images = nn.functional.avg_pool2d(images, shorter // size)
            top, left = ((side - size) // 2 for side in images.shape[-2:])
            return images[..., top : top + size, left : left + size]
        # As torchvision resizes and crops, whose import takes a second of every command.
        height, width = images.shape[-2:]
        shorter = min(height, width)
        sides = int(size * height / shorter), int(size * width / shorter)
        mode = "bilinear" if self.interpolation == "bilinear" else "bicubic"
        resized = nn.functional.interpolate(
            as_float32(images), size=sides, mode=mode, align_corners=False, antialias=True
        )
        top, left = (round((side - size) / 2) for side in sides)
        return resized.to(images.dtype).clamp(0, 1)[..., top : top + size, left : left + size]


def without_waiting(steps: Iterable[Callable[[Tensor], Tensor]]) -> list[Callable[[Tensor], Tensor]]:
    """Steps of preprocessing, with the class above for torchvision's Normalize, to the bit the same.

    That one copies its values to the device for every batch and then waits for it, and can't be compiled.
    """
    from torchvision.transforms import Normalize as OfTorchvision

    return [Normalize(step.mean, step.std) if isinstance(step, OfTorchvision) else step for step in steps]


def _channels(values: Sequence[float], images: Tensor) -> Tensor:
    """A value for each channel, [C, 1, 1], as the images are and where they are."""
    if torch.compiler.is_compiling():  # which makes a constant of it, and warns of caches
        return images.new_tensor(values).view(-1, 1, 1)
    return _kept_channels(tuple(values), images.dtype, images.device)


@lru_cache(64)
def _kept_channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Brought to a device once and not for every batch."""
    with torch.inference_mode(False):  # whoever asks first
        return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)


class GroupedClassifier(nn.Module):
    """A classifier over source classes, answering over groups of them: logit = log of the group's summed exp(logit).

    After softmax this is the sum of the probabilities in each group, over the groups alone. Groups of one class each
    are a choice of classes, or another order; `left_out` is how many of its `outputs` are in no group.
    """

    def __init__(self, classifier: nn.Module, groups: Sequence[Sequence[int]], outputs: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.groups = [list(group) for group in groups]
        self.left_out = outputs - sum(map(len, self.groups))

    def forward(self, images: Tensor) -> Tensor:
        logits = as_float32(self.classifier(images))
        if all(len(group) == 1 for group in self.groups):
            return logits[:, [group[0] for group in self.groups]]
        return torch.stack([logits[:, group].logsumexp(dim=1) for group in self.groups], dim=1)


def outputs_of_one(logits: object, what: str) -> int:
    """How many outputs there are in what a classifier returned for one image. Raises UserError for anything else."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise UserError(f"{what}: must return logits of shape [B, K], one image gave {shape}")
    return logits.shape[1]


def answer_in_labels(classifier: nn.Module, labels: Labels, image: Tensor, what: str) -> nn.Module:
    """`classifier`, made to answer in `labels`: in their order, and grouped where it knows the source's own classes.

    Where the classifier has `class_names`, its outputs are matched to the labels by name; otherwise as many outputs as
    labels are taken to be in their order. `image` [1, 3, H, W] is what it is tried on, `what` names its section in the
    error. One that is asked in words, and has none of its own, gets the labels. Raises UserError where its outputs fit
    neither the labels nor the source's classes.
    """
    network = classifier.network if isinstance(classifier, Classifier) else None
    if isinstance(network, AskedInWords) and classifier.class_names is None:
        network.set_labels(labels)
        return classifier
    with torch.no_grad():
        outputs = outputs_of_one(classifier(image), what)
    class_names = getattr(classifier, "class_names", None)
    if class_names is not None and len(class_names) != outputs:
        raise UserError(f"{what}: has {outputs} outputs, and {len(class_names)} class_names")
    if labels.groups is not None and all(labels.groups) and outputs == labels.source_size:
        if class_names is None or labels.source_names is None:
            return GroupedClassifier(classifier, labels.groups, outputs)
        order = _matched(class_names, labels.source_names, what).order
        return GroupedClassifier(classifier, [[order[index] for index in group] for group in labels.groups], outputs)
    if class_names is not None and (labels.groups is None or outputs == len(labels)):
        match = _matched(class_names, labels.names, what)
        in_order = match.order == list(range(outputs))
        return classifier if in_order else GroupedClassifier(classifier, [[place] for place in match.order], outputs)
    if outputs == len(labels):
        return classifier
    if labels.groups is not None and labels.source_size is None and outputs > max(map(max, labels.groups)):
        return GroupedClassifier(classifier, labels.groups, outputs)
    also = (
        f" (or the source's {labels.source_size} classes)" if labels.groups is not None and labels.source_size else ""
    )
    raise UserError(
        f"{what}: has {outputs} outputs for {len(labels)} labels{also}; choose weights trained for these labels"
    )


def has_weights(classifier: nn.Module, digest: str) -> bool:
    """Whether `digest` is of the network in a classifier, behind the same wrappers or behind others."""
    return digest in digests_of(classifier)


def digests_of(classifier: nn.Module) -> Iterator[str | None]:
    """The digests that the weights of a classifier may have on record: a recipe wraps the network that its maker handed
    over, which puts other names before those of its weights."""
    network = classifier
    while isinstance(network, Classifier | GroupedClassifier):
        network = network.network if isinstance(network, Classifier) else network.classifier
    yield weights_sha256(classifier, "")
    yield from (weights_sha256(network, names) for names in _WRAPPERS)


def check_same_answers(classifier: nn.Module) -> None:
    """Raises UserError where what is behind the address of a classifier was changed since it was first asked."""
    for part in classifier.modules():
        check = getattr(part, "check_same_answers", None)
        if callable(check):
            check()


def left_out_note(answering: nn.Module | None, labels: Labels) -> str | None:
    """A note on a classifier that knows more classes than there are labels; None where it does not.

    Where the source's classes are grouped, leaving some out was somebody's choice.
    """
    if labels.groups is not None or not isinstance(answering, GroupedClassifier) or not answering.left_out:
        return None
    return (
        f"chooses only among the {len(labels)} labels, not among its {answering.left_out} other classes, which is "
        "an easier task; to let it choose those too, list all its classes in source.classes (a file of names will do)"
    )


def _matched(class_names: Sequence[str], names: Sequence[str], what: str) -> Match:
    """A classifier's classes found by their names. Raises UserError where they are not."""
    match = match_classes(class_names, names)
    if match is None:
        raise UserError(
            f"{what}: its classes ({_few(class_names)}) don't match the labels ({_few(names)}) by name; list its "
            "classes, spelled like the labels and in the order of its outputs, as class_names of its section"
        )
    return match


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
