"""A network in an ONNX file, run by onnxruntime: it has no gradients."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fmrgen.config import ClassifierConfig
from fmrgen.errors import UserError, one_line

if TYPE_CHECKING:
    import torch
    from torch import nn


class Config(ClassifierConfig):
    """`model` is the file; its only input is float [B, 3, H, W] or [B, H, W, 3], its first output logits [B, K].

    Images in [0, 1] are resized to `size`, by default the size of its input; `mean` and `std` are of a network that
    does not normalise them itself: (x - mean) / std. `class_names` are the names of its outputs.
    """

    FILES = ("model",)
    PLACES = ("model",)

    kind: str = "onnx"
    model: str
    mean: list[float] = Field([0.0, 0.0, 0.0], min_length=3, max_length=3)
    std: list[float] = Field([1.0, 1.0, 1.0], min_length=3, max_length=3)
    size: int | None = Field(None, ge=1, le=4096)
    interpolation: Literal["auto", "bicubic", "bilinear"] = Field("auto")

    def build(self, device: "torch.device | str" = "cpu") -> "nn.Module":
        from fmrgen.classifiers.base import Classifier, Normalize
        from fmrgen.weights.pretrained import local_file

        try:
            from fmrgen.classifiers.networks.onnx import OnnxNetwork

            network = OnnxNetwork(local_file(self.model, "classifier.model"), device)
        except ImportError as error:
            raise UserError(
                f"classifier: onnx needs the package {error.name}, which is not installed; pip install 'fmrgen[onnx]'"
            ) from None
        except UserError:
            raise
        except Exception as error:  # onnxruntime has errors of its own
            raise UserError(f"classifier.model: {self.model} can't be loaded: {one_line(error)}") from error
        preprocess = Normalize(self.mean, self.std, self.size or network.size, interpolation=self.interpolation)
        return Classifier(network, preprocess, self.class_names, self.channels).eval()
