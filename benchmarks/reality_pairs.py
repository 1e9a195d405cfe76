"""The pairs of networks of benchmarks/reality.py: trained, asked and compared.

Each part has a network OLD of each family, and a NEW for each pair. They learn from photos that are not seen later; a
diff of each pair is run on the 500 that are seen.
"""

import io
import json
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

import fmrgen
from benchmarks import regressions
from benchmarks.corruptions import CORRUPTIONS
from benchmarks.reality_domains import DOMAINS, FAMILIES, Domain, Files, New
from benchmarks.regressions import Images, Normalised
from fmrgen.files import write_atomically
from fmrgen.generators.moves import Moves
from fmrgen.recipe.build import build_source

OLD = "OLD"
_STEPS, _BATCH = 800, 128
_TUNED_STEPS, _TUNED_RATE = 200, 0.0005
PARTS = tuple(DOMAINS)
_SIDE = 32  # of the photos, pixels
_SEVERITIES = (1, 2, 3)
_COPIES = 5  # of a photo, moved, in each family
_NEAREST, _FEWEST_KEPT = 5, 20


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
        return self.domain.faults.get(self.name, New())

    @property
    def domain(self) -> Domain:
        """What it is about."""
        return DOMAINS[self.part]

    @property
    def old(self) -> "Pair":
        """OLD, as if it were a NEW."""
        return self._replace(name=OLD, seed=1000 * PARTS.index(self.part))


def pairs() -> list[Pair]:
    """Returns all pairs: of each part the twins of each family, and each fault, in a family that is drawn."""
    random = np.random.default_rng(0)
    every = []
    for number, (part, domain) in enumerate(DOMAINS.items()):
        for family in domain.families:
            for twin in range(1, domain.twins + 1):
                every.append(Pair(part, family, f"twin {twin}", 1000 * number + twin))
        families = random.permutation(np.resize(domain.families, len(domain.faults))).tolist()
        for place, name in enumerate(domain.faults):
            every.append(Pair(part, families[place], name, 1000 * number + 100 + place))
    return every


def network_of(family: str, darker: float = 0.0) -> Normalised:
    """Returns a network of random weights, which takes a mean from images that is too large by `darker`."""
    network, mean, std = FAMILIES[family]
    return Normalised(network(), torch.tensor(mean).view(3, 1, 1) + darker, torch.tensor(std).view(3, 1, 1))


def make(files: Files, part: str) -> None:
    """Trains, asks and compares the networks of a part on all cores, as far as this has not been done."""
    for folder in ("networks", "answers", "diffs"):
        (files.output / folder).mkdir(parents=True, exist_ok=True)
    DOMAINS[part].seen(files)
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
    torch.manual_seed(pair.seed)
    new = pair.new
    network, old = network_of(pair.family, new.darker), network_of(pair.family)
    if pair.name == OLD and files.weights is not None:
        network.network.load_state_dict(_given(files.weights))
        new = New(steps=0)
    if pair.name != OLD:
        old.load_state_dict(load_file(weights_of(files.output, pair.old)))
        old.eval()
    steps, rate = int(_STEPS * new.steps), 0.004
    if new.is_tuned:
        network.load_state_dict(old.state_dict())
        steps, rate = int(_TUNED_STEPS * new.steps), _TUNED_RATE
    teacher = old if new.is_distilled else None
    if steps:
        photos = pair.domain.photos(files).taught
        regressions.fitted(network, new.change(photos), new.warp, steps, rate, teacher)
    network.eval()
    new.after(network.network)
    write_atomically(file, save(network.state_dict()))
    return f"{pair.title}: trained"


def _given(weights: Path) -> dict[str, Tensor]:
    """Returns the weights of a file of pytorch_resnet_cifar10."""
    state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


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
    taught, seen, test = pair.domain.photos(files)
    network = _loaded(files.output, pair)
    answers = Answers(
        _probabilities(network, seen.pixels),
        np.stack([_labels(network, pixels) for pixels in _corrupted(seen.pixels)]),
        np.stack([_labels(network, pixels) for pixels in _moved(seen)]),
        _labels(network, test.pixels),
        _distance(pair.domain, seen, taught if pair.new.is_tuned else pair.new.change(taught)),
    )
    buffer = io.BytesIO()
    np.savez(buffer, **answers._asdict())
    write_atomically(file, buffer.getvalue())
    return f"{pair.title}: asked"


def _compare(files: Files, pair: Pair) -> str:
    file = files.output / "diffs" / f"{pair.title}.json"
    if file.exists():
        return ""
    _, seen, test = pair.domain.photos(files)
    started = time.monotonic()
    figures = _figures_of_diff(files, pair)
    figures["near"] = _near(files.output, pair, seen, test) if pair.domain.third else None
    figures["seconds"] = round(time.monotonic() - started)
    write_atomically(file, json.dumps(figures, indent=1).encode())
    return f"{pair.title}: {figures['verdict']}, {figures['seconds']} s"


def _loaded(output: Path, pair: Pair) -> Normalised:
    network = network_of(pair.family, pair.new.darker)
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


def _distance(domain: Domain, seen: Images, taught: Images) -> np.ndarray:
    """Returns how far each photo is from the nearest of its class, [N]; 2, the largest distance, if there is none."""
    distances = np.full(len(seen.labels), 2.0)
    if domain.third is None:
        return distances
    of_seen, of_taught = _features(domain.third, seen.pixels), _features(domain.third, taught.pixels)
    for place, label in enumerate(seen.labels.tolist()):
        members = of_taught[taught.labels.numpy() == label]
        if len(members):
            distances[place] = np.linalg.norm(members - of_seen[place], axis=1).min()
    return distances


def _figures_of_diff(files: Files, pair: Pair) -> dict[str, Any]:
    """Returns what a diff says of a pair, and which photos have an image that broke or was fixed."""
    output = files.output
    recipe = fmrgen.load_recipe(files.recipe or pair.domain.recipe, pair.domain.seen(files))
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
        "remedies": [remedy.words for remedy in outcome.remedies],
        "confusions": [[confusion.label, confusion.other] for confusion in outcome.confusions],
        "traits": [trait.words for trait in outcome.traits],
        "broke": [row["id"] for row in _made_rows(output, pair, "broke/new")],
        "fixed": [row["id"] for row in _made_rows(output, pair, "fixed/old")],
    }


def _made_rows(output: Path, pair: Pair, side: str) -> Iterator[dict[str, Any]]:
    """Yields the rows of a split of which the image was found: the other network and the oracle have it right."""
    folder = _folder_of_diff(output, pair)
    config = next(path.name for path in folder.glob(f"*-{side.split('/')[0]}") if path.is_dir())
    opened = fmrgen.open_split(f"{folder}:{config}/{side.split('/')[1]}")
    for row in opened.stored_rows(("image",)):
        if row["valid"] and row["prediction"] != row["label"]:
            yield row | {"image": np.asarray(opened.decode(row["image"], "an image"))}


def _folder_of_diff(output: Path, pair: Pair) -> Path:
    return output / "splits" / pair.title.replace(", ", "-").replace(" ", "-").replace("%", "percent")


def _section(output: Path, pair: Pair, names: Sequence[str]) -> str:
    section = {
        "kind": "module",
        "target": "benchmarks.reality_pairs:network_of",
        "args": {"family": pair.family, "darker": pair.new.darker},
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
    third = pair.domain.third
    assert third is not None
    features = _features(third, test.pixels)
    of_kept = _features(third, fmrgen.to_batch(np.stack([row["image"] for row in rows]), "cpu"))
    of_originals = _features(third, seen.pixels[[row["id"] for row in rows]])
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
def _features(third: str, pixels: Tensor) -> np.ndarray:
    """Returns unit vectors [N, D] that a network which is neither compared nor in the panel sees in images."""
    classifier: Any = fmrgen.load_classifier(third)
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
