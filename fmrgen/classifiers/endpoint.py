"""A classifier behind an address, which answers as the Hub's image-classification endpoints do. It has no gradients."""

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from fmrgen.config import ClassifierConfig

if TYPE_CHECKING:
    import torch
    from torch import nn


def _is_address(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"{text!r} must begin with http:// or https://")
    return text


class Config(ClassifierConfig):
    """`url` takes `{"inputs": PNG in base64, "parameters": {"top_k": K}}` and answers `[{"label": …, "score": …}, …]`.

    Without `class_names` its classes are those that it names for a grey image, which must be all. Answers are kept for
    `kept_hours` in fmrgen's cache: what was interrupted goes on where it stopped.
    """

    PLACES = ("url",)

    kind: str = "endpoint"
    url: Annotated[str, AfterValidator(_is_address)]
    top_k: int = Field(1000, ge=1, description="classes to ask for; a class without a score gets probability 0")
    requests: int = Field(8, ge=1, le=256, description="images sent at once")
    timeout: float = Field(60.0, gt=0, description="seconds to wait for an answer")
    kept_hours: float = Field(24.0, ge=0, description="how long to keep answers; 0 keeps none")

    def build(self, device: "torch.device | str" = "cpu") -> "nn.Module":
        from fmrgen.classifiers.networks.endpoint_client import Answers, EndpointClassifier

        answers = Answers(self.url, self.top_k, self.kept_hours, self.timeout)
        return EndpointClassifier(answers, self.requests, self.class_names, self.channels).eval()
