"""Accuracy under an attack on pixels, beside FMR."""

import hashlib

import torch
from torch import Tensor, nn

from fmrgen.engine.attacks import Attack


class Attacked(nn.Module):
    """A classifier on images that were first attacked away from its own predictions.

    An image that it gets right is so attacked away from its label; what is said of the others is not to be counted. The
    random start of an image depends on its pixels, and on no other image.
    """

    def __init__(self, classifier: nn.Module, attack: Attack) -> None:
        super().__init__()
        self.classifier, self.attack = classifier, attack

    def forward(self, images: Tensor) -> Tensor:
        with torch.inference_mode(False):
            images = images.clone()  # one of inference mode takes no gradient
            with torch.no_grad():
                predictions: Tensor = self.classifier(images).argmax(1)
            attacked = self.attack(self.classifier, images, predictions, row_seeds=[_seed(image) for image in images])
        with torch.no_grad():
            logits: Tensor = self.classifier(attacked)
        return logits


def _seed(image: Tensor) -> int:
    return int.from_bytes(hashlib.blake2b(image.cpu().numpy().tobytes(), digest_size=8).digest()) >> 1
