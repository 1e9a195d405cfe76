"""The classifier θ: images in [0, 1] to logits over the job's labels. Resizing and normalisation are part of it."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn

from fmrgen.classifiers.networks.asked_in_words import AskedInWords
from fmrgen.engine.images import as_float32
from fmrgen.errors import UserError
from fmrgen.labels import Labels, Match, match_classes
from fmrgen.weights.digest import weights_digests, weights_of, weights_sha256

# What wrappers put before the names of a network's parameters: a `Classifier`, up to two `GroupedClassifier`, or both.
_WRAPPERS = [*map("".join, product(("", "classifier.", "classifier.classifier."), ("", "network.")))]

Interpolation = Literal["auto", "bicubic", "bilinear"]


class Classifier(nn.Module):
    """A network behind its own preprocessing.

    `forward` takes images [B, 3, H, W] in [0, 1] of any size and returns logits [B, K]; gradients reach the images.

    Args:
        network: takes preprocessed images and returns logits, or an output of transformers that holds them.
        preprocess: differentiable; treats every image by itself.
        class_names: the names of the outputs; None if they are not known.
        channels: with gray, images lose their colours before `preprocess` (the paper's App. H).
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
        if self.channels == "gray":
            images = without_colours(images)
        output = self.network(self.preprocess(images))
        return getattr(output, "logits", output)  # transformers' models wrap their logits


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def preprocessing_of(network: nn.Module) -> str:
    """Return in a line how a network is shown images, before its own layers."""
    for part in network.modules():
        if isinstance(part, Classifier):
            grey = "in grey, " if part.channels == "gray" else ""
            return grey + " ".join(repr(part.preprocess).split())
    return "in [0, 1]"


def without_colours(images: Tensor) -> Tensor:
    """Return the luma (Rec. 601) of images [B, 3, H, W], in three equal channels."""
    luma = (images * _channels((0.299, 0.587, 0.114), images)).sum(1, keepdim=True)
    return luma.expand_as(images)


class Normalize:
    """Resizes the shorter side to `size`, crops the centre, and returns (x - mean) / std.

    `mean` and `std` are of each channel; `size` is in pixels, and None keeps the size. The interpolation `auto`
    averages over pixels if `size` divides the shorter side, which restores an enlarged image exactly; otherwise it is
    bicubic, antialiased and clamped to [0, 1]. Bilinear blurs, which costs networks for small images some accuracy.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        size: int | None = None,
        interpolation: Interpolation = "auto",
    ) -> None:
        self.mean = [float(value) for value in mean]
        self.std = [float(value) for value in std]
        self.size = size
        self.interpolation = interpolation

    def __repr__(self) -> str:
        size = "" if self.size is None else f"shorter side {self.size} px ({self.interpolation}), centre, "
        if not any(self.mean) and set(self.std) == {1.0}:
            return f"{size}in [0, 1]"
        return f"{size}less {_listed(self.mean)}, over {_listed(self.std)}"

    def __call__(self, images: Tensor) -> Tensor:
        if self.size is not None and images.shape[-2:] != (self.size, self.size):
            images = self._resized(images, self.size)
        return (images - _channels(self.mean, images)) / _channels(self.std, images)

    def _resized(self, images: Tensor, size: int) -> Tensor:
        height, width = images.shape[-2:]
        shorter = min(height, width)
        if self.interpolation == "auto" and shorter % size == 0:
            images = nn.functional.avg_pool2d(images, shorter // size)
            height, width = images.shape[-2:]
            return _cropped(images, (height - size) // 2, (width - size) // 2, size)
        # As torchvision resizes and crops, whose import takes a second of every command.
        height, width = int(size * height / shorter), int(size * width / shorter)
        mode = "bicubic" if self.interpolation == "auto" else self.interpolation
        resized = nn.functional.interpolate(
            as_float32(images), size=(height, width), mode=mode, align_corners=False, antialias=True
        )
        resized = resized.to(images.dtype).clamp(0, 1)
        return _cropped(resized, round((height - size) / 2), round((width - size) / 2), size)


def _cropped(images: Tensor, top: int, left: int, size: int) -> Tensor:
    return images[..., top : top + size, left : left + size]


def without_waiting(steps: Iterable[Callable[[Tensor], Tensor]]) -> list[Callable[[Tensor], Tensor]]:
    """Return steps of preprocessing with our `Normalize` instead of torchvision's; results are equal to the bit.

    torchvision's copies its values to the device for every batch and then waits for it, and can't be compiled.
    """
    from torchvision.transforms import Normalize as TorchvisionNormalize

    return [Normalize(step.mean, step.std) if isinstance(step, TorchvisionNormalize) else step for step in steps]


def _channels(values: Sequence[float], images: Tensor) -> Tensor:
    """Return a value for each channel, [C, 1, 1], of the images' type and on their device."""
    if torch.compiler.is_compiling():  # the compiler makes a constant of it, and warns of caches
        return images.new_tensor(values).view(-1, 1, 1)
    return _cached_channels(tuple(values), images.dtype, images.device)


@lru_cache(64)
def _cached_channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the values [C, 1, 1], copied to the device once and not for every batch."""
    with torch.inference_mode(False):  # later calls may need a normal tensor, whatever the mode of the first
        return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)


class GroupedClassifier(nn.Module):
    """A classifier over source classes that answers over groups of them.

    A group's logit is the log of its summed exp(logit): after softmax the sum of the probabilities in each group, over
    the groups alone. Groups of one class each select classes or reorder them.

    `groups` are the source classes of each label; `left_out` is how many of the `outputs` are in no group.
    """

    def __init__(self, classifier: nn.Module, groups: Sequence[Sequence[int]], outputs: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.groups = [list(group) for group in groups]
        self.left_out = outputs - sum(len(group) for group in self.groups)

    def forward(self, images: Tensor) -> Tensor:
        logits = as_float32(self.classifier(images))
        if all(len(group) == 1 for group in self.groups):
            return logits[:, [group[0] for group in self.groups]]
        grouped = [logits[:, group].logsumexp(dim=1) for group in self.groups]
        return torch.stack(grouped, dim=1)


def outputs_of_one(logits: object, section: str) -> int:
    """Return the number of outputs in what a classifier returned for one image.

    Raises UserError, which names the `section`, unless these are logits [1, K].
    """
    if not isinstance(logits, Tensor):
        raise UserError(f"{section}: must return logits of shape [B, K], one image gave a {type(logits).__name__}")
    if logits.ndim != 2 or len(logits) != 1:
        raise UserError(f"{section}: must return logits of shape [B, K], one image gave {tuple(logits.shape)}")
    return logits.shape[1]


def in_labels(classifier: nn.Module, labels: Labels, image: Tensor, section: str) -> nn.Module:
    """Return `classifier`, wrapped if necessary, so that it answers in `labels`: in their order and groups.

    If the classifier has `class_names`, its outputs are matched by name: to the labels, or to the source's own classes.
    Otherwise as many outputs as labels are taken to be in their order. One that is asked in words, and has no names of
    its own, gets the labels.

    It is tried on `image`, [1, 3, H, W]. Raises UserError, which names the `section`, if its outputs fit neither the
    labels nor the source's classes.
    """
    network = classifier.network if isinstance(classifier, Classifier) else None
    if isinstance(network, AskedInWords) and classifier.class_names is None:
        network.set_labels(labels)
        return classifier
    with torch.no_grad():
        outputs = outputs_of_one(classifier(image), section)
    class_names = getattr(classifier, "class_names", None)
    if class_names is not None and len(class_names) != outputs:
        raise UserError(f"{section}: has {outputs} outputs, and {len(class_names)} class_names")
    groups = _output_groups(outputs, class_names, labels, section)
    if groups is None:
        return classifier
    return GroupedClassifier(classifier, groups, outputs)


def _output_groups(
    outputs: int, class_names: Sequence[str] | None, labels: Labels, section: str
) -> Sequence[Sequence[int]] | None:
    """Return the outputs that each label gathers; None if the outputs are the labels, in their order.

    Arguments and errors are those of `in_labels`.
    """
    if labels.groups is not None and all(labels.groups) and outputs == labels.source_size:
        if class_names is None or labels.source_names is None:
            return labels.groups
        order = _match_by_name(class_names, labels.source_names, section).order
        groups = []
        for group in labels.groups:
            groups.append([order[source_class] for source_class in group])
        return groups
    if class_names is not None and (labels.groups is None or outputs == len(labels)):
        order = _match_by_name(class_names, labels.names, section).order
        if order == list(range(outputs)):
            return None
        return [[output] for output in order]
    if outputs == len(labels):
        return None
    if labels.groups is not None and labels.source_size is None and outputs > max(map(max, labels.groups)):
        return labels.groups
    alternative = ""
    if labels.groups is not None and labels.source_size:
        alternative = f" (or the source's {labels.source_size} classes)"
    raise UserError(
        f"{section}: has {outputs} outputs for {len(labels)} labels{alternative}; choose weights trained for these "
        "labels, or list the names of its outputs as class_names; a class without images needs an empty folder"
    )


def digests_of(classifier: nn.Module) -> set[str | None]:
    """Return the digests that the weights of a classifier may have on record.

    A recipe wraps the network that the caller handed over, which changes the names of its weights.
    """
    network, prefix = classifier, ""
    while isinstance(network, Classifier | GroupedClassifier):
        attribute = "network" if isinstance(network, Classifier) else "classifier"
        network, prefix = getattr(network, attribute), f"{prefix}{attribute}."
    if len([*weights_of(classifier)]) == len([*weights_of(network)]):  # the wrappers have no weights of their own
        return {*weights_digests(network, [*_WRAPPERS, prefix])}
    return {weights_sha256(classifier), *weights_digests(network, _WRAPPERS)}


def left_out_note(answering: nn.Module | None, labels: Labels) -> str | None:
    """Return a note on a classifier that knows more classes than there are labels; None if it does not.

    There is no note if the source's classes are grouped: then leaving some out was a choice.
    """
    if labels.groups is not None or not isinstance(answering, GroupedClassifier) or not answering.left_out:
        return None
    return (
        f"chooses only among the {len(labels)} labels, not among its {answering.left_out} other classes, which is "
        "an easier task; to let it choose those too, list all its classes in source.classes (a file of names will do)"
    )


def _match_by_name(class_names: Sequence[str], names: Sequence[str], section: str) -> Match:
    """Return which of a classifier's classes the `names` are. Raises UserError if they do not match."""
    match = match_classes(class_names, names)
    if match is None:
        raise UserError(
            f"{section}: its classes ({_few(class_names)}) don't match the labels ({_few(names)}) by name; list its "
            "classes, spelled like the labels and in the order of its outputs, as class_names of its section"
        )
    return match


def _few(names: Sequence[str]) -> str:
    """Return the first three names, for a message."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
