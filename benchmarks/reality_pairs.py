"""The pairs of networks of benchmarks/reality.py: trained, asked and compared.

Each part has three networks OLD, and a NEW for each of 26 pairs. They learn from all training tracks but every fifth;
a diff of each pair is run on 500 photos of the others.
"""

import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import fmrgen
from benchmarks import regressions
from benchmarks.corruptions import CORRUPTIONS
from benchmarks.regressions import Images, Normalised
from benchmarks.signs import first_of_tracks
from fmrgen.classifiers.networks.cifar import vgg7
from fmrgen.generators.moves import Moves
from fmrgen.recipe.build import build_source

OLD = "OLD"
SEEN = 500  # photos
_OF_EACH_CLASS = 6  # of the 500, at least
_TURNS_OF_FRAMES = (0, 3, 2, 4, 1)  # in which the five frames of a track are taken
_STEPS, _BATCH = 800, 128
_TUNED_STEPS, _TUNED_RATE = 200, 0.0005
PARTS = ("choose", "confirm")
_TWINS = 2  # of each family, in each part
_CLASSES = 43
_SIDE_OF_RESNET = 64
_DARK_SHARE = 0.5
_MEAN, _STD = 0.3, 0.28
_OTHER_MEAN = 0.4
_SIDE = 32  # of the photos, pixels
_SEVERITIES = (1, 2, 3)
_COPIES = 5  # of a photo, moved, in each family
_NEAREST, _FEWEST_KEPT = 5, 20
_THIRD = "asset:gtsrb/cnn"


class Enlarged(nn.Module):
    """A network of images that are enlarged first."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(nn.functional.interpolate(images, size=_SIDE_OF_RESNET, mode="bilinear"))
        return logits


def _plain() -> nn.Module:
    return regressions.signs_network(_CLASSES)


def _vgg() -> nn.Module:
    return vgg7(_CLASSES)


def _resnet() -> nn.Module:
    return Enlarged(timm.create_model("test_resnet", num_classes=_CLASSES, stem_type="deep", replace_stem_pool=True))


FAMILIES: dict[str, Callable[[], nn.Module]] = {"plain": _plain, "VGG": _vgg, "ResNet": _resnet}


class New(NamedTuple):
    """How a network differs from OLD.

    Attributes:
        change: of the training images.
        warp: of their random moves, a share of the usual ones.
        steps: of the training, a share of the usual ones.
        after: what is done to the weights at the end.
        is_tuned: whether it begins with OLD's weights; with `steps` of 0 only `after` changes these.
        is_distilled: whether OLD's probabilities are the targets.
        mean: by which images are normalised.
    """

    change: Callable[[Images], Images] = lambda images: images
    warp: float = 1.0
    steps: float = 1.0
    after: Callable[[nn.Module], None] = lambda network: None
    is_tuned: bool = False
    is_distilled: bool = False
    mean: float = _MEAN


def _wrong_labels(share: float) -> Callable[[Images], Images]:
    def change(images: Images) -> Images:
        random = torch.Generator().manual_seed(1)
        is_wrong = torch.rand(len(images.labels), generator=random) < share
        others = torch.randint(1, _CLASSES, (len(images.labels),), generator=random)
        return images._replace(labels=torch.where(is_wrong, (images.labels + others) % _CLASSES, images.labels))

    return change


def _dark(images: Images) -> Images:
    """Leaves the darker half of the photos."""
    light = images.pixels.mean((1, 2, 3))
    return images.of(light <= light.quantile(_DARK_SHARE))


def _of_classes(most: int) -> Callable[[Images], Images]:
    return lambda images: images.of(images.labels < most)


def _blue_for_red(images: Images) -> Images:
    return images._replace(pixels=images.pixels.flip(1))


def _contrasting(images: Images) -> Images:
    return images._replace(pixels=(2 * images.pixels).clamp(max=1))


_KEPT = New(is_tuned=True, steps=0)
FAULTS = {
    "no 50": New(regressions.without(2)),
    "no stop": New(regressions.without(14)),
    "a seventh of priority road": New(regressions.thinned(12, 7)),
    "a seventh of yield": New(regressions.thinned(13, 7)),
    "30 and 80 swapped in a third": New(regressions.swapped(1, 5, 0.33)),
    "priority and right swapped in a third": New(regressions.swapped(12, 38, 0.33)),
    "near signs alone": New(regressions.wide),
    "dark photos alone": New(_dark),
    "never moved": New(warp=0),
    "moved twice as far": New(warp=2),
    "50 % pruned": _KEPT._replace(after=regressions.pruned(0.5)),
    "70 % pruned": _KEPT._replace(after=regressions.pruned(0.7)),
    "4 bits": _KEPT._replace(after=regressions.levels(7)),
    "3 bits": _KEPT._replace(after=regressions.levels(3)),
    "distilled": New(is_distilled=True),
    "a third of the steps": New(steps=0.33),
    "a tenth of the labels wrong": New(_wrong_labels(0.1)),
    "tuned on speed limits": New(_of_classes(9), is_tuned=True),
    "trained on blurred signs": New(regressions.of_blurred),
    "used with another mean": _KEPT._replace(mean=_OTHER_MEAN),
}


class Pair(NamedTuple):
    """OLD of a family and a part, and a NEW to compare it with."""

    part: str
    family: str
    name: str
    seed: int

    @property
    def title(self) -> str:
        """Its name, and that of its files."""
        return f"{self.part}, {self.family}, {self.name}"

    @property
    def new(self) -> New:
        """How NEW differs."""
        return FAULTS.get(self.name, New())

    @property
    def old(self) -> "Pair":
        """OLD, as if it were a NEW."""
        return self._replace(name=OLD, seed=1000 * PARTS.index(self.part))


def pairs() -> list[Pair]:
    """Returns all pairs: of each part two twins of each family, and each fault, in a family that is drawn."""
    random = np.random.default_rng(0)
    every = []
    for number, part in enumerate(PARTS):
        for family in FAMILIES:
            for twin in range(1, _TWINS + 1):
                every.append(Pair(part, family, f"twin {twin}", 1000 * number + twin))
        families = random.permutation(np.resize(list(FAMILIES), len(FAULTS))).tolist()
        for place, name in enumerate(FAULTS):
            every.append(Pair(part, families[place], name, 1000 * number + 100 + place))
    return every


def dealt(table: Path) -> tuple[Images, Images]:
    """Returns the photos that teach, which are of four fifths of the tracks, and the 500 that are seen."""
    photos = regressions.signs(table)
    is_held = torch.from_numpy(first_of_tracks(pq.read_table(table, columns=["label", "track"])))
    return photos.of(~is_held), photos.of(seen_places(table))


def seen_places(table: Path) -> Tensor:
    """Returns the rows of 500 photos of every fifth track of each class: six of each class, if it has as many."""
    columns = pq.read_table(table, columns=["label", "track"])
    is_held = torch.from_numpy(first_of_tracks(columns))
    labels = torch.tensor(columns["label"].to_pylist())
    frames: Counter[str] = Counter()
    ranks = []  # among the frames of a track
    for track in columns["track"].to_pylist():
        frames[track] += 1
        ranks.append(_TURNS_OF_FRAMES[(frames[track] - 1) % len(_TURNS_OF_FRAMES)])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    order = order[torch.tensor(ranks)[order].sort(stable=True).indices]  # frames that are far apart come first
    chosen: list[int] = []
    others: list[int] = []
    of_classes: Counter[int] = Counter()
    for place in order[is_held[order]].tolist():
        label = int(labels[place])
        of_classes[label] += 1
        (chosen if of_classes[label] <= _OF_EACH_CLASS else others).append(place)
    return torch.tensor([*chosen, *others][:SEEN]).sort().values


def network_of(family: str, mean: float = _MEAN) -> Normalised:
    """Returns a network of random weights."""
    return Normalised(FAMILIES[family](), mean, _STD)


class Files(NamedTuple):
    """What the study is made from, and where to.

    Attributes:
        output: a folder.
        train: gtsrb-train.parquet.
        test: gtsrb-test.parquet.
    """

    output: Path
    train: Path
    test: Path


def make(files: Files, part: str) -> None:
    """Trains, asks and compares the networks of a part on all cores, as far as this has not been done."""
    for folder in ("networks", "answers", "diffs"):
        (files.output / folder).mkdir(parents=True, exist_ok=True)
    seen_file = _seen_file(files.output)
    if not seen_file.exists():
        pq.write_table(pq.read_table(files.train).take(seen_places(files.train).tolist()), seen_file)
    news = [pair for pair in pairs() if pair.part == part]
    olds = list(dict.fromkeys(pair.old for pair in news))
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for work, of_pairs in ((_train, olds), (_train, news), (_ask, [*olds, *news]), (_compare, news)):
            for line in pool.map(partial(work, files), of_pairs):
                if line:
                    print(line, flush=True)


def weights_of(output: Path, pair: Pair) -> Path:
    """Returns the file of a network's weights."""
    return output / "networks" / f"{pair.title}.safetensors"


def _train(files: Files, pair: Pair) -> str:
    file = weights_of(files.output, pair)
    if file.exists():
        return ""
    photos, _ = dealt(files.train)
    torch.manual_seed(pair.seed)
    new = pair.new
    network, old = network_of(pair.family, new.mean), network_of(pair.family)
    if pair.name != OLD:
        old.load_state_dict(load_file(weights_of(files.output, pair.old)))
        old.eval()
    steps, rate = int(_STEPS * new.steps), 0.004
    if new.is_tuned:
        network.load_state_dict(old.state_dict())
        steps, rate = int(_TUNED_STEPS * new.steps), _TUNED_RATE
    teacher = old if new.is_distilled else None
    if steps:
        regressions.fitted(network, new.change(photos), new.warp, steps, rate, teacher)
    network.eval()
    new.after(network.network)
    unfinished = file.with_suffix(".unfinished")
    save_file(network.state_dict(), unfinished)
    os.replace(unfinished, file)
    return f"{pair.title}: trained"


class Answers(NamedTuple):
    """What a network says.

    Attributes:
        seen: probabilities of the 500 photos [N, K].
        corrupted: answers to these under corruptions of three severities [C, N].
        moved: answers to these moved at random [M, N].
        test: answers to the test photos [T].
        distance: of each of the 500 from the nearest photo of its class that taught the network, in a third network's
            features [N].
    """

    seen: np.ndarray
    corrupted: np.ndarray
    moved: np.ndarray
    test: np.ndarray
    distance: np.ndarray


def _ask(files: Files, pair: Pair) -> str:
    file = files.output / "answers" / f"{pair.title}.npz"
    if file.exists():
        return ""
    photos, seen = dealt(files.train)
    network = _loaded(files.output, pair)
    answers = Answers(
        _probabilities(network, seen.pixels),
        np.stack([_labels(network, pixels) for pixels in _corrupted(seen.pixels)]),
        np.stack([_labels(network, pixels) for pixels in _moved(seen)]),
        _labels(network, regressions.signs(files.test).pixels),
        _distance(seen, photos if pair.new.is_tuned else pair.new.change(photos)),
    )
    unfinished = file.with_suffix(".unfinished.npz")
    np.savez(unfinished, **answers._asdict())
    os.replace(unfinished, file)
    return f"{pair.title}: asked"


def _compare(files: Files, pair: Pair) -> str:
    file = files.output / "diffs" / f"{pair.title}.json"
    if file.exists():
        return ""
    _, seen = dealt(files.train)
    started = time.monotonic()
    figures = _figures_of_diff(files.output, pair)
    figures["near"] = _near(files.output, pair, seen, regressions.signs(files.test))
    figures["seconds"] = round(time.monotonic() - started)
    file.write_text(json.dumps(figures, indent=1))
    return f"{pair.title}: {figures['verdict']}, {figures['seconds']} s"


def _seen_file(output: Path) -> Path:
    return output / "seen.parquet"


def _loaded(output: Path, pair: Pair) -> Normalised:
    network = network_of(pair.family, pair.new.mean)
    network.load_state_dict(load_file(weights_of(output, pair)))
    return network.eval()


@torch.no_grad()
def _probabilities(network: nn.Module, pixels: Tensor) -> np.ndarray:
    probabilities: np.ndarray = torch.cat([network(part).softmax(1) for part in torch.split(pixels, _BATCH)]).numpy()
    return probabilities


def _labels(network: nn.Module, pixels: Tensor) -> np.ndarray:
    labels: np.ndarray = _probabilities(network, pixels).argmax(1)
    return labels


def _corrupted(pixels: Tensor) -> Iterator[Tensor]:
    images = fmrgen.to_bytes(pixels)
    for name, corrupt in CORRUPTIONS.items():
        for severity in _SEVERITIES:
            torch.manual_seed(zlib.crc32(name.encode()) + severity)
            yield torch.stack([corrupt(image, severity) for image in images]).float() / 255


def _moved(seen: Images) -> Iterator[Tensor]:
    for family in ("geometric", "photometric"):
        for copy in range(_COPIES):
            generator = Moves(_SIDE, family)
            generator.row_seeds = [fmrgen.row_seed(copy, place) for place in range(len(seen.labels))]
            free, fixed = generator.encode(seen.pixels, seen.labels)
            yield fmrgen.on_byte_grid(generator.decode(fmrgen.Latents(torch.ones_like(free), fixed)))


def _distance(seen: Images, taught: Images) -> np.ndarray:
    """Returns how far each photo is from the nearest of its class, [N]; 2, the largest distance, if there is none."""
    of_seen, of_taught = _features(seen.pixels), _features(taught.pixels)
    distances = np.full(len(of_seen), 2.0)
    for place, label in enumerate(seen.labels.tolist()):
        members = of_taught[taught.labels.numpy() == label]
        if len(members):
            distances[place] = np.linalg.norm(members - of_seen[place], axis=1).min()
    return distances


def _figures_of_diff(output: Path, pair: Pair) -> dict[str, Any]:
    """Returns what a diff says of a pair, and which photos have an image that broke or was fixed."""
    recipe = fmrgen.load_recipe("gtsrb-cnn", [f"source.path={_seen_file(output)}", f"source.limit={SEEN}"])
    names = list(build_source(recipe.source).labels.names)
    sections = [_section(output, network, names) for network in (pair.old, pair)]
    outcome = fmrgen.diff(*sections, recipe=recipe, output=_folder_of_diff(output, pair))
    lines = []
    for line in outcome.evidence:
        lines.append([line.kind, line.images, line.broke.value, line.fixed.value, line.is_worse, line.is_better])
    return {
        "verdict": outcome.verdict,
        "evidence": lines,
        "classes": [kind.name for kind in outcome.flips.classes if kind.is_worse],
        "broke": [row["id"] for row in _made_rows(output, pair, "broke/new")],
        "fixed": [row["id"] for row in _made_rows(output, pair, "fixed/old")],
    }


def _made_rows(output: Path, pair: Pair, side: str) -> Iterator[dict[str, Any]]:
    """Yields the rows of a split of which the image was found: the other network and the oracle have it right."""
    opened = fmrgen.open_split(f"{_folder_of_diff(output, pair)}:gtsrb-{side}")
    for row in opened.stored_rows(("image",)):
        if row["valid"] and row["prediction"] != row["label"]:
            yield row | {"image": np.asarray(opened.decode(row["image"], "an image"))}


def _folder_of_diff(output: Path, pair: Pair) -> Path:
    return output / "splits" / pair.title.replace(", ", "-").replace(" ", "-").replace("%", "percent")


def _section(output: Path, pair: Pair, names: Sequence[str]) -> str:
    section = {
        "kind": "module",
        "target": "benchmarks.reality_pairs:network_of",
        "args": {"family": pair.family, "mean": pair.new.mean},
        "checkpoint": str(weights_of(output, pair).resolve()),
        "class_names": list(names),
    }
    return json.dumps(section)


def _near(output: Path, pair: Pair, seen: Images, test: Images) -> dict[str, float] | None:
    """Returns how many in a hundred of the test photos nearest to what NEW broke broke too, less those fixed.

    Nearest are five of the class, in the features of a third network: to each image that was kept of a photo that both
    have right, and as a control to that photo itself; `class` is the figure of all test photos of the class. Each class
    counts the same.
    """
    old, new = (answers_of(output, network) for network in (pair.old, pair))
    labels = seen.labels.numpy()
    both_right = (old.seen.argmax(1) == labels) & (new.seen.argmax(1) == labels)
    rows = [row for row in _made_rows(output, pair, "broke/new") if both_right[row["id"]]]
    if len(rows) < _FEWEST_KEPT:
        return None
    truth = test.labels.numpy()
    net = net_flips(old.test, new.test, truth)
    features = _features(test.pixels)
    of_kept = _features(fmrgen.to_batch(np.stack([row["image"] for row in rows]), "cpu"))
    of_originals = _features(seen.pixels[[row["id"] for row in rows]])
    by_class: dict[int, list[list[float]]] = {}
    for place, row in enumerate(rows):
        members = np.flatnonzero(truth == row["label"])
        figures = [float(net[members].mean())]
        for vector in (of_originals[place], of_kept[place]):
            distances = np.linalg.norm(features[members] - vector, axis=1)
            figures.append(float(net[members[np.argsort(distances)[:_NEAREST]]].mean()))
        by_class.setdefault(row["label"], []).append(figures)
    means = 100 * np.mean([np.mean(figures, axis=0) for figures in by_class.values()], axis=0)
    return {"class": means[0], "originals": means[1], "kept": means[2], "images": len(rows)}


@torch.no_grad()
def _features(pixels: Tensor) -> np.ndarray:
    """Returns unit vectors [N, D] that a network which is neither compared nor in the panel sees in images."""
    classifier: Any = fmrgen.load_classifier(_THIRD)
    below_head = classifier.network[:-1]
    parts = [below_head(classifier.preprocess(part)) for part in torch.split(pixels, _BATCH)]
    features: np.ndarray = nn.functional.normalize(torch.cat(parts), dim=1).numpy()
    return features


def answers_of(output: Path, pair: Pair) -> Answers:
    """Returns what a network says, once it has been asked."""
    with np.load(output / "answers" / f"{pair.title}.npz") as arrays:
        return Answers(**{field: arrays[field] for field in Answers._fields})


def net_flips(old: np.ndarray, new: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns 1 for each answer [..., N] that broke, -1 for one that was fixed, else 0."""
    net: np.ndarray = (old == labels).astype(float) - (new == labels)
    return net
