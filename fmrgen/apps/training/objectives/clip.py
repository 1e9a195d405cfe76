"""A small CLIP in the Hugging Face format, its tokenizer and processor files included."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from fmrgen.apps.training.objectives.base import Objective, ObjectiveConfig
from fmrgen.labels import Labels

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_START, _END = "<|startoftext|>", "<|endoftext|>"


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

    def objective(self, device: "torch.device", labels: Labels) -> "ClipObjective":
        from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

        tokenizer = _letter_tokenizer()
        text = {
            "hidden_size": self.text_width,
            "intermediate_size": 2 * self.text_width,
            "num_hidden_layers": self.text_layers,
            "num_attention_heads": max(1, self.text_width // 32),
            "vocab_size": len(tokenizer),
            "max_position_embeddings": tokenizer.model_max_length,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        vision = {
            "hidden_size": self.vision_width,
            "intermediate_size": 2 * self.vision_width,
            "num_hidden_layers": self.vision_layers,
            "num_attention_heads": max(1, self.vision_width // 32),
            "image_size": self.image_size,
            "patch_size": self.patch_size,
        }
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=self.text_width)
        processor = CLIPImageProcessor(
            size={"shortest_edge": self.image_size}, crop_size={"height": self.image_size, "width": self.image_size}
        )
        return ClipObjective(CLIPModel(config).to(device), tokenizer, processor, labels, self)


class ClipObjective(Objective):
    """Learns to match every image with the prompt of its label among those of all labels."""

    def __init__(self, model: Any, tokenizer: Any, processor: Any, labels: Labels, config: Config) -> None:
        self.network = model
        self.image_size = config.image_size
        self.label_smoothing = config.label_smoothing
        self.tokenizer, self.processor = tokenizer, processor
        self.tokens = []
        for prompt in config.prompts:
            texts = [prompt.replace("{class}", name) for name in labels.names]
            self.tokens.append(tokenizer(texts, padding=True, return_tensors="pt"))

    def _logits(self, images: "Tensor", prompt: int) -> "Tensor":
        """Return the logits [B, K] of images for the texts of a prompt, by its place in the config."""
        import torch

        mean = torch.tensor(self.processor.image_mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.processor.image_std, device=images.device).view(-1, 1, 1)
        tokens = self.tokens[prompt].to(images.device)
        return self.network(pixel_values=(images - mean) / std, **tokens).logits_per_image

    def loss(self, images: "Tensor", labels: "Tensor", progress: float) -> "Tensor":
        import torch
        from torch.nn.functional import cross_entropy

        prompt = int(torch.randint(len(self.tokens), ()))
        return cross_entropy(self._logits(images, prompt), labels, label_smoothing=self.label_smoothing)

    def metrics(self, images: "Tensor", labels: "Tensor") -> "dict[str, Tensor]":
        return {"accuracy": self._logits(images, prompt=0).argmax(1) == labels}

    def save(self, folder: Path) -> None:
        for part in (self.network, self.tokenizer, self.processor):
            part.save_pretrained(folder)


def _letter_tokenizer() -> Any:
    """Return CLIP's byte-level tokenizer with no merges: every letter is a token, so it can write any class name."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    last_letters = [letter + "</w>" for letter in letters]
    tokens = [*letters, *last_letters, _START, _END]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=64)
