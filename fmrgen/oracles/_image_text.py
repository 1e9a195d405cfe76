"""Image-text models as oracles (paper §3.2): the probability of each label's prompt given the image."""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from annotated_types import MinLen
from pydantic import AfterValidator, Field, model_validator

from fmrgen.config import Revision
from fmrgen.engine.interfaces import NONE, Judgement, Oracle, Originals
from fmrgen.errors import UserError
from fmrgen.labels import Labels
from fmrgen.oracles._class_prompts import names_in_prompts
from fmrgen.oracles.base import OracleConfig

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

TEXTS_AT_ONCE = 32  # always filled up: the last bits of smaller batches depend on the number of threads


def in_full_precision() -> "AbstractContextManager[Any]":
    """Return a context in which GPUs do not round the patches of an image model to 10 bits.

    If the model is compiled, torch chooses the precision.
    """
    import torch

    if torch.compiler.is_compiling():
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def _check_template(template: str) -> str:
    """Return `template`. Raises ValueError unless it contains {class}."""
    if "{class}" not in template:
        raise ValueError(f"the prompt {template!r} has no {{class}} in it")
    return template


Prompts = Annotated[list[Annotated[str, AfterValidator(_check_template)]], MinLen(1)]


class ImageTextConfig(OracleConfig):
    """The config of an image-text oracle. Several prompts are averaged as CLIP's authors do."""

    PLACES = ("model",)

    model: str
    revision: Revision = None
    prompts: Prompts = Field(["an image of {class}"])
    first_synonym: bool = Field(
        False,
        description="of a name such as `tench, Tinca tinca` use only `tench`, or the next synonym where another class "
        "has that name",
    )
    class_prompts: dict[str, str] = Field({}, description="a class's name → what it is called in prompts instead")

    @property
    def is_image_text(self) -> bool:
        return True

    @property
    def sigmoid_threshold(self) -> float | None:
        """The lowest probability at which the sigmoid sees a class; None if the softmax decides."""
        return None


class DecidingConfig(ImageTextConfig):
    """The config of an image-text oracle that decides by the softmax or by the sigmoid."""

    prompts: Prompts = Field(["This is a photo of {class}."])
    decide: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="softmax: which class it is; sigmoid: whether it is each class, so that it can be none"
    )
    threshold: float = Field(
        0.5, gt=0, lt=1, description="with sigmoid, the lowest probability at which a class counts as seen"
    )

    @model_validator(mode="after")
    def _threshold_belongs_to_the_sigmoid(self) -> Self:
        if self.decide == "softmax" and "threshold" in self.model_fields_set and self.threshold != 0.5:
            raise ValueError("threshold is the sigmoid's: set decide: sigmoid, or perturb.min_probability instead")
        return self

    @property
    def sigmoid_threshold(self) -> float | None:
        return self.threshold if self.decide == "sigmoid" else None


class ImageTextOracle(Oracle):
    """Judges by the cosines of an image and each label's prompt; these are the score.

    It runs in float32 on the 8-bit image, prepared as the model's own files say: anyone gets the same from the stored
    PNG.

    The features of several prompts are averaged. The softmax decides which of the labels an image shows, the sigmoid
    whether it shows each of them: then an image without a label of at least the probability `threshold` is `NONE`.
    """

    derived = ("_text",)

    def __init__(self, model: Any, tokenizer: Any, config: ImageTextConfig) -> None:
        self.model, self.tokenizer, self.config = model, tokenizer, config
        self.threshold = config.sigmoid_threshold
        self._text: Tensor | None = None

    @abstractmethod
    def text_features(self, texts: Sequence[str]) -> "Tensor":
        """Return the features [N, D] of texts. Raises UserError if one is too long."""

    @abstractmethod
    def image_features(self, images: "Tensor") -> "Tensor":
        """Return the features [B, D] of 8-bit images, uint8 [B, 3, H, W]."""

    @abstractmethod
    def scale_and_bias(self) -> "tuple[Tensor | float, Tensor | float]":
        """Return the factor and the summand that make logits of cosines."""

    def set_labels(self, labels: Labels) -> None:
        import torch
        from torch.nn.functional import normalize

        names = names_in_prompts(labels.names, self.config.first_synonym, self.config.class_prompts)
        features = []
        for prompt in self.config.prompts:
            texts = [prompt.replace("{class}", name) for name in names]
            padding = texts[-1:] * (-len(texts) % TEXTS_AT_ONCE)
            with torch.no_grad():
                text_features = self.text_features(texts + padding)[: len(texts)]  # [K, D]
                features.append(normalize(text_features, dim=-1))
        self._text = normalize(torch.stack(features).mean(dim=0), dim=-1)

    def judge(self, images: "Tensor", originals: Originals | None = None) -> Judgement:
        import torch

        from fmrgen.engine.images import to_bytes

        with torch.no_grad():
            score = self.cosines(self.image_features(to_bytes(images)))
            logits = self.to_logits(score)
        if self.threshold is None:
            return Judgement(logits.softmax(dim=-1), score)
        probabilities = logits.sigmoid()
        highest = probabilities.max(dim=1)
        labels = highest.indices.masked_fill(highest.values < self.threshold, NONE)
        return Judgement(probabilities, score, labels)

    def to_logits(self, score: "Tensor") -> "Tensor":
        """Return the logits of cosines."""
        scale, bias = self.scale_and_bias()
        return score * scale + bias

    def cosines(self, features: "Tensor") -> "Tensor":
        """Return the cosines [B, K] of image features [B, D] with the labels."""
        from torch.nn.functional import normalize

        if self._text is None:
            raise UserError("oracle: does not know its labels yet; call set_labels(fmrgen.Labels(names)) first")
        return normalize(features, dim=-1) @ self._text.T


def check_read_apart(texts: Sequence[str], ids: Sequence[Sequence[int]]) -> None:
    """Raise UserError if two texts have the same tokens, as they have for a tokenizer without its files.

    `ids` are the tokens of each text.
    """
    seen: dict[tuple[int, ...], str] = {}
    for text, tokens in zip(texts, ids, strict=True):
        other = seen.setdefault(tuple(tokens), text)
        if other != text:
            raise UserError(
                f"oracle.prompts: {other!r} and {text!r} are the same to its tokenizer; are the tokenizer's files "
                "there, and do the classes differ in more than punctuation?"
            )
