"""Do margins on the same photos name the classes that will regress, and does a latent distance add to them?

    python reproduce/margins.py signs --output out --data DATA     # gtsrb-train.parquet and gtsrb-test.parquet in DATA
    python reproduce/margins.py digits --output out --data DATA    # usps-test.parquet in DATA

The plan is docs/results/margins.md. What is measured of a network is kept in the folder; a second run reads it.
"""

import argparse
import io
import json
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import timm
import torch
from PIL import Image
from scipy.special import softmax
from scipy.stats import rankdata, t, zscore
from torch import Tensor, nn
from torch.nn.functional import affine_grid, avg_pool2d, cross_entropy, grid_sample
from torch.nn.utils.prune import l1_unstructured, remove
from torchvision.transforms import Normalize

import fmrgen
from fmrgen.classifiers.lenet import lenet
from fmrgen.classifiers.networks.cifar import vgg7
from fmrgen.engine.perturb import perturb
from fmrgen.records import Example, StopReason

SEEN, OF_EACH_CLASS, FAULTS_OF_AN_OLD = 500, 6, 4
SEEDS = ("seed 1", "seed 2", "seed 3")
STEPS_OF_SEARCH, STEP = 40, 0.003  # a tenth of the recipe's
WORST, AT_RISK, NO_LOSS = 3, 2.0, 1.0  # classes; sum of two z-scores; points


class Photos(NamedTuple):
    """Images [N, 3, 32, 32] in [0, 1], their labels [N], and for signs their widths in the photo [N]."""

    pixels: Tensor
    labels: Tensor
    widths: Tensor

    def of(self, chosen: Tensor) -> "Photos":
        return Photos(self.pixels[chosen], self.labels[chosen], self.widths[chosen])


class Fault(NamedTuple):
    """How the training of NEW differs from that of OLD: its photos, how far they are warped, its steps, its end."""

    change: Callable[[Photos], Photos] = lambda photos: photos
    warp: float = 1.0
    steps: float = 1.0
    after: Callable[[nn.Module], None] = lambda network: None


def thinned(label: int, keep: int) -> Fault:
    def change(photos: Photos) -> Photos:
        members = torch.cumsum(photos.labels == label, 0)
        return photos.of((photos.labels != label) | (members % keep == 0))

    return Fault(change)


def swapped(one: int, other: int) -> Fault:
    """A third of the labels of each of two classes are the other's."""

    def change(photos: Photos) -> Photos:
        is_swapped = torch.rand(len(photos.labels), generator=torch.Generator().manual_seed(1)) < 0.33
        labels = photos.labels.clone()
        labels[is_swapped & (photos.labels == one)] = other
        labels[is_swapped & (photos.labels == other)] = one
        return photos._replace(labels=labels)

    return Fault(change)


def wrong_labels(photos: Photos) -> Photos:
    """A tenth of the labels are drawn."""
    random = torch.Generator().manual_seed(1)
    is_wrong = torch.rand(len(photos.labels), generator=random) < 0.1
    drawn = photos.labels[torch.randperm(len(photos.labels), generator=random)]
    return photos._replace(labels=torch.where(is_wrong, drawn, photos.labels))


def dark(photos: Photos) -> Photos:
    light = photos.pixels.mean((1, 2, 3))
    return photos.of(light <= light.median())


def blurred(photos: Photos) -> Photos:
    return photos._replace(pixels=avg_pool2d(photos.pixels, 5, stride=1, padding=2, count_include_pad=False))


def pruned(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            l1_unstructured(layer, "weight", 0.7)
            remove(layer, "weight")


FAULTS_OF_SIGNS = {
    "a seventh of priority road": thinned(12, 7),
    "a seventh of yield": thinned(13, 7),
    "a seventh of 50": thinned(2, 7),
    "30 and 80 swapped in a third": swapped(1, 5),
    "priority and right swapped in a third": swapped(12, 38),
    "near signs alone": Fault(lambda photos: photos.of(photos.widths >= 45)),
    "dark photos alone": Fault(dark),
    "trained on blurred signs": Fault(blurred),
    "never warped": Fault(warp=0),
    "a third of the steps": Fault(steps=0.33),
    "70 % pruned": Fault(after=pruned),
    "a tenth of the labels drawn": Fault(wrong_labels),
}
FAULTS_OF_DIGITS = {
    "a seventh of the threes": thinned(3, 7),
    "a twentieth of the sevens": thinned(7, 20),
    "4 and 9 swapped in a third": swapped(4, 9),
    "trained on blurred digits": Fault(blurred),
    "full contrast alone": Fault(lambda photos: photos._replace(pixels=(2 * photos.pixels).clamp(max=1))),
    "never warped": Fault(warp=0),
    "70 % pruned": Fault(after=pruned),
    "a seventh of the steps": Fault(steps=0.14),
}


def plain() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(1024, 43))


def resnet() -> nn.Module:
    network = timm.create_model("test_resnet", num_classes=43, stem_type="deep", replace_stem_pool=True)
    return nn.Sequential(nn.Upsample(scale_factor=1.5, mode="bilinear"), network)


class Data(NamedTuple):
    """The networks OLD (a family each), the faults, the recipe of the search, and how a network is trained."""

    olds: list[Callable[[], nn.Module]]
    faults: dict[str, Fault]
    recipe: str
    mean: float
    steps: int


OLDS: list[Callable[[], nn.Module]] = [
    plain,
    partial(vgg7, 43),
    resnet,
    plain,
    partial(vgg7, 43),
    resnet,
    plain,
    partial(vgg7, 43),
]
DATA = {
    "signs": Data(OLDS, FAULTS_OF_SIGNS, "gtsrb-cnn", 0.3, 700),
    "digits": Data([partial(lenet, 10)] * 8, FAULTS_OF_DIGITS, "mnist-lenet", 0.1, 1500),
}


class Network(NamedTuple):
    """A network: OLD if `name` is `old`, `seed 1` and so on for another seed of it, or a fault."""

    data: str
    old: int
    name: str


def networks(data: str) -> list[Network]:
    """Return all networks; each OLD has four faults, and each fault about as many OLDs."""
    faults = list(DATA[data].faults) * 2
    every = []
    for old in range(len(DATA[data].olds)):
        first = (FAULTS_OF_AN_OLD * old + old // 3) % len(DATA[data].faults)
        of_old = faults[first : first + FAULTS_OF_AN_OLD]
        every += [Network(data, old, name) for name in ("old", *SEEDS, *of_old)]
    return every


def read_signs(file: Path) -> Photos:
    table = pq.read_table(file)
    images = [np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB")) for image in table["image"].to_pylist()]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    return Photos(pixels, torch.tensor(table["label"].to_pylist()), torch.tensor(table["width"].to_pylist()))


def read_digits(source: str) -> Photos:
    images = fmrgen.load_recipe("_mnist", [f"source={source}"]).source.build()
    examples = [example.for_engine() for example in images.load(0, len(images), 32)]
    labels = torch.tensor([example.label for example in examples])
    return Photos(torch.stack([example.image for example in examples]), labels, torch.zeros_like(labels))


@cache
def photos_of(data: str, folder: Path) -> tuple[Photos, Photos, Photos]:
    """Return the photos of the training, the 500 that a user has, and those of the test."""
    random = torch.Generator().manual_seed(0)
    if data == "digits":
        test = read_digits("{kind: mnist, split: test}")
        usps = read_digits(f"{{kind: datasets, path: {folder / 'usps-test.parquet'}, split: train}}")
        others = test.of(torch.arange(SEEN, len(test.labels)))
        both = [torch.cat(pair) for pair in zip(others, usps, strict=True)]
        return read_digits("{kind: mnist, split: train}"), test.of(torch.arange(SEEN)), Photos(*both)
    table = pq.read_table(folder / "gtsrb-train.parquet", columns=["track"])
    is_held = torch.tensor([int(track.split("/")[1]) % 5 == 0 for track in table["track"].to_pylist()])
    photos = read_signs(folder / "gtsrb-train.parquet")
    held = photos.of(is_held)
    held = held.of(torch.randperm(len(held.labels), generator=random))
    places = torch.tensor([(held.labels[:place] == label).sum() for place, label in enumerate(held.labels)])
    chosen = (places >= OF_EACH_CLASS).sort(stable=True).indices[:SEEN]  # six of each class, then any
    return photos.of(~is_held), held.of(chosen), read_signs(folder / "gtsrb-test.parquet")


def trained(network: Network, photos: Photos) -> nn.Module:
    """Return a network after its training, in evaluation mode."""
    data = DATA[network.data]
    fault = data.faults.get(network.name, Fault())
    photos = fault.change(photos)
    torch.manual_seed(zlib.crc32(repr(network).encode()))
    model = nn.Sequential(Normalize([data.mean] * 3, [0.28] * 3), data.olds[network.old]())
    steps = int(data.steps * fault.steps)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.003)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.004, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(photos.labels), (128,))
        loss = cross_entropy(model(warped(photos.pixels[rows], fault.warp)), photos.labels[rows])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    fault.after(model)
    return model.eval().requires_grad_(False)


def warped(pixels: Tensor, strength: float) -> Tensor:
    """Return images shifted by up to a tenth of their side, turned by 15 degrees and zoomed by 15 %."""
    angle, zoom, across, down = strength * (2 * torch.rand(4, len(pixels)) - 1)
    angle, zoom = 0.26 * angle, torch.exp(0.15 * zoom)
    rows = [zoom * angle.cos(), -zoom * angle.sin(), 0.2 * across, zoom * angle.sin(), zoom * angle.cos(), 0.2 * down]
    grid = affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(pixels.shape), align_corners=False)
    return grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def measure(folder: Path, data: Path, network: Network) -> str:
    """Train a network and keep its logits of the 500 photos, its distances to them, and its predictions of the test."""
    file = folder / f"{network.data} {network.old} {network.name}.npz"
    if not file.exists():
        torch.set_num_threads(1)
        taught, seen, test = photos_of(network.data, data)
        model = trained(network, taught)
        with torch.no_grad():
            predictions = torch.cat([model(part).argmax(1) for part in torch.split(test.pixels, 500)])
            logits = model(seen.pixels)
        changes = [f"source.path={data / 'gtsrb-test.parquet'}"] if network.data == "signs" else []
        distances, is_refused = distances_of(model, seen, fmrgen.load_recipe(DATA[network.data].recipe, changes))
        kept = {"logits": logits.numpy(), "predictions": predictions.numpy()}
        with file.with_suffix(".part").open("wb") as part:
            np.savez(part, distances=distances, is_refused=is_refused, **kept)
        file.with_suffix(".part").rename(file)
    return file.stem


def distances_of(model: nn.Module, photos: Photos, recipe: fmrgen.Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps in the latent to the first mistake [N], and whether the oracle refused before [N].

    The last step is divided where the objective crosses zero. Where the oracle refuses or the steps run out, it is the
    number of steps that were accepted; NaN where it refuses the first.
    """
    options = replace(recipe.perturb, budget=STEPS_OF_SEARCH, step_size=STEP, control=0)
    _, _, generator, oracle = recipe.build(torch.device("cpu"))
    examples = [Example(place, photos.pixels[place], int(label)) for place, label in enumerate(photos.labels)]
    distances, is_refused = np.full(len(examples), np.nan), np.zeros(len(examples), dtype=bool)
    for row in perturb(examples, model, generator, oracle, options, expected=len(examples)):
        objectives = row.step_objectives  # of the reconstruction, then of each accepted step
        is_refused[row.id] = row.stop_reason in (StopReason.ORACLE, StopReason.REJECTED)
        if objectives and objectives[0] > 0:
            distances[row.id] = 0
        elif row.valid:
            before, last = objectives[-2:]
            distances[row.id] = row.iterations - (last / (last - before) if last > 0 else 0)
    return distances, is_refused


def partial_correlation(one: np.ndarray, other: np.ndarray, given: list[np.ndarray]) -> float:
    """Return the rank correlation of two columns, less what their ranks have of `given`."""
    ranks = np.stack([np.ones(len(one)), *map(rankdata, given)], 1)
    left = [column - ranks @ np.linalg.lstsq(ranks, column, rcond=None)[0] for column in map(rankdata, (one, other))]
    return float(np.dot(*left) / max(np.linalg.norm(left[0]) * np.linalg.norm(left[1]), 1e-9))


class ByClass(NamedTuple):
    """What is known of a pair, by class [K]; all but `halves` and `loss` are means over the 500 photos."""

    flips: np.ndarray
    softmax: np.ndarray
    of_old: np.ndarray
    margin: np.ndarray
    distance: np.ndarray
    loss: np.ndarray  # of accuracy on the test photos, in points
    halves: tuple[np.ndarray, np.ndarray]

    def figures(self) -> dict[str, float]:
        given = [self.flips, self.softmax, self.of_old]
        both = np.nan_to_num(zscore(self.flips)) + zscore(self.margin)
        first = np.argsort(-both, kind="stable")[:WORST]
        at_risk = first[both[first] > AT_RISK]
        return {
            "loss": float(self.loss.mean()),
            "margin": partial_correlation(self.margin, self.loss, given),
            "distance": partial_correlation(self.distance, self.loss, given),
            "distance given margin": partial_correlation(self.distance, self.loss, [*given, self.margin]),
            "margin given distance": partial_correlation(self.margin, self.loss, [*given, self.distance]),
            "ceiling": partial_correlation(*self.halves, given),
            "worst by flips": self.share_of_worst(self.flips),
            "worst by flips and margin": self.share_of_worst(both),
            "at risk": len(at_risk),
            "at risk without loss": int((self.loss[at_risk] < NO_LOSS).sum()),
        }

    def share_of_worst(self, score: np.ndarray) -> float:
        first = np.argsort(-score, kind="stable")[:WORST]
        return float(100 * self.loss[first].sum() / np.sort(self.loss)[-WORST:].sum())


def by_class(old: dict[str, np.ndarray], new: dict[str, np.ndarray], seen: np.ndarray, test: np.ndarray) -> ByClass:
    def mean(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        of_classes = [values[(labels == label) & np.isfinite(values)] for label in range(int(test.max()) + 1)]
        return np.array([of_class.mean() if len(of_class) else 0.0 for of_class in of_classes])

    of_label, margins = [], []
    for network in (old, new):
        logits = network["logits"].astype(np.float64)
        of_label.append(softmax(logits, 1)[np.arange(len(seen)), seen])
        is_label = np.arange(logits.shape[1]) == seen[:, None]
        margins.append(logits[is_label] - np.where(is_label, -np.inf, logits).max(1))
    distances = [np.log1p(network["distances"]) for network in (old, new)]
    is_right = [network["predictions"] == test for network in (old, new)]
    lost = 100 * (is_right[0].astype(float) - is_right[1])
    even = np.arange(len(test)) % 2 == 0
    return ByClass(
        flips=mean((margins[0] > 0).astype(float) - (margins[1] > 0), seen),
        softmax=mean(of_label[0] - of_label[1], seen),
        of_old=mean(1 - of_label[0], seen),
        margin=mean(margins[0] - margins[1], seen),
        distance=mean(distances[0] - distances[1], seen),
        loss=mean(lost, test),
        halves=(mean(lost[even], test[even]), mean(lost[~even], test[~even])),
    )


def interval(values: list[float]) -> list[float]:
    """Return the mean over OLDs and its 95 % interval by Student's t."""
    mean, half = np.mean(values), t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return [round(float(value), 3) for value in (mean, mean - half, mean + half)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=list(DATA))
    for option in ("--output", "--data"):
        parser.add_argument(option, type=Path, required=True)
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    every = networks(chosen.what)
    work = partial(measure, chosen.output, chosen.data)
    kept = {}
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for network, stem in zip(every, pool.map(work, every), strict=True):
            print(stem, flush=True)
            kept[network] = dict(np.load(chosen.output / f"{stem}.npz"))
    _, seen, test = photos_of(chosen.what, chosen.data)
    labels = seen.labels.numpy(), test.labels.numpy()
    result: dict[str, dict[str, list[float]]] = {}
    for kind, is_seed in (("faults", False), ("other seeds", True)):
        of_olds: list[dict[str, float]] = []
        for old in [network for network in every if network.name == "old"]:
            news = [new for new in every if new.old == old.old and new != old and (new.name in SEEDS) == is_seed]
            pairs = [by_class(kept[old], kept[new], *labels).figures() for new in news]
            of_olds.append({name: float(np.mean([pair[name] for pair in pairs])) for name in pairs[0]})
        result[kind] = {name: interval([figures[name] for figures in of_olds]) for name in of_olds[0]}
    result["every network"] = {"refused": interval([float(network["is_refused"].mean()) for network in kept.values()])}
    (chosen.output / f"{chosen.what}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
