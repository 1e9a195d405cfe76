"""`fmrgen.evaluate` against a bare loop of the same classifier over the same images, decoded beforehand.

    python -m benchmarks.evaluation --split out:mnist/lenet --classifier asset:mnist/lenet

The two take turns; medians of the rounds are compared. `--memory` evaluates the split once, repeated to `--rows` rows,
and prints the process's peak memory: two calls with different `--rows` show whether it grows.
"""

import argparse
import json
import resource
import time
from statistics import median

import numpy as np
import torch
from datasets import Dataset, Features, concatenate_datasets, load_dataset
from torch import nn

from fmrgen import evaluate
from fmrgen.recipe.job import parse_classifier


def rows_of(reference: str, rows: int) -> Dataset:
    """The split's images and what belongs to them, repeated to `rows` rows."""
    folder, _, place = reference.rpartition(":")
    config, _, split = place.partition("/")
    stored = load_dataset(folder, config, split=split).select_columns(["image", "label", "original", "valid"])
    return concatenate_datasets([stored] * -(-rows // len(stored))).select(range(rows))


def resized(stored: Dataset, size: int) -> Dataset:
    """The rows with their images at another size, for classifiers of larger images."""
    columns = {
        name: [image.resize((size, size)) for image in stored[name]] if name in ("image", "original") else stored[name]
        for name in stored.column_names
    }
    return Dataset.from_dict(columns, features=Features(stored.features))


def decoded_batches(stored: Dataset, batch_size: int) -> list[torch.Tensor]:
    """uint8 [B, 3, H, W] of image and original in turn, as `evaluate` makes its batches."""
    batches = []
    for batch in stored.iter(batch_size):
        for name in ("image", "original"):
            pixels = np.stack([np.asarray(image.convert("RGB")) for image in batch[name]])
            batches.append(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous())
    return batches


def bare_loop(classifier: nn.Module, batches: list[torch.Tensor]) -> float:
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            classifier(batch.float() / 255).argmax(1)
    return time.perf_counter() - started


def whole_evaluation(classifier: nn.Module, stored: Dataset, batch_size: int) -> float:
    started = time.perf_counter()
    evaluate({"split": stored}, {"classifier": classifier}, batch_size=batch_size)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", required=True, metavar="FOLDER:CONFIG/SPLIT")
    parser.add_argument("--classifier", required=True)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--size", type=int, help="resize the images to this side")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    name, section = parse_classifier(options.classifier)
    classifier = section.build().eval()
    if options.memory:
        evaluate({"split": rows_of(options.split, options.rows)}, {name: classifier}, batch_size=options.batch_size)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"rows": options.rows, "peak_MiB": round(peak)}))
        return
    stored = rows_of(options.split, options.rows)
    stored = resized(stored, options.size) if options.size else stored
    batches = decoded_batches(stored, options.batch_size)
    bare_loop(classifier, batches[:2])
    whole_evaluation(classifier, stored.select(range(min(len(stored), options.batch_size))), options.batch_size)
    bare, whole = [], []
    for _ in range(options.rounds):
        bare.append(bare_loop(classifier, batches))
        whole.append(whole_evaluation(classifier, stored, options.batch_size))
    images = 2 * len(stored)
    print(
        json.dumps(
            {
                "classifier": name,
                "threads": torch.get_num_threads(),
                "bare_images_per_s": round(images / median(bare), 1),
                "evaluate_images_per_s": round(images / median(whole), 1),
                "ratio": round(median(bare) / median(whole), 3),
                "ratios": [round(b / w, 3) for b, w in zip(bare, whole, strict=True)],
            }
        )
    )


if __name__ == "__main__":
    main()
