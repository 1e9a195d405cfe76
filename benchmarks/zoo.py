"""`fmrgen evaluate` of many classifiers against what people write: for each of them a DataLoader over the PNGs.

    python -m benchmarks.zoo --split out:mnist/lenet --classifiers 40

The loop decodes each image for each classifier, with the transform of the network, in batches of 64, by `--workers`
processes. Both load every classifier, ask it about images and originals, and begin with nothing stored; they take
turns, and medians are compared. `--memory` evaluates once and prints the process's peak memory: two calls with
different `--classifiers` show whether it grows. The classifiers are timm's small test networks with random weights.
"""

import argparse
import io
import json
import resource
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from torch.utils.data import DataLoader, Dataset

from benchmarks.evaluation import rows_of
from fmrgen import evaluate

_ARCHITECTURES = ("test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_byobnet", "test_vit2")


def made_up(count: int, size: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Sections of so many classifiers of ten classes at a size, their weights in files."""
    sections = {}
    for number in range(count):
        name = _ARCHITECTURES[number % len(_ARCHITECTURES)]
        arguments = {"num_classes": 10} | ({"img_size": size} if "vit" in name else {})
        torch.manual_seed(number)
        path = folder / f"{number}.safetensors"
        save_file(timm.create_model(name, **arguments).state_dict(), path)
        sections[f"{name}-{number}"] = {
            "kind": "timm",
            "model": name,
            "checkpoint": str(path),
            "model_args": arguments,
            "data_config": {"input_size": [3, size, size], "crop_pct": 1.0},
            "class_names": [str(digit) for digit in range(10)],
        }
    return sections


class Pngs(Dataset[torch.Tensor]):
    """The images of a column, decoded and transformed one by one."""

    def __init__(self, files: list[bytes], transform: Any) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        tensor: torch.Tensor = self.transform(Image.open(io.BytesIO(self.files[index])).convert("RGB"))
        return tensor


def loop(sections: dict[str, dict[str, Any]], files: list[bytes], workers: int) -> float:
    started = time.perf_counter()
    for section in sections.values():
        network = timm.create_model(section["model"], checkpoint_path=section["checkpoint"], **section["model_args"])
        network.eval()
        transform = create_transform(**resolve_data_config(section["data_config"], model=network), is_training=False)
        with torch.inference_mode():
            for batch in DataLoader(Pngs(files, transform), batch_size=64, num_workers=workers):
                network(batch).argmax(1)
    return time.perf_counter() - started


def whole_evaluation(sections: dict[str, dict[str, Any]], stored: Any) -> float:
    with tempfile.TemporaryDirectory() as store:
        started = time.perf_counter()
        evaluate({"split": stored}, sections, store=store, progress=False)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", required=True, metavar="FOLDER:CONFIG/SPLIT")
    parser.add_argument("--classifiers", type=int, default=40)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--size", type=int, default=32, help="side of the networks' input")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    stored = rows_of(options.split, options.rows)
    with tempfile.TemporaryDirectory() as folder:
        sections = made_up(options.classifiers, options.size, Path(folder))
        if options.memory:
            whole_evaluation(sections, stored)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps({"classifiers": options.classifiers, "peak_MiB": round(peak)}))
            return
        files = []
        for name in ("image", "original"):
            for image in stored[name]:
                image.save(file := io.BytesIO(), "PNG")
                files.append(file.getvalue())
        found: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for workers in options.workers:
                found.setdefault(f"loop_{workers}_workers_s", []).append(loop(sections, files, workers))
            found.setdefault("evaluate_s", []).append(whole_evaluation(sections, stored))
    seconds = {name: round(median(times), 1) for name, times in found.items()}
    best = min(value for name, value in seconds.items() if name != "evaluate_s")
    print(json.dumps({"classifiers": options.classifiers, **seconds, "ratio": round(seconds["evaluate_s"] / best, 3)}))


if __name__ == "__main__":
    main()
