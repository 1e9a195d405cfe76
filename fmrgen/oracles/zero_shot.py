"""Any zero-shot image classifier of transformers: CLIP, SigLIP, SigLIP 2, MetaCLIP 2, ALIGN, AltCLIP, Chinese-CLIP."""

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fmrgen.errors import UserError
from fmrgen.oracles._image_text import (
    TEXTS_AT_ONCE,
    DecidingConfig,
    ImageTextConfig,
    ImageTextOracle,
    check_read_apart,
    in_full_precision,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_FAMILIES = ("clip", "siglip", "siglip2", "metaclip_2", "align", "altclip", "chinese_clip")
# Attributes of processors that take steps of their own: SigLIP 2 NaFlex, ALIGN.
_SPECIAL_STEPS = ("max_num_patches", "rescale_offset", "include_top")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Config(DecidingConfig):
    """`model` is a folder, an asset or a Hub id. How its texts are padded and written follows from its family."""

    kind: str = "zero_shot"
    model: str = "google/siglip2-base-patch16-224"

    def build(self, device: "torch.device | str" = "cpu") -> "ZeroShotOracle":
        from transformers import AutoModelForZeroShotImageClassification

        return zero_shot_oracle(AutoModelForZeroShotImageClassification, self, device)


def zero_shot_oracle(loader: Any, config: ImageTextConfig, device: "torch.device | str") -> "ZeroShotOracle":
    """Return the oracle of a model of transformers, which the class `loader` loads.

    Raises UserError if the model can't be loaded, or is of another family.
    """
    from transformers import AutoTokenizer

    from fmrgen.weights.checkpoint import freeze
    from fmrgen.weights.pretrained import from_pretrained, image_processor, pretrained_model

    load: dict[str, Any] = {"reference": config.model, "key": "oracle.model", "revision": config.revision}
    network: Any = freeze(pretrained_model(loader, **load).float(), device)
    family = str(network.config.model_type)
    if family not in _FAMILIES:
        raise UserError(f"oracle.model: {config.model} is a {family}; an oracle is one of {', '.join(_FAMILIES)}")
    return ZeroShotOracle(network, from_pretrained(AutoTokenizer, **load), image_processor(**load), config)


class ZeroShotOracle(ImageTextOracle):
    """A zero-shot image classifier of transformers.

    SigLIP and SigLIP 2 get texts as in their training: in lower case, without punctuation, padded on the right to
    their full length, and without a mask. With any other input they fail silently.
    """

    def __init__(self, model: Any, tokenizer: Any, processor: Any, config: ImageTextConfig) -> None:
        super().__init__(model, tokenizer, config)
        self.processor = processor
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
        names = ["input_ids"] if self._is_siglip else list(tokens)
        inputs = {name: torch.tensor(tokens[name], device=self.model.device) for name in names}
        features = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            batch = {name: values[start : start + TEXTS_AT_ONCE] for name, values in inputs.items()}
            features.append(self.model.get_text_features(**batch).pooler_output)
        return torch.cat(features)

    def image_features(self, images: "Tensor") -> "Tensor":
        inputs = self.processor(images=images, return_tensors="pt").to(self.model.device)
        return self._features(**inputs)

    def scale_and_bias(self) -> "tuple[Tensor | float, Tensor | float]":
        temperature = getattr(self.model, "temperature", None)
        if temperature is not None:
            return 1 / temperature, 0.0
        return self.model.logit_scale.exp(), getattr(self.model, "logit_bias", 0.0)

    def logits(self, images: "Tensor") -> "Tensor":
        """Return logits [B, K] with gradients: the processor's own steps, without its rounding."""
        from PIL.Image import Resampling
        from torchvision.transforms.v2 import functional as transforms

        from fmrgen.classifiers.base import Normalize

        processor = self.processor
        if any(getattr(processor, name, False) for name in _SPECIAL_STEPS):
            raise UserError(
                f"oracle: a {type(processor).__name__} takes steps without a gradient, so it can't be attacked"
            )
        if processor.do_resize:
            height, width = images.shape[2:]
            shortest = processor.size.get("shortest_edge")
            if shortest:
                size = [shortest]
                is_resized = min(height, width) == shortest
            else:
                size = [processor.size["height"], processor.size["width"]]
                is_resized = [min(height, width), width] == size
            if not is_resized:
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
