"""Any model of timm, behind timm's own evaluation transform for it."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from fmrgen.config import ClassifierConfig, HubModel
from fmrgen.errors import UserError, one_line
from fmrgen.trust.recipes import LARGEST_INPUT, shapes_a_network

if TYPE_CHECKING:
    import torch
    from torch import nn


class Config(ClassifierConfig):
    """`model` is a timm name; give its tag too (`resnet50.tv_in1k`), a bare name loads timm's default weights."""

    ARGUMENTS = "model_args"

    PLACES = ("checkpoint",)

    kind: str = "timm"
    model: str
    pretrained: bool = True
    checkpoint: str | None = Field(None, description="a file of your own weights, instead of the pretrained ones")
    model_args: Annotated[dict[str, Any], AfterValidator(shapes_a_network)] = Field(
        {}, description="passed to timm.create_model, for example num_heads"
    )
    data_config: Annotated[dict[str, Any], AfterValidator(partial(shapes_a_network, largest=LARGEST_INPUT))] = Field(
        {}, description="overrides of timm's data config, for example mean and std"
    )

    def hub_model(self) -> HubModel | None:
        if not self.pretrained or self.checkpoint is not None:
            return None
        import timm

        try:
            repo = timm.get_pretrained_cfg(self.model).hf_hub_id
        except (RuntimeError, AttributeError):  # there is no such model, which building it says better
            return None
        return HubModel(repo, None, ("",)) if repo else None

    def build(self, device: "torch.device | str" = "cpu") -> "nn.Module":
        import timm
        from timm.data import create_transform, resolve_data_config

        from fmrgen.classifiers.base import Classifier, without_waiting
        from fmrgen.weights.checkpoint import freeze, load_checkpoint

        architecture = self.model.partition(".")[0]
        if architecture not in timm.list_models():
            similar = timm.list_models(f"*{architecture[:6]}*")[:3]
            such_as = f", such as {', '.join(similar)}" if similar else ""
            raise UserError(f"classifier.model: timm has no {self.model}; see timm.list_models(){such_as}")
        pretrained = self.pretrained and self.checkpoint is None
        try:
            model = timm.create_model(self.model, pretrained=pretrained, **self.model_args)
        except (RuntimeError, TypeError, ValueError, OSError, AssertionError) as error:
            arguments = f" of {self.model_args}" if self.model_args else ""
            raise UserError(f"classifier.model: timm can't create {self.model}{arguments}: {one_line(error)}") from None
        if self.checkpoint is not None:
            load_checkpoint(model, self.checkpoint)
        preprocess = create_transform(**resolve_data_config(self.data_config, model=model), is_training=False)
        preprocess.transforms = without_waiting(preprocess.transforms)
        names = self.class_names or None
        if names is None and (self.pretrained or self.checkpoint is not None):
            names = _imagenet_names(model)
        return freeze(Classifier(model, preprocess, names, self.channels), device)


def _imagenet_names(model: Any) -> list[str] | None:
    """Return the names of a model's classes if it has as many as one of the ImageNets; else None."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(model)
    if not subset:
        return None
    return ImageNetInfo(subset).label_descriptions()
