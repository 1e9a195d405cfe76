"""Image-text models as oracles (paper §3.2): the probability of each label's prompt given the image."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from annotated_types import MinLen
from pydantic import AfterValidator, Field, model_validator

from fmrgen.config import SINCE_0_2
from fmrgen.engine.interfaces import NONE, Judgement, Oracle, Originals
from fmrgen.errors import UserError
from fmrgen.labels import Labels
from fmrgen.oracles._class_prompts import names_in_prompts
from fmrgen.oracles.base import OracleConfig

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

TEXTS_AT_ONCE = 32  # always filled: few at a time would get other last bits on another number of threads


def in_full_precision() -> "AbstractContextManager[Any]":
    """Around an image model, whose patches GPUs would else round to 10 bits; compiled, torch chooses itself."""
    import torch

    if torch.compiler.is_compiling():
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def _names_the_class(template: str) -> str:
    if "{class}" not in template:
        raise ValueError(f"the prompt {template!r} has no {{class}} in it")
    return template


Prompts = Annotated[list[Annotated[str, AfterValidator(_names_the_class)]], MinLen(1)]


class ImageTextConfig(OracleConfig):
    """What the configs of image-text oracles share. Several prompts are averaged as CLIP's authors do."""

    prompts: Prompts = Field(["an image of {class}"])
    first_synonym: bool = Field(
        False,
        description="of a name such as `tench, Tinca tinca` use only `tench`, or the next synonym where another class "
        "has that name",
    )
    class_prompts: dict[str, str] = Field(
        {}, description="a class's name → what it is called in prompts instead", json_schema_extra=SINCE_0_2
    )

    @property
    def is_image_text(self) -> bool:
        return True


class DecidingConfig(ImageTextConfig):
    """Those whose logits may be taken by the sigmoid, too."""

    prompts: Prompts = Field(["This is a photo of {class}."])
    decide: Literal["softmax", "sigmoid"] = Field(
        "softmax",
        description="softmax: which class it is; sigmoid: whether it is each class, so that it can be none",
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
    def prompted(self) -> tuple[Any, ...]:
        """What `ImageTextOracle` is made with."""
        return self.prompts, self.first_synonym, self.class_prompts, self.decide, self.threshold


class ImageTextOracle(Oracle):
    """Runs in float32 on the 8-bit image, prepared as the model's own files say: what anyone gets from the stored PNG.

    The score is the cosine of the image and each label's prompt. Its logits become probabilities by the softmax, which
    of the labels it is, or by the sigmoid, whether it is one at all: then an image without a label of at least
    `threshold` is `NONE`.
    """

    derived = ("_text",)

    def __init__(
        self,
        prompts: Sequence[str],
        first_synonym: bool,
        class_prompts: Mapping[str, str],
        decide: Literal["softmax", "sigmoid"] = "softmax",
        threshold: float = 0.5,
    ) -> None:
        self.prompts = prompts
        self.first_synonym, self.class_prompts = first_synonym, class_prompts
        self.decide, self.threshold = decide, threshold
        self._text: Tensor | None = None

    @abstractmethod
    def text_features(self, texts: Sequence[str]) -> "Tensor":
        """The features [N, D] of texts. Raises UserError for one that is too long."""

    @abstractmethod
    def image_features(self, images: "Tensor") -> "Tensor":
        """The features [B, D] of 8-bit images, uint8 [B, 3, H, W]."""

    @abstractmethod
    def scale_and_bias(self) -> "tuple[Tensor | float, Tensor | float]":
        """By what the model multiplies cosines, and what it adds, to make logits of them."""

    def set_labels(self, labels: Labels) -> None:
        import torch
        from torch.nn.functional import normalize

        names = names_in_prompts(labels.names, self.first_synonym, self.class_prompts)
        features = []
        for prompt in self.prompts:
            texts = [prompt.replace("{class}", name) for name in names]
            filled = texts + texts[-1:] * (-len(texts) % TEXTS_AT_ONCE)
            with torch.no_grad():
                features.append(normalize(self.text_features(filled)[: len(texts)], dim=-1))
        self._text = normalize(torch.stack(features).mean(dim=0), dim=-1)

    def judge(self, images: "Tensor", originals: Originals | None = None) -> Judgement:
        import torch

        from fmrgen.engine.images import to_bytes

        with torch.no_grad():
            score = self.cosines(self.image_features(to_bytes(images)))
            logits = self.to_logits(score)
        if self.decide == "softmax":
            return Judgement(logits.softmax(dim=-1), score)
        probabilities = logits.sigmoid()
        highest = probabilities.max(dim=1)
        labels = highest.indices.masked_fill(highest.values < self.threshold, NONE)
        return Judgement(probabilities, score, labels)

    def to_logits(self, score: "Tensor") -> "Tensor":
        """The logits of cosines."""
        scale, bias = self.scale_and_bias()
        return score * scale + bias

    def cosines(self, features: "Tensor") -> "Tensor":
        """The cosines [B, K] of image features [B, D] with the labels."""
        from torch.nn.functional import normalize

        if self._text is None:
            raise UserError("oracle: does not know its labels yet; call set_labels(fmrgen.Labels(names)) first")
        return normalize(features, dim=-1) @ self._text.T


def check_read_apart(texts: Sequence[str], ids: Sequence[Sequence[int]]) -> None:
    """Raises UserError for two texts that are one to a tokenizer, as they are to one without its files; `ids` are their
    tokens."""
    seen: dict[tuple[int, ...], str] = {}
    for text, of_text in zip(texts, ids, strict=True):
        if (other := seen.setdefault(tuple(of_text), text)) != text:
            raise UserError(
                f"oracle.prompts: {other!r} and {text!r} are the same to its tokenizer; are the tokenizer's files "
                "there, and do the classes differ in more than punctuation?"
            )
