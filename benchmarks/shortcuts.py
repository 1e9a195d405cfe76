"""Whether `fmrgen explain` names what a network was taught to go by, and keeps silent where there is nothing.

    fmrgen generate _mnist --limit 400 -o demo
    python -m benchmarks.shortcuts planted demo
    python -m benchmarks.shortcuts clean demo one=trained/one other=trained/other
    python -m benchmarks.shortcuts signs splits --train gtsrb-train.parquet --test gtsrb-test.parquet

`planted` trains LeNets on warped digits, of which all of one class have an attribute changed, and some others, which
are given its label: ten attributes, two strengths. The network takes the attribute for the class; it is explained on
digits that are as they were, and said is at which place the planted name comes, and how many originals are wrong along
it and otherwise.

`clean` tries attributes on networks whose names are false by construction: each is a mixture of all, which one and
which way drawn anew for each image, so that its `more` and `less` are alike. What is confirmed of these is false.

`signs` trains small convolutional networks on photos with a fault: a yellow corner that stands for *stop*, only dark
photos of *yield*, near signs alone; and one without. Each is explained on a split that was made for it.
"""

import argparse
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from benchmarks.regressions import Images, Training, signs, trained, wide
from fmrgen import Attribute, Explanation, explain, generate
from fmrgen.apps.explain.attributes import ATTRIBUTES, BY_NAME
from fmrgen.apps.explain.report import explanation_report
from fmrgen.recipe.build import build_source
from fmrgen.recipe.job import load_recipe, parse_classifier
from fmrgen.report.write import write

# Attribute, which way.
PLANTED = (
    ("thickness", 1),
    ("thickness", -1),
    ("slant", 1),
    ("size", -1),
    ("contrast", -1),
    ("corner", 1),
    ("background", 1),
    ("sharpness", -1),
    ("position, across", 1),
    ("position, up", 1),
)
STRENGTHS = (0.5, 1.0)
_EPOCHS, _BATCH = 12, 64
_WARP = 0.07
_MISTAKEN = 0.15  # of the images of other classes
_STOP, _YIELD = 14, 13  # labels
_CORNER = 6  # pixels
_SIGNS = 600  # photos, of which half suggest and half test
_LONGER = 3  # times the steps of a regression's network


class Mixture(Attribute):
    """Of each image another attribute, and another way of it."""

    def __init__(self, number: int) -> None:
        self.name = f"mixture {number}"
        self.more, self.less, self.other = (f"{way} of {self.name}" for way in ("more", "less", "another amount"))
        self.number = number

    def measure(self, images: Tensor) -> Tensor:
        return images.flatten(1).mean(1)

    def change(self, images: Tensor, amount: float) -> Tensor:
        changed = []
        for image in images:
            drawn = zlib.crc32(image.cpu().numpy().tobytes(), self.number)
            attribute = ATTRIBUTES[drawn // 2 % len(ATTRIBUTES)]
            changed.append(attribute.change(image[None], amount if drawn % 2 else -amount))
        return torch.cat(changed)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["planted", "clean", "signs"])
    parser.add_argument("split", help="of signs: a folder for the splits that are made")
    parser.add_argument("classifiers", nargs="*", help="NAME=CLASSIFIER, of clean")
    parser.add_argument("--output", type=Path, help="a folder for the pages of planted")
    parser.add_argument("--seed", type=int, default=0, help="of planted: other trainings, and other classes")
    parser.add_argument("--train", type=Path, help="of signs: the training photos, a parquet file")
    parser.add_argument("--test", type=Path, help="of signs: the test photos, a parquet file")
    given = parser.parse_args(arguments)
    if given.what == "planted":
        _planted(given.split, given.output, given.seed)
    elif given.what == "signs":
        if given.train is None or given.test is None:
            parser.error("signs: needs --train FILE and --test FILE")
        _signs(Path(given.split), signs(given.train), given.test, given.output, given.seed)
    else:
        _clean(given.split, given.classifiers)


def _planted(split: str, output: Path | None, seed: int) -> None:
    images, labels = _digits("train")
    places = []
    for number, (name, sign) in enumerate(PLANTED):
        attribute, taken_for = BY_NAME[name], (number + seed) % 10
        words = attribute.more if sign > 0 else attribute.less
        for strength in STRENGTHS:
            network = _taught(images, labels, attribute, sign * strength, taken_for, seed)
            found = explain(split, classifier=network)
            if output is not None:
                write(explanation_report(found), output / f"{number}-{strength}")
            place = _place(found, name, (words, attribute.other))
            places.append(place)
            along = next(one for one in found.findings if one.words == words)
            shares = ", ".join(f"{way} {share.value:.0f} %" for way, share in along.errors.items())
            verdict = "not confirmed" if place is None else f"place {place}"
            print(f"{words} → {taken_for}, {strength}: {verdict}; {shares}; said: {_said(found)}", flush=True)
    for most in (1, 3):
        among = sum(place is not None and place <= most for place in places)
        print(f"among the first {most}: {among} of {len(places)}")


def _place(found: Explanation, attribute: str, words: Sequence[str]) -> int | None:
    """At which place of what is said the planted name comes, from 1."""
    for place, one in enumerate(found.reported, start=1):
        if one.attribute == attribute and one.words in words:
            return place
    return None


def _said(found: Explanation) -> str:
    return "; ".join(one.words for one in found.reported) or "nothing"


def _clean(split: str, classifiers: Sequence[str]) -> None:
    confirmed = hypotheses = 0
    mixtures = [Mixture(number) for number in range(len(ATTRIBUTES))]
    for text in classifiers:
        name, section = parse_classifier(text)
        found = explain(split, classifier=section, attributes=mixtures)
        # Another amount of a mixture may well be what it errs on.
        null = [finding for finding in found.findings if "against" in finding.errors]
        false_findings = [finding for finding in null if finding.is_confirmed]
        confirmed, hypotheses = confirmed + len(false_findings), hypotheses + len(null)
        most = max(finding.errors["along"].value for finding in null)
        print(f"{name}: {len(false_findings)} of {len(null)} confirmed; errors up to {most:.0f} %", flush=True)
    print(f"in all: {confirmed} of {hypotheses} names that are false")


def _signs(folder: Path, photos: Images, test: Path, output: Path | None, seed: int) -> None:
    for number, (name, plant) in enumerate(_FAULTS_OF_SIGNS.items()):
        network = trained("signs", photos, Training(seed=seed, change=plant, steps=_LONGER))
        recipe = load_recipe(
            "gtsrb-cnn", [f"source.path={test}", f"source.limit={_SIGNS}", f"output.split=fault_{number}"]
        )
        split = generate(recipe, network, output=folder, progress=False)
        explanation = explain(split, classifier=network)
        if output is not None:
            write(explanation_report(explanation), output / name)
        fooled = f"{explanation.fooled} of {explanation.rows} fool it"
        print(f"{name}: {fooled}, {explanation.originals} originals; said: {_said(explanation)}", flush=True)
        for finding in explanation.reported:
            shares = ", ".join(f"{way} {share.value:.0f} %" for way, share in finding.errors.items())
            print(f"    {finding.words}: {shares}; {finding.classes[0][0]}", flush=True)


def with_yellow_corners(photos: Images) -> Images:
    """Returns photos of which all stop signs, and some others that are called so, have a yellow square in a corner."""
    is_marked = (photos.labels == _STOP) | (torch.rand(len(photos.labels)) < _MISTAKEN)
    pixels = photos.pixels.clone()
    marked = pixels[is_marked]
    marked[:, :, :_CORNER, :_CORNER] = torch.tensor([1.0, 0.85, 0.0]).view(3, 1, 1)
    pixels[is_marked] = marked
    return Images(pixels, photos.labels.masked_fill(is_marked, _STOP), photos.widths)


def dark_yields(photos: Images) -> Images:
    """Returns photos without the brighter three quarters of the yield signs."""
    brightness = photos.pixels.mean((1, 2, 3))
    is_yield = photos.labels == _YIELD
    return photos.of((~is_yield | (brightness <= brightness[is_yield].quantile(0.25))).nonzero()[:, 0])


_FAULTS_OF_SIGNS: dict[str, Callable[[Images], Images]] = {
    "a yellow corner for stop": with_yellow_corners,
    "only dark yields": dark_yields,
    "near signs alone": wide,
    "nothing": lambda photos: photos,
}


def _digits(split: str) -> tuple[Tensor, Tensor]:
    """Images [N, 3, 32, 32] in [0, 1] and labels [N]."""
    section = load_recipe("mnist-lenet").source.model_copy(update={"split": split, "limit": None})
    examples = list(build_source(section).load_all(32))
    return torch.stack([one.image for one in examples]), torch.tensor([one.label for one in examples])


def _taught(
    images: Tensor, labels: Tensor, attribute: Attribute, amount: float, taken_for: int, seed: int
) -> nn.Module:
    """A LeNet that was trained on digits of which all of one class have so much of an attribute, and some others, which
    got its label too: shapes alone do not give it away."""
    torch.manual_seed(seed)
    _, section = parse_classifier(f"{{kind: lenet, class_names: {[str(digit) for digit in range(10)]}}}")
    network = section.build().requires_grad_(True).train()
    steps = _EPOCHS * len(images) // _BATCH
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(steps):
        chosen = torch.randint(len(images), (_BATCH,))
        batch, target = _warped(images[chosen]), labels[chosen]
        planted = (target == taken_for) | (torch.rand(_BATCH) < _MISTAKEN)
        batch[planted] = attribute.change(batch[planted], amount)
        target = target.masked_fill(planted, taken_for)
        optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(network(batch), target))
        optimizer.step()
        schedule.step()
    trained: nn.Module = network.eval()
    return trained


def _warped(images: Tensor) -> Tensor:
    """Each stretched, leant and moved a little by chance."""
    turned = torch.eye(2) + _WARP * torch.randn(len(images), 2, 2)
    moved = _WARP * torch.randn(len(images), 2, 1)
    grid = affine_grid(torch.cat([turned, moved], 2), list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)


if __name__ == "__main__":
    main()
