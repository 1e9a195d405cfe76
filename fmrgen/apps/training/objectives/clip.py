"""A small CLIP in the Hugging Face format, its tokenizer and processor files included."""

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from fmrgen.apps.training.objectives.base import Objective, ObjectiveConfig
from fmrgen.classifiers.base import Normalize
from fmrgen.labels import Labels


class Config(ObjectiveConfig):
    """The two towers, and the prompts that the text tower learns; the first prompt is tested."""

    kind: str = "clip"
    image_size: int = Field(ge=8)
    patch_size: int = Field(8, ge=1)
    vision_width: int = 128
    vision_layers: int = 4
    text_width: int = 64
    text_layers: int = 2
    prompts: list[str] = Field(min_length=1)
    label_smoothing: float = Field(0.05, ge=0, lt=1)

    def objective(self, device: torch.device, labels: Labels) -> "ClipObjective":
        return ClipObjective(self, device, labels)


class ClipObjective(Objective):
    """Learns to match every image with the prompt of its label among those of all labels."""

    def __init__(self, config: Config, device: torch.device, labels: Labels) -> None:
        from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

        self.image_size, self.label_smoothing = config.image_size, config.label_smoothing
        self.tokenizer = _letter_tokenizer()
        text = {
            **_tower(config.text_width, config.text_layers),
            "vocab_size": len(self.tokenizer),
            "max_position_embeddings": self.tokenizer.model_max_length,
            "bos_token_id": self.tokenizer.bos_token_id,
            "eos_token_id": self.tokenizer.eos_token_id,
            "pad_token_id": self.tokenizer.pad_token_id,
        }
        vision = {
            **_tower(config.vision_width, config.vision_layers),
            "image_size": self.image_size,
            "patch_size": config.patch_size,
        }
        towers = CLIPConfig(text_config=text, vision_config=vision, projection_dim=config.text_width)
        self.network = CLIPModel(towers).to(device)
        self.processor = CLIPImageProcessor(
            size={"shortest_edge": self.image_size}, crop_size={"height": self.image_size, "width": self.image_size}
        )
        self.tokens = []
        for prompt in config.prompts:
            texts = [prompt.replace("{class}", name) for name in labels.names]
            self.tokens.append(self.tokenizer(texts, padding=True, return_tensors="pt"))

    def _logits(self, images: Tensor, prompt: int) -> Tensor:
        """Return the logits [B, K] of images for the texts of a prompt, by its place in the config."""
        pixels = Normalize(self.processor.image_mean, self.processor.image_std)(images)
        return self.network(pixel_values=pixels, **self.tokens[prompt].to(images.device)).logits_per_image

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Tensor:
        prompt = int(torch.randint(len(self.tokens), ()))
        return cross_entropy(self._logits(images, prompt), labels, label_smoothing=self.label_smoothing)

    def metrics(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"accuracy": self._logits(images, prompt=0).argmax(1) == labels}

    def save(self, folder: Path) -> None:
        for part in (self.network, self.tokenizer, self.processor):
            part.save_pretrained(folder)


def _tower(width: int, layers: int) -> dict[str, int]:
    """Return the settings that both towers have."""
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // 32),
    }


def _letter_tokenizer() -> Any:
    """Return CLIP's byte-level tokenizer with no merges: every letter is a token, so it can write any class name."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    last_letters = [letter + "</w>" for letter in letters]
    tokens = [*letters, *last_letters, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=64)
