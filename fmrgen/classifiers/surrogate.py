"""A classifier without gradients that takes those of another one, its surrogate."""

from typing import TYPE_CHECKING, Annotated

from pydantic import SerializeAsAny

from fmrgen.config import ComponentConfig, component
from fmrgen.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn


AnyClassifier = Annotated[SerializeAsAny[ComponentConfig], component("fmrgen.classifiers")]


class Config(ComponentConfig):
    """`classifier` is tested; gradients are those of `surrogate`, which answers in the same classes.

    With `perturb.update: prior` the surrogate's gradient counts only as far as the classifier's answers confirm it.
    """

    PLACES = ()

    kind: str = "surrogate"
    classifier: AnyClassifier
    surrogate: AnyClassifier

    def build(self, device: "torch.device | str" = "cpu") -> "nn.Module":
        from fmrgen.classifiers.networks.surrogate import WithGradientOf

        built = []
        for name in ("classifier", "surrogate"):
            try:
                built.append(getattr(self, name).build(device))
            except UserError as error:  # it names the section `classifier`
                raise UserError(f"classifier.{name}: {error}") from None
        return WithGradientOf(*built).eval()
