"""`fmrgen evaluate` of many classifiers against what people write: for each of them a DataLoader over the PNGs.

    python -m benchmarks.zoo --split out:mnist/lenet --classifiers 40

The loop decodes each image for each classifier, with the transform of the network, in batches of 64, by `--workers`
processes. Both load every classifier, ask it about images and originals, and begin with nothing stored; they take
turns, and medians are compared. `--memory` evaluates once and prints the process's peak memory: two calls with
different `--classifiers` show whether it grows. Of ten classifiers six are timm's small test networks, two LeNets and
one an ONNX file of such, all with random weights, and one is the demo's CLIP, asked in words.
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
from torchvision.transforms import ToTensor

from benchmarks.evaluation import rows_of
from fmrgen import evaluate, load_classifier
from fmrgen.classifiers.lenet import lenet

_DIGITS = [str(digit) for digit in range(10)]
_ARCHITECTURES = ("test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_byobnet", "test_vit2")


def made_up(count: int, size: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Sections of so many classifiers of ten classes at a size, their weights in files."""
    sections = {}
    for number in range(count):
        if (place := number % 10) >= len(_ARCHITECTURES):
            name = ("lenet", "lenet", "onnx", "clip")[place - len(_ARCHITECTURES)]
            sections[f"{name}-{number}"] = _other(name, number, folder)
            continue
        name = _ARCHITECTURES[place]
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
            "class_names": _DIGITS,
        }
    return sections


def _other(name: str, number: int, folder: Path) -> dict[str, Any]:
    if name == "clip":
        return {"kind": "oracle", "oracle": {"kind": "clip", "model": "asset:mnist/clip"}, "class_names": _DIGITS}
    torch.manual_seed(number)
    network, path = lenet(10), folder / f"{number}.{'safetensors' if name == 'lenet' else 'onnx'}"
    if name == "lenet":
        save_file(network.state_dict(), path)
        return {"kind": "lenet", "checkpoint": str(path), "class_names": _DIGITS}
    shapes = ({0: torch.export.Dim("batch")},)
    images = torch.rand(2, 3, 32, 32)
    torch.onnx.export(network.eval(), (images,), path, dynamic_shapes=shapes, external_data=False, verbose=False)
    return {"kind": "onnx", "model": str(path), "class_names": _DIGITS}


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
        network, transform = _network(section)
        with torch.inference_mode():
            for batch in DataLoader(Pngs(files, transform), batch_size=64, num_workers=workers):
                network(batch).argmax(1)
    return time.perf_counter() - started


def _network(section: dict[str, Any]) -> tuple[torch.nn.Module, Any]:
    """A network and its transform; those that are not of timm prepare their input themselves."""
    if section["kind"] != "timm":
        return load_classifier(json.dumps(section)), ToTensor()
    network = timm.create_model(section["model"], checkpoint_path=section["checkpoint"], **section["model_args"])
    config = resolve_data_config(section["data_config"], model=network)
    return network.eval(), create_transform(**config, is_training=False)


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
