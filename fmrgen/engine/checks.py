"""Checks of what `perturb` is given: input that would silently make wrong rows is refused at once."""

from torch import Tensor, nn

from fmrgen.engine.images import as_float32
from fmrgen.engine.interfaces import Judgement
from fmrgen.errors import UserError
from fmrgen.records import Example

_ROUNDING = 1e-3
_OVERSHOOT = 0.5  # of a decoder that does not clamp; one that decodes to -1 to 1, or to 255, goes further


def check_classifier(classifier: nn.Module) -> None:
    """Raise UserError if the classifier is in training mode, where its outputs are random.

    Only its innermost modules count: the flag of a new wrapper around a network in evaluation mode means nothing.
    """
    for module in classifier.modules():
        is_innermost = not list(module.children())
        if is_innermost and module.training:
            raise UserError("classifier: is in training mode; call eval()")


def check_example(example: Example, size: int) -> None:
    """Raise UserError unless the image is float [3, size, size] in [0, 1] and the label is a class."""
    image = example.image
    subject = f"example {example.id}: its image"
    cure = "give RGB [3, H, W], as floats from 0 to 1 (for bytes: image / 255)"
    if not isinstance(image, Tensor):
        raise UserError(f"{subject} is a {type(image).__name__}, not a tensor; {cure}")
    if image.ndim != 3 or len(image) != 3:
        raise UserError(f"{subject} has the shape {list(image.shape)}; {cure}")
    if image.shape[1:] != (size, size):
        raise UserError(
            f"{subject} has {image.shape[2]}×{image.shape[1]} pixels, and the generator takes {size}×{size}; resize it"
        )
    if not image.is_floating_point():
        raise UserError(f"{subject} is of {image.dtype}; {cure}")
    low, high = image.min().item(), image.max().item()
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise UserError(f"{subject} has values from {low:.3g} to {high:.3g}; {cure}")
    if example.label < 0:
        raise UserError(f"example {example.id}: its label is {example.label}; classes count from 0")


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise UserError if a label of `labels` [B] is not among the classifier's classes."""
    highest = int(labels.max())
    if highest >= classes:
        raise UserError(f"classifier: has {classes} outputs, and an example has the label {highest}")


def check_decoded(images: Tensor) -> None:
    """Raise UserError if what a generator decodes, [B, 3, H, W], is on another scale than from 0 to 1."""
    values = images.detach()
    low, high = values.min().item(), values.max().item()
    if low < -_OVERSHOOT or high > 1 + _OVERSHOOT:
        raise UserError(
            f"generator: decodes to values from {low:.3g} to {high:.3g}; they must be from 0 to 1 (divide by 255, or "
            "map -1 to 1 by images / 2 + 0.5)"
        )


def checked_judgement(judgement: object, images: Tensor) -> Judgement:
    """Return an oracle's output for images [B, …], in full precision.

    Raises UserError if it is not a judgement, or one of another number of images.
    """
    if not isinstance(judgement, Judgement) or not all(isinstance(part, Tensor) for part in judgement[:2]):
        raise UserError(
            f"oracle: judge returns a {type(judgement).__name__}; it must return fmrgen.Judgement(probabilities, "
            "score), [B, K] each"
        )
    probabilities, score = as_float32(judgement.probabilities), as_float32(judgement.score)
    if not len(probabilities) == len(score) == len(judgement.decided) == len(images):
        raise UserError(f"oracle: returns {len(probabilities)} judgements for {len(images)} images")
    return judgement._replace(probabilities=probabilities, score=score)
