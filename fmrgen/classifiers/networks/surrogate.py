"""One network's answers with another's gradient."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fmrgen.classifiers.base import answer_in_labels
from fmrgen.errors import UserError
from fmrgen.labels import Labels
from fmrgen.weights.digest import weights_sha256


class WithGradientOf(nn.Module):
    """`forward` takes images [B, 3, H, W] and returns the logits [B, K] of `classifier`.

    A gradient with respect to these reaches the images through `surrogate`. The weights are those of `classifier`
    alone, which is what is tested; `surrogate_sha256` is the digest of the surrogate's.
    """

    def __init__(self, classifier: nn.Module, surrogate: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.surrogate_sha256 = weights_sha256(surrogate)
        self._guide = _guide_of(surrogate.eval())

    @property
    def class_names(self) -> list[str] | None:
        names = getattr(self.classifier, "class_names", None)
        if names is None:
            return None
        return list(names)

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            answers: Tensor = self.classifier(images.detach())
        if not (torch.is_grad_enabled() and images.requires_grad):
            return answers
        guide_logits = self._guide(images, answers.shape[1], self.class_names)
        logits: Tensor = _Answers.apply(guide_logits, answers)
        return logits


class _Answers(torch.autograd.Function):
    """Returns the answers exactly, and passes their gradient to the guide's logits, of the same shape."""

    @staticmethod
    def forward(ctx: Any, guide: Tensor, answers: Tensor) -> Tensor:
        return answers.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None


def _guide_of(surrogate: nn.Module) -> Callable[[Tensor, int, list[str] | None], Tensor]:
    """Return a function to the surrogate's logits in the classes of another network.

    It is a function so that the surrogate's weights do not count as that network's.
    """
    fitted: list[nn.Module] = []

    def guide(images: Tensor, outputs: int, names: list[str] | None) -> Tensor:
        if not fitted:
            fitted.append(_fitted(surrogate, images[:1].detach(), outputs, names))
        logits: Tensor = fitted[0](images)
        return logits

    return guide


@torch.no_grad()
def _fitted(surrogate: nn.Module, image: Tensor, outputs: int, names: list[str] | None) -> nn.Module:
    """Return the surrogate with outputs in the order of `names`. Raises UserError if it has another number of them."""
    section = "classifier.surrogate"
    if names is not None and getattr(surrogate, "class_names", None) is not None:
        surrogate = answer_in_labels(surrogate, Labels(tuple(names)), image, section).eval()
    surrogate_outputs = surrogate(image).shape[1]
    if surrogate_outputs != outputs:
        raise UserError(f"{section}: has {surrogate_outputs} outputs, and the classifier {outputs}")
    return surrogate
