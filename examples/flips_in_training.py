"""Negative flips in training, after each epoch: the validation images that only the last release has right.

    python examples/flips_in_training.py --digits 200

The last release is a file of predictions. Each epoch writes one too, so the next release is at hand, and
`fmrgen diff --old release.parquet --new epoch-3.parquet` says more about it.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import EvalPrediction, Trainer, TrainingArguments

import fmrgen


class Flips:
    """Writes the predictions of each epoch, and compares them with those of the last release.

    Args:
        release: parquet with columns id, label and prediction; if there is none yet, nothing is compared.
        folder: for the predictions of each epoch.
    """

    def __init__(self, release: Path, folder: Path) -> None:
        self.release, self.folder, self.epoch = release, folder, 0

    def __call__(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Returns the rates in percent, under names for a log; `labels` and `predictions` are [N]."""
        self.epoch += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame({"id": np.arange(len(labels)), "label": labels, "prediction": predictions})
        table.to_parquet(self.folder / f"epoch-{self.epoch}.parquet")
        if not self.release.exists():
            return {}
        diff = fmrgen.diff(pd.read_parquet(self.release), table)
        return {"negative_flips": diff.flips.negative.value, "positive_flips": diff.flips.positive.value}


def compute_metrics(flips: Flips) -> Callable[[EvalPrediction], dict[str, float]]:
    """Returns what `Trainer(compute_metrics=…)` takes."""

    def metrics(evaluated: EvalPrediction) -> dict[str, float]:
        logits, labels = np.asarray(evaluated.predictions), np.asarray(evaluated.label_ids)
        return flips(labels, logits.argmax(axis=1))

    return metrics


class LightningFlips:
    """The same for Lightning: `class Mine(LightningFlips, lightning.Callback)`, in `Trainer(callbacks=[Mine(flips)])`.

    `validation_step` returns a mapping with `labels` and `logits`.
    """

    def __init__(self, flips: Flips) -> None:
        self.flips = flips
        self.labels: list[Tensor] = []
        self.predictions: list[Tensor] = []

    def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *rest: Any) -> None:
        self.labels.append(outputs["labels"].cpu())
        self.predictions.append(outputs["logits"].argmax(1).cpu())

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        rates = self.flips(torch.cat(self.labels).numpy(), torch.cat(self.predictions).numpy())
        self.labels.clear()
        self.predictions.clear()
        for name, rate in rates.items():
            module.log(name, rate)


class Network(nn.Module):
    """A small network, as `Trainer` wants it: it returns its loss and its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.layers(images)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def digits(split: str, count: int) -> list[dict[str, Tensor]]:
    """Returns digits that fmrgen ships, as rows for `Trainer`."""
    config = fmrgen.load_recipe("mnist-lenet", [f"source.split={split}", f"source.limit={count}"]).source
    rows = []
    for example in config.build().load(0, count, 32):
        image = torch.from_numpy(example.image).permute(2, 0, 1) / 255
        rows.append({"images": image, "labels": torch.tensor(example.label)})
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--digits", type=int, default=400)
    parser.add_argument("--output", type=Path, default=Path("out"))
    arguments = parser.parse_args()
    train, validation = digits("train", arguments.digits), digits("test", arguments.digits)
    for name, seed in (("release", 0), ("candidate", 1)):
        torch.manual_seed(seed)
        flips = Flips(arguments.output / "release/epoch-3.parquet", arguments.output / name)
        settings = TrainingArguments(
            str(arguments.output / "trainer"),
            num_train_epochs=3,
            eval_strategy="epoch",
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            learning_rate=0.002,
            seed=seed,
        )
        Trainer(Network(), settings, None, train, validation, compute_metrics=compute_metrics(flips)).train()
    release = pd.read_parquet(arguments.output / "release/epoch-3.parquet")
    candidate = pd.read_parquet(arguments.output / "candidate/epoch-3.parquet")
    print(fmrgen.diff(release, candidate))
