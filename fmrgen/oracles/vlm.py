"""A vision-language model as a judge, by the probabilities of the letters that it would answer."""

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from fmrgen.config import Revision
from fmrgen.engine.interfaces import NONE, Judgement, Oracle, Originals
from fmrgen.errors import UserError, one_line
from fmrgen.labels import Labels
from fmrgen.oracles._class_prompts import names_in_prompts
from fmrgen.oracles.base import OracleConfig
from fmrgen.recipe.sections import OracleField

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_LETTERS = string.ascii_uppercase


class Config(OracleConfig):
    """`model` is a folder or a Hub id of a model that takes an image and a chat, as Qwen3-VL, SmolVLM or InternVL.

    For splits of many classes another oracle selects a few candidates. It is slow: better for `fmrgen judge`, or as the
    last member of a panel, than for the loop.
    """

    PLACES = ("model",)

    kind: str = "vlm"
    model: str
    revision: Revision = None
    candidates: OracleField | None = Field(
        None, description="the oracle whose `top` likeliest classes are the options; by default all classes are"
    )
    top: int = Field(5, ge=2, le=len(_LETTERS) - 1, description="how many of its classes are options")
    question: str = "Which of these does the image show? Answer with the letter alone."
    none: str = Field("none of these", description="what the last option is called")
    first_synonym: bool = Field(True, description="of a name such as `tench, Tinca tinca` take only `tench`")
    class_prompts: dict[str, str] = Field({}, description="a class's name → what it is called among the options")
    batch: int = Field(8, ge=1, description="images per call, padded if fewer; another number changes the last bits")
    precision: Literal["fp32", "bf16"] = "fp32"

    def build(self, device: "torch.device | str" = "cpu") -> "VlmOracle":
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from fmrgen.weights.checkpoint import freeze
        from fmrgen.weights.pretrained import from_pretrained, pretrained_model

        load: dict[str, Any] = {"reference": self.model, "key": "oracle.model", "revision": self.revision}
        dtype = torch.float32 if self.precision == "fp32" else torch.bfloat16
        model: Any = freeze(pretrained_model(AutoModelForImageTextToText, **load).to(dtype), device)
        processor = from_pretrained(AutoProcessor, **load)
        candidates = self.candidates.build(device) if self.candidates is not None else None
        return VlmOracle(model, processor, candidates, self)


class VlmOracle(Oracle):
    """Asks which of some options an image shows, and compares the probabilities of the options' letters as next token.

    Each question is asked twice, with the options in two orders, since models prefer some letters to others, and the
    probabilities are averaged. Those of the options, `none` among them, sum to 1; all other classes have 0.

    `processor` has a tokenizer and a chat template; `candidates` selects the options for an image, None: all classes.
    """

    derived = ("_letter_ids",)

    def __init__(self, model: Any, processor: Any, candidates: Oracle | None, config: Config) -> None:
        self.model = model
        self.processor = processor
        self.candidates = candidates
        self.config = config
        self.needs_originals = candidates is not None and candidates.needs_originals
        self._names: list[str] = []
        self._letter_ids: Tensor | None = None
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None or not hasattr(processor, "apply_chat_template"):
            raise UserError(f"oracle.model: {config.model} has no processor with a tokenizer; it is no chat model")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    def set_labels(self, labels: Labels) -> None:
        self._names = names_in_prompts(labels.names, self.config.first_synonym, self.config.class_prompts)
        options = len(labels) if self.candidates is None else min(self.config.top, len(labels))
        if options >= len(_LETTERS):
            raise UserError(
                f"oracle: {options} classes are more options than there are letters; name an oracle that chooses some, "
                "oracle.candidates"
            )
        if self.candidates is not None:
            self.candidates.set_labels(labels)
        self._letter_ids = self._find_letter_ids(options + 1)

    def judge(self, images: "Tensor", originals: Originals | None = None) -> Judgement:
        import torch

        if self._letter_ids is None:
            raise UserError("oracle: does not know its labels yet; call set_labels(fmrgen.Labels(names)) first")
        options = self._options(images, originals)
        probabilities = torch.zeros(len(images), len(self._names) + 1, device=images.device)  # the last: no class
        batch = self.config.batch
        for start in range(0, len(images), batch):
            rows = list(range(start, min(start + batch, len(images))))
            padded = rows + rows[-1:] * (batch - len(rows))
            letters = options[padded]
            answers = self._ask(images[padded], letters)
            answers = (answers + self._ask(images[padded], letters.flip(1)).flip(1)) / 2
            answers = answers[: len(rows)].to(probabilities)
            probabilities[rows] = probabilities[rows].scatter(1, letters[: len(rows)], answers)
        decided = probabilities.argmax(1)
        labels = decided.masked_fill(decided == len(self._names), NONE)
        probabilities = probabilities[:, :-1].contiguous()
        return Judgement(probabilities, probabilities.clamp(min=1e-12).log(), labels)  # every logarithm is finite

    def _options(self, images: "Tensor", originals: Originals | None) -> "Tensor":
        """Return the labels that are options for each image, the likeliest first, and `none` as the last: [B, O]."""
        import torch

        none = torch.full((len(images), 1), len(self._names), device=images.device)
        if self.candidates is None:
            all_labels = torch.arange(len(self._names), device=images.device).expand(len(images), -1)
            return torch.cat([all_labels, none], 1)
        probabilities = self.candidates.judge(images, originals).probabilities
        likeliest = probabilities.topk(min(self.config.top, probabilities.shape[1]), dim=1).indices
        return torch.cat([likeliest, none], 1)

    def _ask(self, images: "Tensor", options: "Tensor") -> "Tensor":
        """Return the probability of each option [B, O], in the order of `options`."""
        import torch

        from fmrgen.engine.images import to_bytes

        names = [*self._names, self.config.none]
        prompts = []
        for row in options.tolist():
            prompts.append(self._prompt([names[option] for option in row]))
        pictures = [[image] for image in to_bytes(images).cpu()]
        inputs = self.processor(text=prompts, images=pictures, return_tensors="pt", padding=True, padding_side="left")
        inputs = inputs.to(self.model.device, dtype=self.model.dtype)
        with torch.no_grad():
            logits = self.model(**inputs).logits[:, -1].float()
        assert self._letter_ids is not None
        return logits[:, self._letter_ids[: options.shape[1]]].softmax(1)

    def _prompt(self, names: Sequence[str], with_image: bool = True) -> str:
        """Return the chat up to the beginning of the answer. Raises UserError if the model's template fails."""
        options = [f"{letter}. {name}" for letter, name in zip(_LETTERS, names, strict=False)]
        content = [{"type": "text", "text": "\n".join([self.config.question, *options])}]
        if with_image:
            content.insert(0, {"type": "image"})
        try:
            prompt: str = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
        except Exception as error:  # a template is a program of the model's files
            raise UserError(
                f"oracle.model: the chat template of {self.config.model} fails: {one_line(error)}"
            ) from None
        return prompt

    def _find_letter_ids(self, count: int) -> "Tensor":
        """Return the tokens [count] with which an answer would begin, for the first letters.

        Raises UserError if the chat template takes no image, or a letter is not one token.
        """
        import torch

        names = [*self._names, self.config.none][:count]
        prompt = self._prompt(names)
        if prompt == self._prompt(names, with_image=False):
            raise UserError(f"oracle.model: the chat template of {self.config.model} has no place for an image")
        prompt_length = len(self._tokens(prompt))
        letter_ids = []
        for letter in _LETTERS[:count]:
            letter_ids += self._tokens(prompt + letter)[prompt_length : prompt_length + 1]
        if len(set(letter_ids)) < count:
            raise UserError(
                f"oracle.model: the tokenizer of {self.config.model} does not have one token for each letter A, B, …"
            )
        return torch.tensor(letter_ids, device=self.model.device)

    def _tokens(self, text: str) -> list[int]:
        return list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])
