"""Any zero-shot image classifier of transformers: CLIP, SigLIP, SigLIP 2, MetaCLIP 2, ALIGN, AltCLIP, Chinese-CLIP."""

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fmrgen.config import Revision
from fmrgen.errors import UserError
from fmrgen.oracles._image_text import (
    TEXTS_AT_ONCE,
    DecidingConfig,
    ImageTextOracle,
    check_read_apart,
    in_full_precision,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_FAMILIES = ("clip", "siglip", "siglip2", "metaclip_2", "align", "altclip", "chinese_clip")
_STEPS_OF_THEIR_OWN = ("max_num_patches", "rescale_offset", "include_top")  # of processors: SigLIP 2 NaFlex, ALIGN
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Config(DecidingConfig):
    """`model` is a folder, an asset or a Hub id. How its texts are padded and written follows from its family."""

    PLACES = ("model",)

    kind: str = "zero_shot"
    model: str = "google/siglip2-base-patch16-224"
    revision: Revision = None

    def build(self, device: "torch.device | str" = "cpu") -> "ZeroShotOracle":
        from transformers import AutoModelForZeroShotImageClassification

        load: dict[str, Any] = {"reference": self.model, "what": "oracle.model", "revision": self.revision}
        return zero_shot_oracle(AutoModelForZeroShotImageClassification, load, device, *self.prompted)


def zero_shot_oracle(
    loader: Any, load: dict[str, Any], device: "torch.device | str", *prompted: Any
) -> "ZeroShotOracle":
    """The oracle of a model of transformers.

    Args:
        loader: the class that loads it.
        load: what `pretrained_model` needs to know.
        device: where it is to be.
        prompted: prompts and decision, as `ImageTextOracle` has them.

    Raises:
        UserError: it can't be loaded, or is of another family.
    """
    from transformers import AutoTokenizer

    from fmrgen.weights.checkpoint import freeze
    from fmrgen.weights.pretrained import from_pretrained, image_processor, pretrained_model

    model: Any = freeze(pretrained_model(loader, **load).float(), device)
    family = str(model.config.model_type)
    if family not in _FAMILIES:
        raise UserError(f"oracle.model: {load['reference']} is a {family}; an oracle is one of {', '.join(_FAMILIES)}")
    tokenizer = from_pretrained(AutoTokenizer, **load)
    return ZeroShotOracle(model, tokenizer, image_processor(**load), *prompted)


class ZeroShotOracle(ImageTextOracle):
    """A zero-shot image classifier of transformers.

    What SigLIP and SigLIP 2 were trained on is what they get: lower case without punctuation, padded on the right to
    their full length, and no mask. Anything else makes them fail without a word.
    """

    def __init__(self, model: Any, tokenizer: Any, processor: Any, *prompted: Any) -> None:
        super().__init__(*prompted)
        self.model, self.tokenizer, self.processor = model, tokenizer, processor
        self._is_siglip = model.config.model_type in ("siglip", "siglip2")

    def text_features(self, texts: Sequence[str]) -> "Tensor":
        import torch

        limit = self.model.config.text_config.max_position_embeddings
        options: dict[str, Any] = {"padding": True}
        if self._is_siglip:
            texts = [text.lower().translate(_NO_PUNCTUATION) for text in texts]
            options = {"padding": "max_length", "max_length": limit, "padding_side": "right"}
        tokens = self.tokenizer(list(texts), verbose=False, **options)
        if max(map(len, tokens["input_ids"])) > limit:
            longest = max(texts, key=len)
            raise UserError(f"oracle.prompts: {longest!r} is longer than the {limit} tokens that this model reads")
        check_read_apart(texts, tokens["input_ids"])
        wanted = {"input_ids": tokens["input_ids"]} if self._is_siglip else tokens
        batches = {
            name: torch.tensor(values, device=self.model.device).split(TEXTS_AT_ONCE) for name, values in wanted.items()
        }
        outputs = [
            self.model.get_text_features(**dict(zip(batches, batch, strict=True))).pooler_output
            for batch in zip(*batches.values(), strict=True)
        ]
        return torch.cat(outputs)

    def image_features(self, images: "Tensor") -> "Tensor":
        inputs = self.processor(images=images, return_tensors="pt").to(self.model.device)
        return self._features(**inputs)

    def scale_and_bias(self) -> "tuple[Tensor | float, Tensor | float]":
        if (temperature := getattr(self.model, "temperature", None)) is not None:
            return 1 / temperature, 0.0
        return self.model.logit_scale.exp(), getattr(self.model, "logit_bias", 0.0)

    def logits(self, images: "Tensor") -> "Tensor":
        """The processor's own steps, resized where it does and normalised, with gradients and without its rounding."""
        from PIL.Image import Resampling
        from torchvision.transforms.v2 import functional as transforms

        from fmrgen.classifiers.base import Normalize

        processor = self.processor
        if any(getattr(processor, name, False) for name in _STEPS_OF_THEIR_OWN):
            raise UserError(
                f"oracle: a {type(processor).__name__} takes steps without a gradient, so it can't be attacked"
            )
        if processor.do_resize:
            size = processor.size.get("shortest_edge") or (processor.size["height"], processor.size["width"])
            size = [size] if isinstance(size, int) else list(size)
            if (min(images.shape[2:]), *images.shape[3:])[: len(size)] != tuple(size):
                mode = transforms.InterpolationMode[Resampling(int(processor.resample)).name]
                images = transforms.resize(images, size, interpolation=mode, antialias=True).clamp(0, 1)
        if getattr(processor, "do_center_crop", False):
            images = transforms.center_crop(images, [processor.crop_size["height"], processor.crop_size["width"]])
        normalize = Normalize(processor.image_mean, processor.image_std)
        return self.to_logits(self.cosines(self._features(pixel_values=normalize(images))))

    def _features(self, **inputs: "Tensor") -> "Tensor":
        with in_full_precision():
            features: Tensor = self.model.get_image_features(**inputs).pooler_output
        return features
