"""What `fmrgen init` is worth on a user's folder: the folders of its results, and ten planted faults on signs.

    python -m benchmarks.own_images folders -o photos --signs gtsrb-test.parquet --cifar cifar10-test.parquet \\
        --fashion /usr/share/datasets/fashion-mnist
    python -m benchmarks.own_images train -o networks --train gtsrb-train.parquet
    cd work && fmrgen init ../photos/signs --model "$(python -m benchmarks.own_images network ../networks OLD)"
    python -m benchmarks.own_images planted -o ../networks --recipe fmrgen.yaml

`planted` runs `fmrgen diff` by the recipe that `init` wrote, between OLD and ten networks with a fault each. A fault is
*named* if the first name is that of the fault: of a class the one that broke most among the originals, if it is
significant, or else the first two that NEW mixes up; of a condition the change that mends most, or else the change of
the originals with the strongest evidence, or else what broke beside what was fixed. What counts as its name was written
down before a first run, which had no remedies, confusions and traits, in `FAULTS`. `OTHER SEED` has no fault, and
nothing should be named.
"""

import argparse
import gzip
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import fmrgen
from benchmarks import regressions
from benchmarks.regressions import Images, Training
from benchmarks.shortcuts import dark_yields, with_yellow_corners
from fmrgen.apps.release.diff import Diff

OLD, OTHER_SEED = "OLD", "OTHER SEED"
_STEPS = 3.0  # times those of a regression's network
_FASHION_IMAGES = 4000
_FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_MEAN, _WRONG_MEAN = 0.1, 0.3


class Fault(NamedTuple):
    """A planted fault: how the network was trained, the mean that it is used with, and what counts as its name.

    That is one of the classes that broke, or are mixed up; a change that mends; or a condition on which NEW fails.
    """

    training: Training
    classes: Sequence[int] = ()
    remedies: Sequence[str] = ()
    conditions: Sequence[str] = ()
    mean: float = _MEAN


def _blue_for_red(images: Images) -> Images:
    return images._replace(pixels=images.pixels.flip(1))


def _planted(seed: int, change: Callable[[Images], Images]) -> Training:
    return Training(seed=seed, change=change, steps=_STEPS)


_FINE = ("sharper images", "stronger fine structure")
_BLURRED = ("blurred images", "weaker fine structure", "smaller shapes")
_COLOURS = ("stronger colours", "paler colours")
_DARK = ("darker images", "a darker background", "lower contrast")
FAULTS = {
    "no 50": Fault(_planted(201, regressions.without(2)), classes=[2]),
    "no stop": Fault(_planted(202, regressions.without(14)), classes=[14]),
    "30 and 80 swapped in a tenth": Fault(_planted(203, regressions.swapped(1, 5, 0.1)), classes=[1, 5]),
    "priority and right swapped in a tenth": Fault(_planted(204, regressions.swapped(12, 38, 0.1)), classes=[12, 38]),
    "used with another mean": Fault(
        Training(seed=205, steps=_STEPS),
        remedies=("brighter images", "a brighter background"),
        conditions=_DARK,
        mean=_WRONG_MEAN,
    ),
    "blue for red": Fault(_planted(206, _blue_for_red), remedies=["red and blue exchanged"], conditions=_COLOURS),
    "trained on blurred signs": Fault(
        _planted(207, regressions.of_blurred),
        remedies=("blurred images", "weaker fine structure"),
        conditions=_FINE,
    ),
    "near signs alone": Fault(_planted(208, regressions.wide), remedies=["larger shapes"], conditions=_BLURRED),
    "a yellow corner for stop": Fault(
        _planted(209, with_yellow_corners), conditions=("a mark in the corner", "an empty corner")
    ),
    "only dark yields": Fault(_planted(210, dark_yields), classes=[13]),
}
_NETWORKS = {OLD: Training(seed=200, steps=_STEPS), OTHER_SEED: Training(seed=211, steps=_STEPS)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    folders = commands.add_parser("folders", help="write folders of labelled images")
    folders.add_argument("-o", "--output", type=Path, required=True)
    folders.add_argument("--signs", type=Path, help="gtsrb-test.parquet")
    folders.add_argument("--cifar", type=Path, help="a parquet file of CIFAR-10's test images")
    folders.add_argument("--fashion", type=Path, help="the folder of Fashion-MNIST's files")
    training = commands.add_parser("train", help="train OLD and the networks with a fault")
    training.add_argument("-o", "--output", type=Path, required=True)
    training.add_argument("--train", type=Path, required=True, help="gtsrb-train.parquet")
    network = commands.add_parser("network", help="print the section of a network")
    network.add_argument("folder", type=Path)
    network.add_argument("name")
    planted = commands.add_parser("planted", help="compare OLD with each of them")
    planted.add_argument("-o", "--output", type=Path, required=True, help="the folder of the networks")
    planted.add_argument("--recipe", required=True)
    options = parser.parse_args(arguments)
    match options.command:
        case "folders":
            write_folders(options.output, options.signs, options.cifar, options.fashion)
        case "train":
            train(options.output, options.train)
        case "network":
            print(json.dumps(_section(options.folder, options.name)))
        case _:
            compare_planted(options.output, options.recipe)


def write_folders(output: Path, signs: Path | None, cifar: Path | None, fashion: Path | None) -> None:
    """Writes images into a folder for each class, those of scikit-learn's digits always."""
    all_images = {"digits": _sklearn_digits()}
    if signs is not None:
        all_images["signs"] = _of_parquet(signs)
    if cifar is not None:
        all_images["cifar"] = _of_parquet(cifar)
    if fashion is not None:
        all_images["fashion"] = _of_fashion(fashion)
    for name, images in all_images.items():
        count = 0
        for number, (image, label) in enumerate(images):
            folder = output / name / label
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{_letters(number)}.png")
            count = number + 1
        print(f"{name}: {count:,} images", flush=True)


def _letters(number: int) -> str:
    """Returns a number in letters: files that end in digits would be frames of a series."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def _of_parquet(path: Path) -> Iterator[tuple[Image.Image, str]]:
    table = pq.read_table(path)
    names = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    for image, label in zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True):
        yield Image.open(io.BytesIO(image["bytes"])).convert("RGB"), f"{label:02} {names[label]}".replace("/", " or ")


def _sklearn_digits() -> Iterator[tuple[Image.Image, str]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for pixels, label in zip(digits.images, digits.target, strict=True):
        yield Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)), str(label)


def _of_fashion(folder: Path) -> Iterator[tuple[Image.Image, str]]:
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    for image, label in zip(pixels[:_FASHION_IMAGES], labels.tolist(), strict=False):
        yield Image.fromarray(image), f"{label} {_FASHION[label]}"


def train(output: Path, photos: Path) -> None:
    """Trains the networks that are not there yet."""
    torch.set_num_threads(1)
    images = regressions.signs(photos)
    output.mkdir(parents=True, exist_ok=True)
    of_faults = {name: fault.training for name, fault in FAULTS.items()}
    for name, training in (_NETWORKS | of_faults).items():
        file = output / f"{name}.safetensors"
        if not file.exists():
            save_file(regressions.trained("signs", images, training).state_dict(), file)
            print(name, flush=True)


def network_of(mean: float) -> nn.Module:
    """Returns a network of random weights that normalises images by a mean."""
    return regressions.network_of("signs", mean)


def _section(folder: Path, name: str) -> dict[str, object]:
    fault = FAULTS.get(name)
    return {
        "kind": "module",
        "target": "benchmarks.own_images:network_of",
        "args": {"mean": _MEAN if fault is None else fault.mean},
        "checkpoint": str((folder / f"{name}.safetensors").resolve()),
    }


def compare_planted(folder: Path, recipe_file: str) -> None:
    """Prints what a diff says of each fault."""
    recipe = fmrgen.load_recipe(recipe_file)
    hits = 0
    print("| NEW | accuracy | broke | fixed | verdict | classes | mended by | condition | named |")
    print("|---|--:|--:|--:|---|---|---|---|---|")
    for name in [OTHER_SEED, *FAULTS]:
        outcome = fmrgen.diff(
            _section(folder, OLD), _section(folder, name), recipe=recipe, output=folder / "diffs" / name
        )
        flips = outcome.flips
        classes, condition = _first_classes(outcome), _first_condition(outcome)
        remedy = outcome.remedies[0].words if outcome.remedies else "none"
        is_named = name in FAULTS and _is_named(FAULTS[name], classes, remedy, condition)
        hits += is_named
        figures = f"{flips.new_accuracy.value:.1f} | {flips.broke.value:.1f} | {flips.fixed.value:.1f}"
        words = f"{outcome.verdict} | {', '.join(classes) or 'none'} | {remedy} | {condition}"
        print(f"| {name} | {figures} | {words} | {'yes' if is_named else 'no'} |", flush=True)
    print(f"named: {hits} of {len(FAULTS)}")


def _first_classes(outcome: Diff) -> list[str]:
    """Returns the class that broke most surely on the originals, if it is significant, else the first two mixed up."""
    worse = [group.name for group in outcome.flips.classes if group.is_worse]
    if worse:
        return worse[:1]
    return [name for confusion in outcome.confusions[:1] for name in (confusion.label, confusion.other)]


def _first_condition(outcome: Diff) -> str:
    """Returns the change of the originals with the strongest evidence, if that is significant, else the first trait."""
    if any(line.is_worse for line in outcome.evidence if line.kind == "changed"):
        return outcome.changed[0].images.removeprefix("originals with ")
    return outcome.traits[0].words if outcome.traits else "none"


def _is_named(fault: Fault, classes: Sequence[str], remedy: str, condition: str) -> bool:
    if fault.classes:
        numbers = [int(name[:2]) for name in classes]
        return bool(numbers) and set(numbers) <= set(fault.classes)
    return remedy in fault.remedies if remedy != "none" else condition in fault.conditions


if __name__ == "__main__":
    main()
