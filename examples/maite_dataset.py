"""A split as a MAITE dataset for image classification: `dataset[i]` is (image, target, metadata).

Images are uint8 [3, H, W], targets one-hot float32 [K]; rows that are not valid are left out, since PA does not count
them.

    python examples/maite_dataset.py out mnist lenet
"""

import sys
from typing import Any

import numpy as np
from datasets import load_dataset


class PerturbedSplit:
    def __init__(self, path: str, config: str, split: str) -> None:
        self.rows = load_dataset(path, config, split=split).filter(lambda valid: valid, input_columns="valid")
        self.names = self.rows.features["label"].names
        self.metadata = {"id": f"{path}:{config}/{split}", "index2label": dict(enumerate(self.names))}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        row = self.rows[index]
        image = np.asarray(row["image"].convert("RGB")).transpose(2, 0, 1)
        return image, np.eye(len(self.names), dtype=np.float32)[row["label"]], {"id": row["id"]}


if __name__ == "__main__":
    dataset = PerturbedSplit(*sys.argv[1:])
    image, target, metadata = dataset[0]
    print(f"{len(dataset)} valid images; the first is {image.shape}, of class {dataset.names[target.argmax()]}")
