"""What the networks of benchmarks/reality.py see, and how they are spoilt: signs, digits, photos of CIFAR-10."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from benchmarks import regressions
from benchmarks.regressions import Images
from benchmarks.signs import first_of_tracks
from fmrgen.classifiers.lenet import lenet
from fmrgen.classifiers.networks.cifar import vgg7
from fmrgen.files import write_atomically
from fmrgen.recipe.job import load_recipe

SEEN = 500  # photos
_OF_EACH_CLASS = 6  # of the 500, at least
_TURNS_OF_FRAMES = (0, 3, 2, 4, 1)  # in which the five frames of a track are taken
_SIGNS = 43
_SIDE_OF_RESNET = 64
_DARK_SHARE = 0.5
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Files(NamedTuple):
    """What the study is made from, and where to.

    Attributes:
        output: a folder.
        train: gtsrb-train.parquet, for signs.
        test: gtsrb-test.parquet, usps-test.parquet or a table of CIFAR-10's photos.
        weights: cifar10-resnet20.th, for CIFAR-10.
        recipe: by which images are made, if it is not that of the domain.
    """

    output: Path
    train: Path | None
    test: Path
    weights: Path | None = None
    recipe: str | None = None


class Enlarged(nn.Module):
    """A network of images that are enlarged first."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(nn.functional.interpolate(images, size=_SIDE_OF_RESNET, mode="bilinear"))
        return logits


class _Block(nn.Module):
    """Two convolutions of ResNet-20, and a shortcut without weights."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, (outputs - inputs) // 2

    def forward(self, images: Tensor) -> Tensor:
        inner = self.bn1(self.conv1(images)).relu()
        shortcut = pad(images[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added, self.added))
        sum_of_both: Tensor = self.bn2(self.conv2(inner)) + shortcut
        return sum_of_both.relu()


class ResNet20(nn.Module):
    """ResNet-20 for CIFAR-10 (He et al. 2016, §4.2), with the names of akamaster/pytorch_resnet_cifar10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for number, outputs in enumerate((16, 32, 64), 1):
            first = _Block(inputs, outputs, outputs // inputs)
            others = [_Block(outputs, outputs, 1) for _ in range(2)]
            setattr(self, f"layer{number}", nn.Sequential(first, *others))
            inputs = outputs
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.bn1(self.conv1(images)).relu()
        for name in ("layer1", "layer2", "layer3"):
            features = getattr(self, name)(features)
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits


class Family(NamedTuple):
    """A kind of network.

    Attributes:
        network: returns one of random weights.
        mean, std: by which its images are normalised, for each channel.
    """

    network: Callable[[], nn.Module]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def _plain() -> nn.Module:
    return regressions.signs_network(_SIGNS)


def _vgg() -> nn.Module:
    return vgg7(_SIGNS)


def _resnet() -> nn.Module:
    return Enlarged(timm.create_model("test_resnet", num_classes=_SIGNS, stem_type="deep", replace_stem_pool=True))


def _lenet() -> nn.Module:
    return lenet(10)


_OF_SIGNS = (0.3,) * 3, (0.28,) * 3
_OF_DIGITS = (0.1,) * 3, (0.28,) * 3
FAMILIES = {
    "plain": Family(_plain, *_OF_SIGNS),
    "VGG": Family(_vgg, *_OF_SIGNS),
    "ResNet": Family(_resnet, *_OF_SIGNS),
    "LeNet": Family(_lenet, *_OF_DIGITS),
    "ResNet-20": Family(ResNet20, _IMAGENET_MEAN, _IMAGENET_STD),
}


class New(NamedTuple):
    """How a network differs from OLD.

    Attributes:
        change: of the training images.
        warp: of their random moves, a share of the usual ones.
        steps: of the training, a share of the usual ones.
        after: what is done to the weights at the end.
        is_tuned: whether it begins with OLD's weights; with `steps` of 0 only `after` changes these.
        is_distilled: whether OLD's probabilities are the targets.
        darker: by how much the mean that is taken from images is too large.
    """

    change: Callable[[Images], Images] = lambda images: images
    warp: float = 1.0
    steps: float = 1.0
    after: Callable[[nn.Module], None] = lambda network: None
    is_tuned: bool = False
    is_distilled: bool = False
    darker: float = 0.0


def _wrong_labels(share: float) -> Callable[[Images], Images]:
    def change(images: Images) -> Images:
        random = torch.Generator().manual_seed(1)
        is_wrong = torch.rand(len(images.labels), generator=random) < share
        others = torch.randint(1, _SIGNS, (len(images.labels),), generator=random)
        return images._replace(labels=torch.where(is_wrong, (images.labels + others) % _SIGNS, images.labels))

    return change


def _dark(images: Images) -> Images:
    """Leaves the darker half of the photos."""
    light = images.pixels.mean((1, 2, 3))
    return images.of(light <= light.quantile(_DARK_SHARE))


def _of_classes(most: int) -> Callable[[Images], Images]:
    return lambda images: images.of(images.labels < most)


def _contrasting(images: Images) -> Images:
    return images._replace(pixels=(2 * images.pixels).clamp(max=1))


_KEPT = New(is_tuned=True, steps=0)
_FAULTS_OF_SIGNS = {
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
    "used with another mean": _KEPT._replace(darker=0.1),
}
_FAULTS_OF_DIGITS = {
    "a seventh of the threes": New(regressions.thinned(3, 7)),
    "a twentieth of the sevens": New(regressions.thinned(7, 20)),
    "4 and 9 swapped in a third": New(regressions.swapped(4, 9, 0.33)),
    "trained on blurred digits": New(regressions.of_blurred),
    "full contrast alone": New(_contrasting),
    "never moved": New(warp=0),
    "70 % pruned": _KEPT._replace(after=regressions.pruned(0.7)),
    "3 bits": _KEPT._replace(after=regressions.levels(3)),
    "used with another mean": _KEPT._replace(darker=0.1),
    "a seventh of the steps": New(steps=0.14),
}


class Photos(NamedTuple):
    """The images of a domain: those that teach, the 500 that are seen, and those of the test."""

    taught: Images
    seen: Images
    test: Images


def _signs(files: Files) -> Photos:
    """Returns photos of four fifths of the training tracks, 500 of the others, and the test signs."""
    assert files.train is not None
    photos = regressions.signs(files.train)
    is_held = torch.from_numpy(first_of_tracks(pq.read_table(files.train, columns=["label", "track"])))
    return Photos(photos.of(~is_held), photos.of(_seen_places(files.train)), regressions.signs(files.test))


def _seen_signs(files: Files) -> list[str]:
    assert files.train is not None
    file = files.output / "seen.parquet"
    if not file.exists():
        _write(pq.read_table(files.train).take(_seen_places(files.train).tolist()), file)
    return [f"source.path={file}", f"source.limit={SEEN}"]


def _write(table: pa.Table, file: Path) -> None:
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    write_atomically(file, buffer.getvalue().to_pybytes())


def _digits(files: Files) -> Photos:
    """Returns MNIST's training digits, 500 of its test digits, and the others with those of USPS."""
    test = regressions.digits("test")
    usps = regressions.images_of(load_recipe("_mnist", [f"source={{kind: digits, of: usps, path: {files.test}}}"]))
    is_seen = torch.arange(len(test.labels)) < SEEN
    others = test.of(~is_seen)
    tested = Images(torch.cat([others.pixels, usps.pixels]), torch.cat([others.labels, usps.labels]))
    return Photos(regressions.digits("train"), test.of(is_seen), tested)


def _seen_digits(files: Files) -> list[str]:
    return [f"source.limit={SEEN}"]


def _cifar(files: Files) -> Photos:
    """Returns two halves of a table of 1,000 photos, and none that teach: the network is given."""
    photos = regressions.signs(files.test)
    is_seen = torch.arange(len(photos.labels)) < SEEN
    return Photos(photos.of(torch.zeros_like(is_seen)), photos.of(is_seen), photos.of(~is_seen))


def _seen_photos(files: Files) -> list[str]:
    folder = files.output / "seen"
    if not (folder / "train.parquet").exists():
        folder.mkdir(exist_ok=True)
        _write(pq.read_table(files.test)[:SEEN], folder / "train.parquet")
    return [f"source={{kind: datasets, path: {folder}, split: train}}"]


def _seen_places(table: Path) -> Tensor:
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


class Domain(NamedTuple):
    """What the networks of a part are about.

    Attributes:
        classes: number of classes.
        families: of the networks, by name.
        faults: by name.
        twins: other trainings of OLD, of each family.
        recipe: of the diffs.
        seen: overrides of the recipe, for the photos that are seen.
        third: a network that is neither compared nor in the panel, in whose features distances are measured, if any.
        photos: returns the images.
    """

    classes: int
    families: Sequence[str]
    faults: Mapping[str, New]
    twins: int
    recipe: str
    seen: Callable[[Files], list[str]]
    third: str | None
    photos: Callable[[Files], Photos]


_DOMAIN_OF_SIGNS = Domain(
    classes=_SIGNS,
    families=("plain", "VGG", "ResNet"),
    faults=_FAULTS_OF_SIGNS,
    twins=2,
    recipe="gtsrb-cnn",
    seen=_seen_signs,
    third="asset:gtsrb/cnn",
    photos=_signs,
)
DOMAINS = {
    "choose": _DOMAIN_OF_SIGNS,
    "confirm": _DOMAIN_OF_SIGNS,
    "digits": Domain(
        classes=10,
        families=["LeNet"],
        faults=_FAULTS_OF_DIGITS,
        twins=2,
        recipe="mnist-lenet",
        seen=_seen_digits,
        third="asset:mnist/lenet",
        photos=_digits,
    ),
    "cifar": Domain(
        classes=10,
        families=["ResNet-20"],
        faults={"4 bits": _KEPT._replace(after=regressions.levels(7))},
        twins=0,
        recipe="",  # which is that of `fmrgen init`, by --recipe
        seen=_seen_photos,
        third=None,
        photos=_cifar,
    ),
}
