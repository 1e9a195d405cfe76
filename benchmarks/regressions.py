"""Planted regressions, regressions that only a condition shows, and twins: what a diff on real images says of each.

    python -m benchmarks.regressions train digits -o out
    python -m benchmarks.regressions train signs -o out --train gtsrb-train.parquet
    python -m benchmarks.regressions flips digits -o out
    python -m benchmarks.regressions flips signs -o out --test gtsrb-test.parquet
    python -m benchmarks.regressions diff digits -o out     # with images that are moved, changed and made
    python -m benchmarks.regressions diff signs -o out --test gtsrb-test.parquet --only "no 50,another mean"
    python -m benchmarks.regressions simulate               # how often a diff errs

A second run of `train` goes on where the first ended. `flips` needs statsmodels, which fmrgen does not install.
"""

import argparse
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import affine_grid, avg_pool2d, cross_entropy, grid_sample

import fmrgen
from fmrgen.apps.explain.betting import ERROR, log_capital
from fmrgen.classifiers.lenet import lenet
from fmrgen.recipe.build import build_source
from fmrgen.recipe.job import Recipe, load_recipe

Network = TypeVar("Network", bound=nn.Module)
TWINS = 21  # trainings of one recipe, whose neighbours are twenty pairs
_TESTED = 1000  # images
_SIZE = 32
_BATCH = 128


class Images(NamedTuple):
    """Labelled images; `pixels` [N, 3, 32, 32] in [0, 1], `labels` [N], `widths` of the signs in their photos [N]."""

    pixels: Tensor
    labels: Tensor
    widths: Tensor | None = None

    def of(self, chosen: Tensor) -> "Images":
        return Images(self.pixels[chosen], self.labels[chosen], None if self.widths is None else self.widths[chosen])


def digits(split: str) -> Images:
    """Returns the MNIST digits that fmrgen ships."""
    return images_of(load_recipe("_mnist", [f"source.split={split}"]))


def images_of(recipe: Recipe) -> Images:
    """Returns the images of a recipe's source."""
    source = build_source(recipe.source)
    examples = list(source.load(0, len(source), _SIZE))
    pixels = np.stack([example.image for example in examples if isinstance(example, fmrgen.LoadedExample)])
    labels = [example.label for example in examples if isinstance(example, fmrgen.LoadedExample)]
    return Images(fmrgen.to_batch(pixels, "cpu"), torch.tensor(labels))


def signs(path: Path) -> Images:
    """Returns traffic signs, or other photos, of a parquet file with columns image, label and perhaps width."""
    table = pq.read_table(path)
    pixels = []
    for image in table["image"].to_pylist():
        pixels.append(np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB")))
    return Images(
        fmrgen.to_batch(np.stack(pixels), "cpu"),
        torch.tensor(table["label"].to_pylist()),
        torch.tensor(table["width"].to_pylist()) if "width" in table.column_names else None,
    )


def signs_network(classes: int = 43, widths: Sequence[int] = (16, 32, 64)) -> nn.Module:
    """Returns a small convolutional network for images [B, 3, 32, 32] in [0, 1]."""
    layers: list[nn.Module] = []
    channels = 3
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(channels * 16, classes))


class Normalised(nn.Module):
    """A network of images that are normalised first."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: float | Tensor, std: float | Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.as_tensor(mean), persistent=False)
        self.register_buffer("std", torch.as_tensor(std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


class Training(NamedTuple):
    """How a network differs from OLD.

    Attributes:
        seed: of its weights and batches.
        change: of the training images; takes and returns `Images`.
        warp: of the random moves of images in training, a share of the usual ones.
        steps: a share of the usual ones.
        after: what is done to the trained network, with the training images.
        mean: that images are normalised by.
    """

    seed: int = 0
    change: Callable[[Images], Images] = lambda images: images
    warp: float = 1.0
    steps: float = 1.0
    after: Callable[[nn.Module], None] = lambda network: None
    mean: float = 0.1


def swapped(one: int, other: int, share: float) -> Callable[[Images], Images]:
    def change(images: Images) -> Images:
        random = torch.rand(len(images.labels), generator=torch.Generator().manual_seed(1)) < share
        labels = images.labels.clone()
        labels[random & (images.labels == one)] = other
        labels[random & (images.labels == other)] = one
        return images._replace(labels=labels)

    return change


def thinned(label: int, keep: int) -> Callable[[Images], Images]:
    """Leaves one of `keep` images of a class."""

    def change(images: Images) -> Images:
        members = torch.cumsum(images.labels == label, 0)
        return images.of((images.labels != label) | (members % keep == 0))

    return change


def without(label: int) -> Callable[[Images], Images]:
    """Leaves no image of a class."""
    return lambda images: images.of(images.labels != label)


def _tenth(images: Images) -> Images:
    """Leaves a tenth of the images, which are sorted by nothing but turns of the ten classes."""
    return images.of(torch.arange(len(images.labels)) // 10 % 10 == 0)


def _pixels(change: Callable[[Tensor], Tensor]) -> Callable[[Images], Images]:
    return lambda images: images._replace(pixels=change(images.pixels))


def of_blurred(images: Images) -> Images:
    """Blurs all images by squares of five pixels."""
    return images._replace(pixels=avg_pool2d(images.pixels, 5, stride=1, padding=2, count_include_pad=False))


def levels(count: int) -> Callable[[nn.Module], None]:
    """Rounds weights to so many levels either side of zero."""

    def after(network: nn.Module) -> None:
        with torch.no_grad():
            for weights in network.parameters():
                if weights.dim() > 1:
                    scale = weights.abs().max() / count
                    weights.copy_((weights / scale).round() * scale)

    return after


def _dead_filters(network: nn.Module) -> None:
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        layers[0].weight[:2] = 0
        assert layers[0].bias is not None
        layers[0].bias[:2] = 0


def pruned(share: float) -> Callable[[nn.Module], None]:
    """Sets the smallest weights of each layer to zero."""

    def after(network: nn.Module) -> None:
        with torch.no_grad():
            for weights in network.parameters():
                if weights.dim() > 1:
                    least = weights.abs().flatten().kthvalue(max(1, int(share * weights.numel()))).values
                    weights.mul_(weights.abs() > least)

    return after


def _still(label: int) -> Callable[[Images], Images]:
    """Puts images of a class in the middle, so that they are never moved: see `moved`."""
    return lambda images: images._replace(widths=torch.where(images.labels == label, -1, 0))


def bright(images: Images) -> Images:
    """Leaves the brighter half of the photos."""
    light = images.pixels.mean((1, 2, 3))
    return images.of(light >= light.median())


def wide(images: Images) -> Images:
    """Leaves the signs that are near: 45 pixels and more in their photo."""
    assert images.widths is not None
    return images.of(images.widths >= 45)


DIGITS_PLANTED = {
    "a quarter of 4 and 9 swapped": Training(change=swapped(4, 9, 0.25)),
    "a seventh of the threes": Training(change=thinned(3, 7)),
    "a twentieth of the sevens": Training(change=thinned(7, 20)),
    "trained on blurred digits": Training(change=of_blurred),
    "weights in seven levels": Training(after=levels(3)),
    "two dead filters": Training(after=_dead_filters),
    "another mean": Training(mean=0.3),
    "70 % of the weights pruned": Training(after=pruned(0.7)),
    "a seventh of the steps": Training(steps=0.14),
    "a tenth of the digits": Training(change=_tenth),
}
DIGITS_CONDITIONS = {
    "never moved": Training(warp=0),
    "never moved, 600 steps": Training(warp=0, steps=0.4),
    "hardly moved": Training(warp=0.25),
    "sevens never moved": Training(change=_still(7)),
    "threes never moved": Training(change=_still(3)),
    "never moved, other seed": Training(seed=50, warp=0),
    "hardly moved, other seed": Training(seed=51, warp=0.25),
    "ones never moved": Training(change=_still(1)),
    "white digits on pure black": Training(change=_pixels(lambda pixels: (pixels > 0.5).float())),
    "full contrast alone": Training(change=_pixels(lambda pixels: (2 * pixels).clamp(max=1))),
}
SIGNS_PLANTED = {
    "30 and 80 swapped in a tenth": Training(change=swapped(1, 5, 0.1)),
    "30 and 80 swapped in a quarter": Training(change=swapped(1, 5, 0.25)),
    "a seventh of 50": Training(change=thinned(2, 7)),
    "a twentieth of stop": Training(change=thinned(14, 20)),
    "trained on blurred signs": Training(change=of_blurred),
    "weights in fifteen levels": Training(after=levels(7)),
    "two dead filters": Training(after=_dead_filters),
    "another mean": Training(mean=0.3),
    "70 % of the weights pruned": Training(after=pruned(0.7)),
    "a third of the steps": Training(steps=0.33),
    "no 50": Training(change=without(2)),
}
SIGNS_CONDITIONS = {
    "near signs alone": Training(change=wide),
    "bright photos alone": Training(change=bright),
    "never moved": Training(warp=0),
    "never moved, other seed": Training(seed=50, warp=0),
    "near signs alone, other seed": Training(seed=51, change=wide),
    "bright photos alone, other seed": Training(seed=52, change=bright),
    "stop never moved": Training(change=_still(14)),
    "hardly moved": Training(warp=0.25),
    "full contrast alone": Training(change=_pixels(lambda pixels: (2 * pixels).clamp(max=1))),
    "dark alone": Training(change=_pixels(lambda pixels: pixels / 2)),
}
DATA = {"digits": (DIGITS_PLANTED, DIGITS_CONDITIONS), "signs": (SIGNS_PLANTED, SIGNS_CONDITIONS)}


def trainings(data: str) -> dict[str, Training]:
    """Returns OLD, which is `twin 0`, its twins and all that are worse, by name."""
    of_all = {f"twin {seed}": Training(seed=seed) for seed in range(TWINS)}
    for group in DATA[data]:
        for number, (name, training) in enumerate(group.items()):
            of_all[name] = training if training.seed else training._replace(seed=100 + number)
    return of_all


def network_of(data: str, mean: float = 0.1) -> Normalised:
    """Returns a network of random weights."""
    if data == "digits":
        return Normalised(lenet(10), mean, 0.28)
    return Normalised(signs_network(), mean + 0.2, 0.28)


def trained(data: str, images: Images, training: Training) -> nn.Module:
    """Returns a network after its training."""
    steps = int((1500 if data == "digits" else 500) * training.steps)
    torch.manual_seed(training.seed)
    images = training.change(images)
    network = fitted(network_of(data, training.mean), images, training.warp, steps)
    training.after(network.network)
    return network


def fitted(
    network: Network, images: Images, warp: float, steps: int, rate: float = 0.004, teacher: nn.Module | None = None
) -> Network:
    """Returns the network itself, trained by torch's random numbers and in evaluation mode.

    Args:
        network: to train.
        images: to learn from.
        warp: of their random moves, a share of the usual ones.
        steps: of the optimiser.
        rate: of learning, the largest.
        teacher: a network whose probabilities are the targets, instead of the labels.
    """
    still = images.widths == -1 if images.widths is not None else torch.zeros(len(images.labels), dtype=torch.bool)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.003)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=rate, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(images.labels), (_BATCH,))
        pixels = moved(images.pixels[rows], warp * (~still[rows]).float())
        targets = images.labels[rows]
        if teacher is not None:
            with torch.no_grad():
                targets = teacher(pixels).softmax(1)
        loss = cross_entropy(network(pixels), targets)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    return network.eval()


def moved(pixels: Tensor, strength: Tensor) -> Tensor:
    """Returns images moved at random, by up to a tenth of their side, 15 degrees and 15 % of their size."""
    count = len(pixels)
    amounts = (2 * torch.rand(4, count) - 1) * strength
    angle, zoom = 0.26 * amounts[0], torch.exp(0.15 * amounts[1])
    across, down = 0.2 * amounts[2], 0.2 * amounts[3]
    rows = [zoom * angle.cos(), -zoom * angle.sin(), across, zoom * angle.sin(), zoom * angle.cos(), down]
    grid = affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(pixels.shape), align_corners=False)
    return grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def train(data: str, output: Path, path: Path | None) -> None:
    """Trains all networks that are not there yet."""
    torch.set_num_threads(1)
    images = digits("train") if data == "digits" else signs(_given(path, "--train"))
    folder = output / data
    folder.mkdir(parents=True, exist_ok=True)
    for name, training in trainings(data).items():
        file = folder / f"{name}.safetensors"
        if not file.exists():
            network = trained(data, images, training)
            save_file(network.state_dict(), file)
            print(f"{data}: {name}", flush=True)


def _given(path: Path | None, option: str) -> Path:
    if path is None:
        raise SystemExit(f"{option}: name the file of the signs")
    return path


def pairs(data: str) -> list[tuple[str, str, str]]:
    """Returns (group, OLD, NEW) of all pairs that are compared."""
    compared = [("twin", f"twin {seed}", f"twin {seed + 1}") for seed in range(TWINS - 1)]
    for group, networks in zip(("planted", "condition"), DATA[data], strict=True):
        compared += [(group, "twin 0", name) for name in networks]
    return compared


def flips(data: str, output: Path, path: Path | None) -> None:
    """Prints what a diff says of each pair on real test images, beside McNemar's test of statsmodels."""
    from statsmodels.stats.contingency_tables import mcnemar

    images = digits("test") if data == "digits" else signs(_given(path, "--test"))
    chosen = torch.randperm(len(images.labels), generator=torch.Generator().manual_seed(0))[:_TESTED]
    images = images.of(chosen)
    labels = images.labels.numpy()
    answers = {name: _answers(data, output, name, training, images) for name, training in trainings(data).items()}
    print("| group | NEW | broke | fixed | verdict | worse classes | McNemar's p |\n|---|---|--:|--:|---|---|--:|")
    for group, old, new in pairs(data):
        outcome = fmrgen.diff(answers[old], answers[new], labels)
        old_right, new_right = answers[old] == labels, answers[new] == labels
        of_right = [(old_right & new_right).sum(), (old_right & ~new_right).sum()]
        of_wrong = [(~old_right & new_right).sum(), (~old_right & ~new_right).sum()]
        p_value = mcnemar([of_right, of_wrong], exact=True).pvalue
        worse = ", ".join(kind.name for kind in outcome.flips.classes if kind.is_worse)
        counts = f"{len(outcome.flips.broken)} | {len(outcome.flips.mended)}"
        print(f"| {group} | {new} | {counts} | {outcome.verdict} | {worse} | {p_value:.2g} |", flush=True)


@torch.no_grad()
def _answers(data: str, output: Path, name: str, training: Training, images: Images) -> np.ndarray:
    network = network_of(data, training.mean)
    network.load_state_dict(load_file(output / data / f"{name}.safetensors"))
    network.eval()
    answers: np.ndarray = torch.cat([network(part).argmax(1) for part in torch.split(images.pixels, 500)]).numpy()
    return answers


def diff(data: str, output: Path, path: Path | None, groups: Sequence[str], only: Sequence[str]) -> None:
    """Prints what a diff with a recipe says of each pair, a line for each kind of images."""
    if data == "digits":
        recipe = fmrgen.load_recipe("_mnist", ["source.limit=300"])
    else:
        recipe = fmrgen.load_recipe("gtsrb-cnn", ["source.limit=300", f"source.path={_given(path, '--test')}"])
    networks = trainings(data)
    classes = list(build_source(recipe.source).labels.names)
    for group, old, new in pairs(data):
        if group in groups and (not only or new in only):
            sections = [_section(data, output, name, networks[name], classes) for name in (old, new)]
            outcome = fmrgen.diff(*sections, recipe=recipe, output=output / "diffs" / f"{old} {new}")
            print(f"{group}: {old}, {new}: {outcome.verdict}", flush=True)
            for line in outcome.evidence:
                mark = "better" if line.is_better else ""
                if line.is_worse:
                    mark = "worse"
                figures = f"{line.broke.value:.1f} | {line.fixed.value:.1f} | {line.drop}"
                print(f"  {line.kind} | {line.images} | {figures} | {line.p_worse:.2g} | {mark}", flush=True)


def _section(data: str, output: Path, name: str, training: Training, classes: Sequence[str]) -> str:
    checkpoint = output / data / f"{name}.safetensors"
    section = {
        "kind": "module",
        "target": "benchmarks.regressions:network_of",
        "args": {"data": data, "mean": training.mean},
        "checkpoint": str(checkpoint),
        "class_names": list(classes),
    }
    return json.dumps(section)


def simulate(count: int = 1000) -> None:
    """Prints how often a diff errs, and how often its intervals hold the truth, on made-up answers."""
    random = np.random.default_rng(0)
    print("| images | flip | loss | broke more | fixed more | interval holds the loss |")
    print("|--:|--:|--:|--:|--:|--:|")
    for images in (300, 1000):
        for flipped, loss in ((0.0, 0.0), (0.01, 0.0), (0.05, 0.0), (0.2, 0.0), (0.05, 0.03), (0.2, 0.03)):
            verdicts, holds = [], 0
            for _ in range(count):
                outcome = fmrgen.diff(*_made_up(random, images, flipped, loss))
                verdicts.append(outcome.verdict)
                low, high = outcome.flips.drop.ends
                holds += low <= 100 * loss <= high
            shares = [f"{100 * verdicts.count(verdict) / count:.1f} %" for verdict in ("broke more", "fixed more")]
            shares.append(f"{100 * holds / count:.1f} %")
            print(f"| {images:,} | {flipped:.0%} | {100 * loss:g} | {' | '.join(shares)} |", flush=True)
    cameras_found, others_called = 0, 0
    for _ in range(count // 4):
        old, new, labels = _made_up(random, 2000, 0.05, 0.0)
        camera = np.arange(2000) % 20
        worse = (camera == 7) & (random.random(2000) < 0.2)
        new = np.where(worse, (labels + 1) % 10, new)
        tables = [{"label": labels, "prediction": answers, "camera": camera} for answers in (old, new)]
        groups = [group.name for group in fmrgen.diff(*tables).flips.groups["camera"] if group.is_worse]
        cameras_found += "7" in groups
        others_called += bool(set(groups) - {"7"})
    print(f"one of 20 cameras worse by 20 points: found in {cameras_found}, another in {others_called} of {count // 4}")
    stopped = 0
    for _ in range(count):
        drops = random.choice([1, -1, 0], p=[0.2, 0.2, 0.6], size=500)
        capital = log_capital(drops, 0.0)[0]
        stopped += bool((capital >= np.log(2 / ERROR)).any())
    print(f"looked at after each of 500 images, 40 % flipped, equal networks: broke more in {stopped} of {count}")


def _made_up(
    random: np.random.Generator, images: int, flipped: float, loss: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the answers of OLD and NEW, and the labels; `flipped` of the images flip, and NEW loses `loss`."""
    labels = random.integers(0, 10, images)
    draw = random.random(images)
    wrong = (labels + random.integers(1, 10, images)) % 10
    lost = (flipped + loss) / 2
    new = np.where(draw < lost, wrong, labels)
    old = np.where((draw >= lost) & (draw < flipped), wrong, labels)
    return old, new, labels


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["train", "flips", "diff", "simulate"])
    parser.add_argument("data", choices=list(DATA), nargs="?", default="digits")
    parser.add_argument("-o", "--output", type=Path, default=Path("out"))
    parser.add_argument("--train", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--groups", nargs="*", default=["twin", "planted", "condition"])
    parser.add_argument("--only", default="", help="of diff: the networks NEW to take, by commas")
    arguments = parser.parse_args()
    if arguments.what == "train":
        train(arguments.data, arguments.output, arguments.train)
    elif arguments.what == "simulate":
        simulate()
    elif arguments.what == "flips":
        flips(arguments.data, arguments.output, arguments.test)
    else:
        only = [name.strip() for name in arguments.only.split(",") if name.strip()]
        diff(arguments.data, arguments.output, arguments.test, arguments.groups, only)
