"""Image-text models of OpenCLIP, such as Perception Encoder and DFN: `pip install 'fmrgen[oracles]'`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrgen.errors import UserError, one_line
from fmrgen.files import read_json
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

_CONFIG = "open_clip_config.json"
_WEIGHTS = "open_clip_model.safetensors"
_FILES = [_CONFIG, _WEIGHTS, "*token*.json", "*.model", "vocab*", "merges.txt", "special_tokens_map.json"]


class Config(DecidingConfig):
    """`model` is a folder or a Hub id with OpenCLIP's files, as `timm/PE-Core-L-14-336`."""

    kind: str = "open_clip"

    def build(self, device: "torch.device | str" = "cpu") -> "OpenClipOracle":
        try:
            import open_clip
        except ImportError:
            raise UserError("oracle: open_clip needs OpenCLIP; pip install 'fmrgen[oracles]'") from None
        from fmrgen.weights.checkpoint import freeze

        folder = _local_folder(self.model, self.revision)
        name = f"local-dir:{folder}"
        try:
            _check_loads_nothing_else(read_json(folder / _CONFIG))
            model, _, preprocess = open_clip.create_model_and_transforms(name)
            tokenizer = open_clip.get_tokenizer(name)
        except Exception as error:  # a broken or foreign folder can fail anywhere in the libraries
            raise UserError(f"oracle.model: {self.model} can't be loaded: {one_line(error)}") from error
        frozen: Any = freeze(model.float(), device)
        return OpenClipOracle(frozen, tokenizer, preprocess, self)


def _local_folder(model: str, revision: str | None) -> Path:
    """Return the folder of a model's files, downloaded if it is on the Hub. Raises UserError if a file is missing."""
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        from fmrgen.hub.timeouts import bound_requests

        bound_requests()
        try:
            folder = Path(snapshot_download(model, revision=revision, allow_patterns=_FILES))
        except Exception as error:  # the Hub's client and the network under it fail in many ways
            raise UserError(f"oracle.model: {model} can't be downloaded: {one_line(error)}") from None
    for file in (_CONFIG, _WEIGHTS):
        if not (folder / file).is_file():
            raise UserError(f"oracle.model: {model} has no {file}; a model of transformers is kind: zero_shot")
    return folder


def _check_loads_nothing_else(config: dict[str, Any]) -> None:
    """Raise ValueError if a config would load weights from elsewhere."""
    vision_config = config["model_cfg"].get("vision_cfg", {})
    timm_name = str(vision_config.get("timm_model_name", ""))
    if vision_config.get("timm_model_pretrained") or any(character in timm_name for character in ":/\\"):
        raise ValueError("its config loads other weights than its own")


class OpenClipOracle(ImageTextOracle):
    """A model of OpenCLIP with its own tokenizer and its own steps from pixels to input."""

    def __init__(self, model: Any, tokenizer: Any, preprocess: Any, config: Config) -> None:
        from fmrgen.classifiers.base import without_waiting

        super().__init__(model, tokenizer, config)
        # Steps that take images of PIL are left out: batches come as bytes.
        batch_steps = ("Resize", "CenterCrop", "CenterCropOrPad", "ResizeKeepRatio", "Normalize")
        self.steps = without_waiting(step for step in preprocess.transforms if type(step).__name__ in batch_steps)

    def text_features(self, texts: Sequence[str]) -> "Tensor":
        import torch

        tokens = self.tokenizer(list(texts)).to(self.model.logit_scale.device)
        check_read_apart(texts, tokens.tolist())
        features = [self.model.encode_text(batch) for batch in tokens.split(TEXTS_AT_ONCE)]
        return torch.cat(features)

    def image_features(self, images: "Tensor") -> "Tensor":
        *spatial, normalize = self.steps
        for step in spatial:
            images = step(images)
        return self._features(normalize(images.float() / 255))

    def scale_and_bias(self) -> "tuple[Tensor | float, Tensor | float]":
        bias = self.model.logit_bias
        return self.model.logit_scale.exp(), 0.0 if bias is None else bias

    def logits(self, images: "Tensor") -> "Tensor":
        """Return logits [B, K] with gradients: the same steps, without rounding to bytes between them."""
        for step in self.steps:
            images = step(images)
        return self.to_logits(self.cosines(self._features(images)))

    def _features(self, pixels: "Tensor") -> "Tensor":
        with in_full_precision():
            features: Tensor = self.model.encode_image(pixels)
        return features
