"""Fixed sets to hold FMR against: a source's images under torchvision's corruptions, in five severities.

    python -m benchmarks.corruptions --source fashion.yaml --output fashion-c
    python -m benchmarks.corruptions --source mnist-lenet --output mnist-c --normaliser asset:mnist/lenet

Writes `NAME.npy` and `labels.npy` as CIFAR-10-C has them, and `sets.yaml`, a recipe for `evaluate --fixed`. With
`--normaliser` it has that classifier's errors, so that mCE of others is relative to it, as ImageNet-C's is to AlexNet.
"""

import argparse
import zlib
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
import yaml
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import ElasticTransform
from torchvision.transforms.v2 import functional as transforms

import fmrgen
from fmrgen.errors import UserError
from fmrgen.image_files import open_rgb
from fmrgen.recipe.build import build_source
from fmrgen.recipe.job import load_source

SEVERITIES = (1, 2, 3, 4, 5)


def pixelated(image: Tensor, share: float) -> Tensor:
    size = list(image.shape[-2:])
    small = transforms.resize(image, [round(share * side) for side in size], InterpolationMode.BILINEAR)
    large: Tensor = transforms.resize(small, size, InterpolationMode.NEAREST)
    return large


# Of bytes [3, H, W], by severity; lengths go with the width of the image.
CORRUPTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "noise": lambda image, i: transforms.to_dtype(
        transforms.gaussian_noise(transforms.to_dtype(image, torch.float32, scale=True), sigma=0.04 * i),
        torch.uint8,
        scale=True,
    ),
    "blur": lambda image, i: transforms.gaussian_blur(
        image, [2 * (image.shape[-1] // 8) + 1] * 2, [image.shape[-1] * 0.01 * i] * 2
    ),
    "brightness": lambda image, i: transforms.adjust_brightness(image, 1 + 0.25 * i),
    "contrast": lambda image, i: transforms.adjust_contrast(image, 1 - 0.17 * i),
    "saturation": lambda image, i: transforms.adjust_saturation(image, 1 - 0.2 * i),
    "elastic": lambda image, i: ElasticTransform(alpha=image.shape[-1] * 0.35 * i, sigma=image.shape[-1] * 0.1)(image),
    "pixelate": lambda image, i: pixelated(image, 1 - 0.14 * i),
    "jpeg": lambda image, i: transforms.jpeg(image, [50, 30, 20, 14, 8][i - 1]),
}


def write_sets(reference: str, output: Path, normaliser: str | None) -> Path:
    """The corrupted sets of a source, and their recipe, whose path is returned."""
    source = build_source(load_source(reference))
    examples = list(source.read(0, len(source)))
    opened = [open_rgb(one.image) for one in examples]
    if len(sizes := {image.size for image in opened}) > 1:
        raise UserError(f"--source: has images of {len(sizes)} sizes, and an array holds one; resize them first")
    images = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in opened])
    output.mkdir(parents=True, exist_ok=True)
    np.save(output / "labels.npy", np.tile([one.label for one in examples], len(SEVERITIES)))
    for name, corrupt in CORRUPTIONS.items():
        torch.manual_seed(zlib.crc32(name.encode()))
        changed = torch.stack([corrupt(image, severity) for severity in SEVERITIES for image in images])
        np.save(output / f"{name}.npy", changed.permute(0, 2, 3, 1).numpy())
    where = output.resolve()
    section = {
        "kind": "arrays",
        "images": f"{where}/{{set}}.npy",
        "labels": f"{where}/labels.npy",
        "part": f"{{severity}}/{len(SEVERITIES)}",
        "classes": list(source.labels.names),
    }
    recipe = {"source": section, "sets": list(CORRUPTIONS), "severities": list(SEVERITIES)}
    path = output / "sets.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    if normaliser is not None:
        (found,) = fmrgen.evaluate([], [normaliser], fixed=[str(path)], progress=False).fixed
        errors = {
            name: round(100 - fmean(found.by_set[f"{name}-{severity}"].value for severity in SEVERITIES), 4)
            for name in CORRUPTIONS
        }
        if not all(errors.values()):
            raise UserError(f"--normaliser {normaliser}: is never wrong under one of them; choose a weaker one")
        path.write_text(yaml.safe_dump({**recipe, "normaliser": errors}, sort_keys=False))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="a recipe whose source's images are corrupted, or {kind: …}")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--normaliser", help="the classifier that mCE is relative to")
    arguments = parser.parse_args()
    print(write_sets(arguments.source, arguments.output, arguments.normaliser))


if __name__ == "__main__":
    main()
