"""Any image classifier of transformers, behind its own image processor."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from fmrgen.config import ClassifierConfig, Revision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Config(ClassifierConfig):
    """`model` is a folder or a Hub id."""

    PLACES = ("model",)

    kind: str = "transformers"
    model: str
    revision: Revision = None
    trust_remote_code: bool = Field(False, description="run the repo's own code; read it first")

    def build(self, device: "torch.device | str" = "cpu") -> "nn.Module":
        from transformers import AutoModelForImageClassification

        from fmrgen.classifiers.base import Classifier
        from fmrgen.weights.checkpoint import freeze
        from fmrgen.weights.pretrained import image_processor, pretrained_model

        load: dict[str, Any] = self.model_dump(include={"revision", "trust_remote_code"})
        load |= {"reference": self.model, "key": "classifier.model"}
        model = pretrained_model(AutoModelForImageClassification, **load)
        processor = image_processor(**load)
        names = self.class_names or _class_names(model.config.id2label)
        return freeze(Classifier(model, _Processor(processor), names, self.channels), device)

    def code_it_runs(self) -> list[str]:
        if not self.trust_remote_code:
            return []
        return [f"that of {self.model} (trust_remote_code)"]


def _class_names(id2label: dict[int, str]) -> list[str] | None:
    """Return the names in a model's config; None if they are only transformers' placeholders."""
    names = [str(id2label[index]) for index in sorted(id2label)]
    placeholders = [f"LABEL_{index}" for index in range(len(names))]
    return None if names == placeholders else names


class _Processor:
    """Applies an image processor to a batch of float tensors; its torchvision backend keeps the gradient."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.settings: dict[str, Any] = {"do_rescale": False, "return_tensors": "pt"}

    def __call__(self, images: "Tensor") -> "Tensor":
        import torch

        if torch.compiler.is_compiling():  # the compiler can't follow how a processor checks its arguments
            setting_names = self.processor.valid_kwargs.__annotations__
            settings = {name: getattr(self.processor, name, None) for name in setting_names}
            settings |= self.settings
            pixels = self.processor._preprocess(list(images), **settings)["pixel_values"]
            return torch.stack(pixels) if isinstance(pixels, list) else pixels
        return self.processor(images=images, **self.settings)["pixel_values"]
