"""A classifier behind an address, which answers as the Hub's image-classification endpoints do. It has no gradients."""

import re
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer

from fmrgen.config import FINGERPRINT, ClassifierConfig
from fmrgen.errors import without_queries

if TYPE_CHECKING:
    import torch
    from torch import nn


# Keys of the section that do not change the answers.
_HOW = ("requests", "timeout", "kept_hours", "rate", "max_queries")

# Query parameters that are stored. Any other one may be a secret key, whatever it is called.
_HARMLESS = (
    "api-version",
    "api_version",
    "version",
    "v",
    "model",
    "model_name",
    "deployment",
    "revision",
    "task",
    "top_k",
)
_PLAIN_VALUE = re.compile(r"[\w./-]{1,64}")


def _check_address(text: str) -> str:
    """Return `text`. Raises ValueError for an address that would carry a secret into provenance, reports and cards.

    Errors show no value of its query.
    """
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"{without_queries(text)!r} must begin with http:// or https://")
    address = urlsplit(text)
    if "@" in address.netloc:
        raise ValueError(
            "an address with a password would be stored with every split; set FMRGEN_ENDPOINT_TOKEN instead"
        )
    if address.fragment:
        raise ValueError("what follows # in an address is never sent; leave it out")
    parameters = parse_qsl(address.query.replace(";", "&"), keep_blank_values=True)
    for name, value in parameters:
        if not value:
            raise ValueError(
                "a query that is one word may be a key, and would be stored with every split; set "
                "FMRGEN_ENDPOINT_QUERY to it, which is only sent"
            )
        if name.lower() not in _HARMLESS or not _PLAIN_VALUE.fullmatch(value):
            raise ValueError(
                f"{name}=… may be a key, and would be stored with every split; set FMRGEN_ENDPOINT_QUERY='{name}=…', "
                "which is only sent"
            )
    return text


class Config(ClassifierConfig):
    """`url` takes `{"inputs": PNG in base64, "parameters": {"top_k": K}}` and answers `[{"label": …, "score": …}, …]`.

    Without `class_names` its classes are those that it names for a grey image, which must be all. Answers are stored
    for `kept_hours` in fmrgen's cache: an interrupted command continues where it stopped. If the model has changed
    meanwhile, it is asked about everything again.

    To perturb against it, set `perturb.update: nes`. The options that say how to ask it are not part of a split's
    identity, except `batch`, since servers round differently in another batch.
    """

    PLACES = ("url",)

    kind: str = "endpoint"
    url: Annotated[str, AfterValidator(_check_address)]
    top_k: int = Field(1000, ge=1, description="classes to ask for; one without a score gets next to no probability")
    requests: int = Field(8, ge=1, le=256, description="sent at once")
    batch: int = Field(
        1, ge=1, le=1024, description="images in a request: more than one where `inputs` may be a list, answered by one"
    )
    timeout: float = Field(60.0, gt=0, description="seconds to wait for an answer")
    kept_hours: float = Field(24.0, ge=0, description="how long to keep answers; 0 keeps none")
    rate: float | None = Field(None, gt=0, description="most requests in a second, of all processes of a launch")
    max_queries: int | None = Field(
        None,
        ge=1,
        description="images to ask about in one launch; one that is asked again after a fault counts again, those by "
        "which kept answers are checked do not",
    )

    @model_serializer(mode="wrap")
    def _without_how(self, serialize: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        tree: dict[str, Any] = serialize(self)
        if info.context == FINGERPRINT:
            for key in _HOW:
                tree.pop(key, None)
        return tree

    def build(self, device: "torch.device | str" = "cpu") -> "nn.Module":
        from fmrgen.classifiers.networks.endpoint_client import Endpoint, EndpointClassifier

        return EndpointClassifier(Endpoint(**self.model_dump(exclude={"kind"}))).eval()
