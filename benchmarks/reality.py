"""Does what `fmrgen diff` finds on 500 photos flip later, on photos that it has not seen?

    python -m benchmarks.reality train -o reality --train gtsrb-train.parquet
    python -m benchmarks.reality compare -o reality --train gtsrb-train.parquet --test gtsrb-test.parquet
    python -m benchmarks.reality answer -o reality

`train` makes three networks OLD and a NEW for each of forty pairs, from all training tracks but every fifth. `compare`
runs a diff of each pair on 500 photos of these, and asks all networks about the test photos. `answer` says how the two
agree; its figures are of the files that `compare` left. Each goes on where it was stopped. The plan is
docs/results/reality.md.
"""

import argparse
import json
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
from benchmarks.signs import FAR, first_of_tracks
from fmrgen.apps.studies.partial_correlation import partial_correlation, resampled, spearman
from fmrgen.classifiers.networks.cifar import vgg7
from fmrgen.generators.moves import Moves
from fmrgen.recipe.build import build_source

OLD = "OLD"
SEEN = 500  # photos
_FRAMES = (1, 4)  # of the five of a track
_STEPS, _BATCH = 1000, 128
_TUNED_STEPS, _TUNED_RATE = 200, 0.0005
_TWINS = 4  # of each family
_CLASSES = 43
_SIDE_OF_RESNET = 64
_DARK_SHARE = 0.5
_MEAN, _STD = 0.3, 0.28
_OTHER_MEAN = 0.4
_SIDE = 32  # of the photos, pixels
_SEVERITIES = (1, 2, 3)
_COPIES = 5  # of a photo, moved, in each family
_NEAREST, _FEWEST_KEPT = 5, 20
_THIRD = "asset:gtsrb/oracle/densenet"
_BROKE_SPLIT = "gtsrb-broke/new"
_FEWEST_SEEN, _FEWEST_TESTED = 4, 20  # photos of a class
_FIRST = 3  # classes
_DARKEST = 0.2  # share of the test photos
_FEWEST_PAIRS = 3
_PHOTOS = (500, 750, 1000, 1500, 2000, 3000)
_DRAWS = 20


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
    "a seventh of 50": New(regressions.thinned(2, 7)),
    "a seventh of stop": New(regressions.thinned(14, 7)),
    "a seventh of priority road": New(regressions.thinned(12, 7)),
    "30 and 80 swapped in a tenth": New(regressions.swapped(1, 5, 0.1)),
    "60 and 80 swapped in a tenth": New(regressions.swapped(3, 5, 0.1)),
    "priority and right swapped in a tenth": New(regressions.swapped(12, 38, 0.1)),
    "near signs alone": New(regressions.wide),
    "dark photos alone": New(_dark),
    "bright photos alone": New(regressions.bright),
    "never moved": New(warp=0),
    "hardly moved": New(warp=0.25),
    "moved twice as far": New(warp=2),
    "30 % pruned": _KEPT._replace(after=regressions.pruned(0.3)),
    "50 % pruned": _KEPT._replace(after=regressions.pruned(0.5)),
    "70 % pruned": _KEPT._replace(after=regressions.pruned(0.7)),
    "8 bits": _KEPT._replace(after=regressions.levels(127)),
    "4 bits": _KEPT._replace(after=regressions.levels(7)),
    "3 bits": _KEPT._replace(after=regressions.levels(3)),
    "distilled": New(is_distilled=True),
    "a third of the steps": New(steps=0.33),
    "a tenth of the steps": New(steps=0.1),
    "used with another mean": _KEPT._replace(mean=_OTHER_MEAN),
    "a tenth of the labels wrong": New(_wrong_labels(0.1)),
    "three tenths of the labels wrong": New(_wrong_labels(0.3)),
    "tuned on speed limits": New(_of_classes(9), is_tuned=True),
    "tuned on near signs": New(regressions.wide, is_tuned=True),
    "trained on blurred signs": New(regressions.of_blurred),
    "trained on doubled contrast": New(_contrasting),
}


class Pair(NamedTuple):
    """OLD of a family, and a NEW of it, by the name of its file."""

    family: str
    name: str
    new: New
    seed: int


def pairs() -> list[Pair]:
    """Returns all pairs. Every second one chooses, and the others confirm."""
    by_seed = [Pair(family, f"twin {seed}", New(), seed) for seed in range(1, _TWINS + 1) for family in FAMILIES]
    families = list(FAMILIES)
    for number, (name, new) in enumerate(FAULTS.items()):
        by_seed.append(Pair(families[number % len(families)], name, new, 100 + number))
    return by_seed


def dealt(table: Path) -> tuple[Images, Images]:
    """Returns the photos that teach, which are of four fifths of the tracks, and the 500 that are seen."""
    photos = regressions.signs(table)
    is_held = torch.from_numpy(first_of_tracks(pq.read_table(table, columns=["label", "track"])))
    return photos.of(~is_held), photos.of(seen_places(table))


def seen_places(table: Path) -> Tensor:
    """Returns the rows of 500 photos of every fifth track of each class, of two frames of a track at most."""
    columns = pq.read_table(table, columns=["label", "track"])
    frames: Counter[str] = Counter()
    is_chosen = []
    for track in columns["track"].to_pylist():
        frames[track] += 1
        is_chosen.append(frames[track] in _FRAMES)
    held = (torch.from_numpy(first_of_tracks(columns)) & torch.tensor(is_chosen)).nonzero()[:, 0]
    order = torch.randperm(len(held), generator=torch.Generator().manual_seed(0))
    return held[order[:SEEN]].sort().values


def network_of(family: str, mean: float = _MEAN) -> Normalised:
    """Returns a network of random weights."""
    return Normalised(FAMILIES[family](), mean, _STD)


def train(output: Path, table: Path) -> None:
    """Trains all networks that are not there yet."""
    torch.set_num_threads(1)
    photos, _ = dealt(table)
    (output / "networks").mkdir(parents=True, exist_ok=True)
    for family in FAMILIES:
        _train(output, Pair(family, OLD, New(), 0), photos)
    for pair in pairs():
        _train(output, pair, photos)


def weights_of(output: Path, pair: Pair) -> Path:
    """Returns the file of a network's weights."""
    return output / "networks" / f"{pair.family}, {pair.name}.safetensors"


def _train(output: Path, pair: Pair, photos: Images) -> None:
    file = weights_of(output, pair)
    if file.exists():
        return
    torch.manual_seed(pair.seed)
    new = pair.new
    network, old = network_of(pair.family, new.mean), network_of(pair.family)
    if pair.name != OLD:
        old.load_state_dict(load_file(weights_of(output, pair._replace(name=OLD))))
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
    save_file(network.state_dict(), file)
    print(f"{pair.family}: {pair.name}", flush=True)


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


def compare(output: Path, table: Path, test: Path) -> None:
    """Asks every network, and runs a diff of each pair, as far as this has not been done."""
    photos, seen = dealt(table)
    test_photos = regressions.signs(test)
    seen_file = output / "seen.parquet"
    if not seen_file.exists():
        pq.write_table(pq.read_table(table).take(seen_places(table).tolist()), seen_file)
    every = [Pair(family, OLD, New(), 0) for family in FAMILIES] + pairs()
    for pair in every:
        file = output / "answers" / f"{pair.family}, {pair.name}.npz"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            network = _loaded(output, pair)
            answers = Answers(
                _probabilities(network, seen.pixels),
                np.stack([_labels(network, pixels) for pixels in _corrupted(seen.pixels)]),
                np.stack([_labels(network, pixels) for pixels in _moved(seen)]),
                _labels(network, test_photos.pixels),
                _distance(seen, photos if pair.new.is_tuned else pair.new.change(photos)),
            )
            np.savez(file, **answers._asdict())
    for pair in pairs():
        file = output / "diffs" / f"{pair.family}, {pair.name}.json"
        if not file.exists():
            started = time.monotonic()
            figures = _figures_of_diff(output, pair, seen_file)
            figures["near"] = _near(output, pair, test_photos)
            figures["seconds"] = round(time.monotonic() - started)
            file.write_text(json.dumps(figures, indent=1))
            print(f"{pair.family}: {pair.name}: {figures['verdict']}, {figures['seconds']} s", flush=True)


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


def _figures_of_diff(output: Path, pair: Pair, seen_file: Path) -> dict[str, Any]:
    """Returns what a diff says of a pair: its verdict, its evidence, and for each class what broke and was fixed."""
    recipe = fmrgen.load_recipe("gtsrb-cnn", [f"source.path={seen_file}", f"source.limit={SEEN}"])
    names = list(build_source(recipe.source).labels.names)
    old = pair._replace(name=OLD, new=New())
    sections = [_section(output, network, names) for network in (old, pair)]
    outcome = fmrgen.diff(*sections, recipe=recipe, output=_folder_of_diff(output, pair))
    made = {} if outcome.made is None else {kind.name: kind for kind in outcome.made.classes}
    classes = []
    for name in names:
        of_class = made.get(name)
        classes.append(None if of_class is None else of_class.broke.value - of_class.fixed.value)
    lines = []
    for line in outcome.evidence:
        lines.append([line.kind, line.images, line.broke.value, line.fixed.value, line.is_worse, line.is_better])
    controls = {}
    if outcome.made is not None:
        for name, control in outcome.made.controls.items():
            if control.broke is not None and control.fixed is not None:
                controls[name] = control.broke.value - control.fixed.value
    return {
        "verdict": outcome.verdict,
        "evidence": lines,
        "made": classes,
        "controls": controls,
        "band": None if outcome.band is None else outcome.band.width,
    }


def _folder_of_diff(output: Path, pair: Pair) -> Path:
    return output / "splits" / f"{pair.family} {pair.name}".replace(" ", "-").replace("%", "percent")


def _section(output: Path, pair: Pair, names: Sequence[str]) -> str:
    section = {
        "kind": "module",
        "target": "benchmarks.reality:network_of",
        "args": {"family": pair.family, "mean": pair.new.mean},
        "checkpoint": str(weights_of(output, pair).resolve()),
        "class_names": list(names),
    }
    return json.dumps(section)


def _near(output: Path, pair: Pair, test: Images) -> dict[str, float] | None:
    """Returns how many in a hundred of the test photos nearest to what NEW broke broke too, less those fixed.

    Nearest are five of the class, in the features of a third network: to each image that was kept, and as a control to
    its original; `class` is the figure of all photos of these classes.
    """
    split = f"{_folder_of_diff(output, pair)}:{_BROKE_SPLIT}"
    images, originals, labels = [], [], []
    opened = fmrgen.open_split(split)
    for row in opened.stored_rows(("image", "original")):
        if row["valid"] and row["prediction"] != row["label"]:
            images.append(np.asarray(opened.decode(row["image"], "an image")))
            originals.append(np.asarray(opened.decode(row["original"], "an original")))
            labels.append(row["label"])
    if len(images) < _FEWEST_KEPT:
        return None
    old, new = (_answers(output, pair.family, name).test for name in (OLD, pair.name))
    truth = test.labels.numpy()
    net = (old == truth).astype(float) - (new == truth)
    features = _features(test.pixels)
    of_kept = _features(fmrgen.to_batch(np.stack(images), "cpu"))
    of_originals = _features(fmrgen.to_batch(np.stack(originals), "cpu"))
    shares: dict[str, list[float]] = {"kept": [], "originals": [], "class": []}
    for place, label in enumerate(labels):
        members = np.flatnonzero(truth == label)
        shares["class"].append(float(net[members].mean()))
        for name, vectors in (("kept", of_kept), ("originals", of_originals)):
            distances = np.linalg.norm(features[members] - vectors[place], axis=1)
            shares[name].append(float(net[members[np.argsort(distances)[:_NEAREST]]].mean()))
    return {name: 100 * float(np.mean(values)) for name, values in shares.items()} | {"images": len(labels)}


@torch.no_grad()
def _features(pixels: Tensor) -> np.ndarray:
    """Returns unit vectors [N, D], what the head of a member of the panel gets."""
    classifier: Any = fmrgen.load_classifier(_THIRD)
    parts = []
    for part in torch.split(pixels, _BATCH):
        before = classifier.network.forward_features(classifier.preprocess(part))
        parts.append(classifier.network.forward_head(before, pre_logits=True))
    features: np.ndarray = nn.functional.normalize(torch.cat(parts), dim=1).numpy()
    return features


def _answers(output: Path, family: str, name: str) -> Answers:
    with np.load(output / "answers" / f"{family}, {name}.npz") as arrays:
        return Answers(**{field: arrays[field] for field in Answers._fields})


class Figures(NamedTuple):
    """Of a pair: what really broke less what was fixed, in points, and what predicts it, each by class [K].

    Classes of few photos are nan.
    """

    real: np.ndarray
    predictors: dict[str, np.ndarray]


def _by_class(values: np.ndarray, labels: np.ndarray, fewest: int) -> np.ndarray:
    """Returns the mean of values [N] for each class, in points, nan for one of fewer photos."""
    means = np.full(_CLASSES, np.nan)
    for label in range(_CLASSES):
        members = values[labels == label]
        if len(members) >= fewest:
            means[label] = 100 * members.mean()
    return means


def _net(old: np.ndarray, new: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns 1 for each answer [..., N] that broke, -1 for one that was fixed, else 0."""
    net: np.ndarray = (old == labels).astype(float) - (new == labels)
    return net


def _figures(output: Path, pair: Pair, made: Sequence[float | None], seen: np.ndarray, test: np.ndarray) -> Figures:
    """Returns the figures of a pair; `seen` and `test` are the labels."""
    old, new = (_answers(output, pair.family, name) for name in (OLD, pair.name))
    places = np.arange(len(seen))
    half = len(old.moved) // 2
    values = {
        "originals": _net(old.seen.argmax(1), new.seen.argmax(1), seen),
        "softmax": old.seen[places, seen] - new.seen[places, seen],
        "corrupted": _net(old.corrupted, new.corrupted, seen).mean(0),
        "moved, geometric": _net(old.moved[:half], new.moved[:half], seen).mean(0),
        "moved, photometric": _net(old.moved[half:], new.moved[half:], seen).mean(0),
        "distance": new.distance - old.distance,
    }
    predictors = {name: _by_class(of_photos, seen, _FEWEST_SEEN) for name, of_photos in values.items()}
    of_made = np.array([np.nan if value is None else value for value in made])
    predictors["made"] = np.where(np.isnan(predictors["originals"]), np.nan, of_made)
    predictors["made and originals"] = predictors["made"] + predictors["originals"]
    return Figures(_by_class(_net(old.test, new.test, test), test, _FEWEST_TESTED), predictors)


def _partial(figures: Figures, name: str) -> float:
    """Returns the rank correlation over classes of a predictor with what really broke, given the originals."""
    predictor, given = figures.predictors[name], figures.predictors["originals"]
    is_known = ~np.isnan(figures.real) & ~np.isnan(predictor) & ~np.isnan(given)
    columns = [column[is_known] for column in (predictor, figures.real, given)]
    if name == "originals":
        return float(spearman(columns[0], columns[1]))
    return float(partial_correlation(*columns))


def _hit(figures: Figures, name: str) -> float:
    """Returns the chance that the class that really broke most is among a predictor's first three; ties are drawn."""
    predictor = np.nan_to_num(figures.predictors[name], nan=-np.inf)
    worst = int(np.nanargmax(figures.real))
    before = int((predictor > predictor[worst]).sum())
    tied = int((predictor == predictor[worst]).sum())
    return float(np.clip((_FIRST - before) / tied, 0, 1))


def answer(output: Path, table: Path, test_file: Path) -> None:
    """Writes answers.json, and prints it as tables."""
    _, seen = dealt(table)
    test = regressions.signs(test_file)
    labels = test.labels.numpy()
    answers: dict[str, Any] = {"pairs": [], "power": _power()}
    of_pairs = []
    for number, pair in enumerate(pairs()):
        diff = json.loads((output / "diffs" / f"{pair.family}, {pair.name}.json").read_text())
        figures = _figures(output, pair, diff["made"], seen.labels.numpy(), labels)
        old, new = (_answers(output, pair.family, name).test for name in (OLD, pair.name))
        real = fmrgen.diff(old, new, labels)
        net = _net(old, new, labels)
        entry = {
            "family": pair.family,
            "name": pair.name,
            "part": "confirm" if number % 2 else "choose",
            "is_twin": pair.name.startswith("twin"),
            "real": real.verdict,
            "diff": diff["verdict"],
            "net": 100 * float(net.mean()),
            "far": 100 * float(net[_far(test)].mean()),
            "dark": 100 * float(net[_dark_places(test)].mean()),
            "overall": _overall(diff),
            "partial": {name: _partial(figures, name) for name in figures.predictors},
            "hit": {name: _hit(figures, name) for name in figures.predictors},
            "near": diff["near"],
        }
        answers["pairs"].append(entry)
        of_pairs.append((entry, old, new))
    for part in ("choose", "confirm"):
        chosen = [entry for entry in answers["pairs"] if entry["part"] == part]
        answers[part] = _answers_of(chosen) | {"photos": _photos_needed(of_pairs, part, labels)}
    (output / "answers.json").write_text(json.dumps(answers, indent=1))
    _print(answers)


def _far(test: Images) -> np.ndarray:
    assert test.widths is not None
    is_far: np.ndarray = (test.widths < FAR).numpy()
    return is_far


def _dark_places(test: Images) -> np.ndarray:
    light = test.pixels.mean((1, 2, 3))
    is_dark: np.ndarray = (light <= light.quantile(_DARKEST)).numpy()
    return is_dark


def _overall(diff: dict[str, Any]) -> dict[str, float]:
    """Returns broke less fixed in points for each kind of images, all classes together."""
    overall: dict[str, float] = {line[1]: line[2] - line[3] for line in diff["evidence"] if line[0] != "class"}
    controls: dict[str, float] = diff["controls"]
    return overall | controls


def _answers_of(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the answers to the questions, of some pairs."""
    names = list(entries[0]["partial"])
    worse = [entry for entry in entries if entry["real"] == "broke more"]
    twins = [entry for entry in entries if entry["is_twin"]]
    partial = {name: _mean([entry["partial"][name] for entry in entries]) for name in names}
    hits = {name: _mean([entry["hit"][name] for entry in worse]) for name in names}
    near = [entry["near"] for entry in worse if entry["near"] is not None]
    return {
        "pairs": len(entries),
        "1 partial": partial,
        "2 regressions": len(worse),
        "2 first three": hits,
        "2 more than originals": _mean(
            [entry["hit"]["made and originals"] - entry["hit"]["originals"] for entry in worse]
        ),
        "3 called worse": _share([entry["diff"] == "broke more" for entry in worse]),
        "3 called worse, no regression": _share(
            [entry["diff"] == "broke more" for entry in entries if entry["real"] != "broke more"]
        ),
        "3 quiet twins": _share([entry["diff"] != "broke more" for entry in twins]),
        "5 kept less originals": _mean([entry["kept"] - entry["originals"] for entry in near]),
        "5 kept": _mean([entry["kept"] for entry in near]),
        "5 class": _mean([entry["class"] for entry in near]),
    }


def _mean(values: Sequence[float]) -> list[float] | None:
    """Returns the mean of values of pairs and its interval, from resampled pairs; None for fewer than three."""
    if len(values) < _FEWEST_PAIRS:
        return None
    array = np.array(values)
    estimate = resampled(lambda rows: array[rows].mean(-1), len(array))
    return [estimate.value, *estimate.ends]


def _share(hits: Sequence[bool]) -> list[float] | None:
    """Returns the share of hits in percent with its interval, and their number."""
    estimate = fmrgen.proportion(np.array(hits, dtype=bool))
    return None if estimate is None else [estimate.value, *estimate.ends, len(hits)]


def _photos_needed(
    of_pairs: Sequence[tuple[dict[str, Any], np.ndarray, np.ndarray]], part: str, labels: np.ndarray
) -> dict[str, float]:
    """Returns the share of the real regressions that so many labelled photos alone show, in percent.

    Whether a regression is real is said by one half of the test photos, and the photos are drawn from the other.
    """
    halves = np.random.default_rng(0).permutation(len(labels))
    truth, pool = halves[: len(labels) // 2], halves[len(labels) // 2 :]
    shown: dict[str, list[float]] = {str(count): [] for count in _PHOTOS}
    shown["diff on 500"] = []
    for entry, old, new in of_pairs:
        is_real = fmrgen.diff(old[truth], new[truth], labels[truth]).verdict == "broke more"
        if entry["part"] != part or not is_real:
            continue
        shown["diff on 500"].append(100.0 * (entry["diff"] == "broke more"))
        for count in _PHOTOS:
            verdicts = []
            for draw in range(_DRAWS):
                rows = np.random.default_rng(draw).choice(pool, count, replace=False)
                verdicts.append(fmrgen.diff(old[rows], new[rows], labels[rows]).verdict == "broke more")
            shown[str(count)].append(100 * float(np.mean(verdicts)))
    return {name: float(np.mean(values)) if values else float("nan") for name, values in shown.items()}


def _power(pairs_of_part: int = 20) -> dict[str, float]:
    """Returns how often the mean partial correlation of so many pairs is seen above 0, by its true size.

    A correlation over 40 classes has an error of 0.16, and pairs differ by as much again.
    """
    random = np.random.default_rng(0)
    power = {}
    for truth in (0.05, 0.1, 0.15, 0.2):
        means = random.normal(truth, np.hypot(0.16, 0.16), (2000, pairs_of_part))
        error = means.std(1, ddof=1) / np.sqrt(pairs_of_part)
        power[str(truth)] = 100 * float((means.mean(1) > 1.96 * error).mean())
    return power


def _print(answers: dict[str, Any]) -> None:
    for part in ("choose", "confirm"):
        print(f"## {part}")
        for name, figures in answers[part].items():
            if isinstance(figures, dict):
                for key, value in figures.items():
                    print(f"{name}: {key}: {_rounded(value)}")
            else:
                print(f"{name}: {_rounded(figures)}")
    print("| part | family | NEW | points lost | far | dark | real | diff |\n|---|---|---|--:|--:|--:|---|---|")
    for entry in answers["pairs"]:
        lost = " | ".join(f"{entry[name]:.1f}" for name in ("net", "far", "dark"))
        print(f"| {entry['part']} | {entry['family']} | {entry['name']} | {lost} | {entry['real']} | {entry['diff']} |")


def _rounded(figures: Any) -> Any:
    if isinstance(figures, list):
        return [round(value, 2) for value in figures]
    return round(figures, 2) if isinstance(figures, float) else figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "compare", "answer"])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--train", type=Path, help="gtsrb-train.parquet")
    parser.add_argument("--test", type=Path, help="gtsrb-test.parquet")
    given = parser.parse_args(arguments)
    match given.command:
        case "train":
            train(given.output, given.train)
        case "compare":
            compare(given.output, given.train, given.test)
        case _:
            answer(given.output, given.train, given.test)


if __name__ == "__main__":
    main()
