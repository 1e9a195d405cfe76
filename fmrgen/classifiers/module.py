"""Any torch module by import path, with its own weights and normalisation."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from fmrgen.config import ClassifierConfig, import_object
from fmrgen.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn


def _check_import_path(text: str) -> str:
    """Return `text`. Raises ValueError unless it is package.module:Name."""
    if not re.fullmatch(r"[\w.]+:\w+", text):
        raise ValueError(f"{text!r} must be package.module:Name, as in my_models:Net")
    return text


class Config(ClassifierConfig):
    """`target` (`package.module:Name`) is a torch module, or a class or function that makes one from `args`.

    The module gets images (x - mean) / std, resized to `size` if that is set, and returns logits.
    """

    ARGUMENTS = "args"

    PLACES = ("checkpoint",)

    kind: str = "module"
    target: Annotated[str, AfterValidator(_check_import_path)]
    args: dict[str, Any] = Field({}, description="keyword arguments of the target")
    checkpoint: str | None = None
    mean: list[float] = Field([0.0, 0.0, 0.0], min_length=3, max_length=3)
    std: list[float] = Field([1.0, 1.0, 1.0], min_length=3, max_length=3)
    size: int | None = Field(None, ge=1)
    interpolation: Literal["auto", "bicubic", "bilinear"] = Field(
        "auto", description="how images of another size are resized to `size`; auto: pixels' means, or bicubic"
    )

    def check_places(self, section: str) -> None:
        super().check_places(section)
        try:
            import_object(self.target)  # a typo is an error before anything else is loaded
        except UserError:
            raise
        except (Exception, SystemExit):  # the module may run any code; `build` reports what went wrong
            return

    def build(self, device: "torch.device | str" = "cpu") -> "nn.Module":
        from torch import nn

        from fmrgen.classifiers.base import Classifier, Normalize
        from fmrgen.weights.checkpoint import freeze, load_checkpoint

        network = import_object(self.target)
        try:
            if self.args or not isinstance(network, nn.Module):
                network = network(**self.args)
        except TypeError as error:
            raise UserError(f"classifier.args: {self.target} can't be called with {self.args}: {error}") from error
        if not isinstance(network, nn.Module):
            raise UserError(f"classifier.target: {self.target} returned a {type(network).__name__}, not a torch module")
        if self.checkpoint is not None:
            load_checkpoint(network, self.checkpoint)
        preprocess = Normalize(self.mean, self.std, self.size, interpolation=self.interpolation)
        return freeze(Classifier(network, preprocess, self.class_names, self.channels), device)

    def code_it_runs(self) -> list[str]:
        return [self.target]
