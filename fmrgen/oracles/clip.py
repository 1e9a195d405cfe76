"""Zero-shot CLIP (paper §3.2): the probability of each label's prompt given the image."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from fmrgen.config import Revision
from fmrgen.engine.interfaces import Judgement, Oracle
from fmrgen.errors import UserError
from fmrgen.labels import Labels
from fmrgen.oracles._class_prompts import names_in_prompts
from fmrgen.oracles.base import OracleConfig
from fmrgen.trust.recipes import paths_among

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_TEXTS_AT_ONCE = 32  # always filled: few at a time would get other last bits on another number of threads


def _names_the_class(template: str) -> str:
    if "{class}" not in template:
        raise ValueError(f"the prompt {template!r} has no {{class}} in it")
    return template


class Config(OracleConfig):
    """`model` is a folder, an asset or a Hub id. Several prompts are averaged as CLIP's authors do."""

    kind: str = "clip"
    model: str = "openai/clip-vit-base-patch32"
    revision: Revision = None
    prompts: list[Annotated[str, AfterValidator(_names_the_class)]] = Field(["an image of {class}"], min_length=1)
    first_synonym: bool = Field(
        False,
        description="of a name such as `tench, Tinca tinca` take what is before the comma, or where another class is "
        "called so the next synonym",
    )
    class_prompts: dict[str, str] = Field({}, description="a class's name → what it is called in prompts instead")

    @property
    def is_image_text(self) -> bool:
        return True

    def build(self, device: "torch.device | str" = "cpu") -> "ClipOracle":
        from transformers import AutoTokenizer, CLIPModel

        from fmrgen.weights.checkpoint import freeze
        from fmrgen.weights.pretrained import from_pretrained, image_processor, pretrained_model

        load: dict[str, Any] = {"reference": self.model, "what": "oracle.model", "revision": self.revision}
        model = freeze(pretrained_model(CLIPModel, **load).float(), device)
        tokenizer = from_pretrained(AutoTokenizer, **load)
        processor = image_processor(**load)
        return ClipOracle(model, tokenizer, processor, self.prompts, self.first_synonym, self.class_prompts)

    def code_it_runs(self) -> list[str]:
        return []

    def places_it_reads(self) -> list[str]:
        return paths_among(self.model)


class ClipOracle(Oracle):
    """Runs in float32 on the 8-bit image, prepared by CLIP's own processor: what anyone gets from the stored PNG."""

    derived = ("_text",)

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        processor: Any,
        prompts: list[str],
        first_synonym: bool,
        class_prompts: Mapping[str, str],
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.processor = processor
        self.prompts = prompts
        self.first_synonym, self.class_prompts = first_synonym, class_prompts
        self._text: Tensor | None = None

    def set_labels(self, labels: Labels) -> None:
        import torch
        from torch.nn.functional import normalize

        limit = self.model.config.text_config.max_position_embeddings
        names = names_in_prompts(labels.names, self.first_synonym, self.class_prompts)
        features = []
        for prompt in self.prompts:
            texts = [prompt.replace("{class}", name) for name in names]
            filled = texts + texts[-1:] * (-len(texts) % _TEXTS_AT_ONCE)
            tokens = self.tokenizer(filled, padding=True, return_tensors="pt").to(self.model.device)
            if tokens["input_ids"].shape[1] > limit:
                longest = max(texts, key=len)
                raise UserError(f"oracle.prompts: {longest!r} is longer than the {limit} tokens that this CLIP reads")
            ids, mask = (tokens[name].split(_TEXTS_AT_ONCE) for name in ("input_ids", "attention_mask"))
            with torch.no_grad():
                outputs = [self.model.get_text_features(*batch).pooler_output for batch in zip(ids, mask, strict=True)]
            features.append(normalize(torch.cat(outputs)[: len(texts)], dim=-1))
        self._text = normalize(torch.stack(features).mean(dim=0), dim=-1)

    def judge(self, images: "Tensor") -> Judgement:
        import torch

        pixels = self.processor(images=(images * 255).round().to(torch.uint8), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            score = self._score(pixels.to(self.model.device))
        return Judgement((score * self.model.logit_scale.exp()).softmax(dim=-1), score)

    def logits(self, images: "Tensor") -> "Tensor":
        """The processor's own steps, resized where it does and normalised, with gradients and without its rounding."""
        from torchvision.transforms.v2 import functional as transforms

        told = self.processor
        if told.do_resize and (size := told.size.get("shortest_edge")) and min(images.shape[2:]) != size:
            mode = transforms.InterpolationMode.BICUBIC
            images = transforms.resize(images, [size], interpolation=mode, antialias=True).clamp(0, 1)
        if told.do_center_crop:
            images = transforms.center_crop(images, [told.crop_size["height"], told.crop_size["width"]])
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (told.image_mean, told.image_std))
        return self._score((images - mean) / std) * self.model.logit_scale.exp()

    def _score(self, pixels: "Tensor") -> "Tensor":
        """Cosine similarities [B, K] of pixels [B, 3, H, W] as the network takes them."""
        import torch
        from torch.nn.functional import normalize

        if self._text is None:
            raise UserError("oracle: does not know its labels yet; call set_labels(fmrgen.Labels(names)) first")
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # GPUs would round the patches to 10 bits
            output = self.model.get_image_features(pixel_values=pixels).pooler_output
        return normalize(output, dim=-1) @ self._text.T
