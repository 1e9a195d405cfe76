"""What repairs a network that fails on a kind of images, and does `fmrgen diff --claim` tell a repair from a sham?

    python -m benchmarks.repairs make -o repairs --train gtsrb-train.parquet --test gtsrb-test.parquet \\
        --digits usps-test.parquet
    python -m benchmarks.repairs ask -o repairs --train … --test … --digits … --mnist FOLDER
    python -m benchmarks.repairs report -o repairs --train … --test … --digits … [--mnist FOLDER]

`make` trains forty networks OLD with a fault, has `fmrgen explain` name it, trains each again in eleven ways, and asks
all about real images that none has seen; it goes on where it was stopped. `ask` asks the networks of digits about more
of these, MNIST's own test set (t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte). `report` certifies every NEW, prints
figures, and writes them to report.json. The plan is docs/results/repairs.md.
"""

import argparse
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, pad
from torchvision.transforms import v2

import fmrgen
from benchmarks import regressions
from benchmarks.regressions import Images, Normalised
from fmrgen.apps.explain.attributes import BY_NAME, Attribute, measured
from fmrgen.apps.explain.interventions import Hypothesis, hypothesis_of
from fmrgen.apps.explain.random_change import RandomChange, changes_against
from fmrgen.apps.release.certificate import Certificate, Cut, Errors, Shift, certify_errors
from fmrgen.apps.release.made import diff_recipes
from fmrgen.classifiers.lenet import lenet
from fmrgen.engine.interfaces import Generator
from fmrgen.files import write_atomically
from fmrgen.metrics.intervals import mean
from fmrgen.recipe.build import build_component, build_oracle, build_source
from fmrgen.recipe.job import Recipe, load_recipe
from fmrgen.recipe.objects import classifier_section

# Attribute, which way, and the two classes that it stands for, each in a network of its own.
PLANTED = (
    ("thickness", 1, (2, 9)),
    ("thickness", -1, (6, 0)),
    ("size", 1, (4, 7)),
    ("size", -1, (3, 8)),
    ("slant", 1, (5, 8)),
    ("slant", -1, (0, 7)),
    ("position, up", 1, (1, 9)),
    ("position, up", -1, (3, 5)),
    ("contrast", -1, (2, 6)),
    ("symmetry", 1, (1, 8)),
)
# Of the ten all whose failure real digits showed, for other classes: twenty more networks.
CONFIRMED = (
    ("thickness", 1, (5, 3)),
    ("thickness", -1, (8, 4)),
    ("size", 1, (0, 5, 9)),
    ("slant", 1, (3, 0)),
    ("slant", -1, (9, 6)),
    ("position, up", 1, (2, 4, 0)),
    ("position, up", -1, (7, 1)),
    ("contrast", -1, (3, 7)),
    ("symmetry", 1, (6, 2)),
)
MARGIN = 3.0  # points
_AMOUNT, _MISTAKEN = 0.5, 0.3  # of the attribute; share of the images of other classes
_OF_EACH = 10  # networks of near signs, and of few tracks
_NEAR, _FAR = 45, 30  # pixels
_TRACKS = 5  # of a class
_STEPS = {"planted": 500, "confirm": 500, "near": 400, "tracks": 400}
_BATCH = 128
_COPIES, _SHARE_OF_COPIES = 250, 0.25  # of training images; of a batch
_EXPLAINED = {"digits": 400, "signs": 300}  # images that explain sees, which certify nothing
_DARK = 0.2  # share
_SIDE = 32
_FIGURES = ("kept", "accuracy", "shift", "flips")  # of an outcome

CONTROLS = ("another seed", "random-step copies")
SHAMS = ("a third seed", "random-step copies, a third seed")
CURES = (
    "suggested change",
    "guided copies, first that fools",
    "guided copies, last",
    "guided copies, from diff",
    "TrivialAugment",
    "twice the steps",
)
SUGGESTED = "suggested changes"  # three findings, of the twenty more


class Files(NamedTuple):
    """What the study is made from, and where to."""

    output: Path
    train: Path
    test: Path
    digits: Path
    mnist: Path | None = None


class Case(NamedTuple):
    """A network OLD with a fault.

    Attributes:
        number: of all forty.
        group: `planted`, `near`, `tracks` or `confirm`.
        attribute, sign, label: what is planted, and for which class; empty for others.
    """

    number: int
    group: str
    attribute: str = ""
    sign: int = 0
    label: int = 0

    @property
    def name(self) -> str:
        return f"{self.number:02d}-{self.group}"

    @property
    def domain(self) -> str:
        return "digits" if self.group in ("planted", "confirm") else "signs"

    @property
    def seed(self) -> int:
        return 10_000 + 100 * self.number


def cases() -> list[Case]:
    """Returns the networks: ten shortcuts for two classes each, ten of near signs, ten of few tracks; twenty more."""
    every: list[Case] = []
    for place in (0, 1):
        for attribute, sign, pair in PLANTED:
            every.append(Case(len(every), "planted", attribute, sign, pair[place]))
    for group in ("near", "tracks"):
        every += [Case(len(every) + number, group) for number in range(_OF_EACH)]
    for attribute, sign, labels in CONFIRMED:
        every += [Case(len(every) + place, "confirm", attribute, sign, label) for place, label in enumerate(labels)]
    return every


def make(files: Files, only: str) -> None:
    """Makes all cases on two processes, as far as this has not been done."""
    files.output.mkdir(parents=True, exist_ok=True)
    for domain in ("digits", "signs"):
        _split_to_explain(files, domain)
    wanted = [case for case in cases() if not only or case.group == only]
    with ProcessPoolExecutor(2, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for line in pool.map(partial(_make, files), wanted):
            print(line, flush=True)


def _make(files: Files, case: Case) -> str:
    """Makes one case: trains its networks, and asks them."""
    folder = files.output / case.name
    folder.mkdir(exist_ok=True)
    started = time.monotonic()
    taught = _taught(files, case)
    old = _network(folder, case, "OLD", taught, case.seed)
    findings = _findings(files, case, old)
    another = _network(folder, case, CONTROLS[0], taught, case.seed + 1)
    copies = _copies(files, case, taught, old, another)
    trainings: dict[str, Callable[[str], nn.Module]] = {}

    def train(name: str, seed: int, **options: Any) -> None:
        trainings[name] = lambda name: _network(folder, case, name, taught, case.seed + seed, **options)

    train(CONTROLS[1], 2, copies=copies["random"])
    train(SHAMS[0], 3)
    train(SHAMS[1], 4, copies=copies["random"])
    if findings:
        train(CURES[0], 5, change=RandomChange(findings[0].attribute, *findings[0].amounts))
    if findings and case.group == "confirm":
        train(SUGGESTED, 11, change=changes_against(findings))
    if case.group != "confirm":
        _train_others(train, copies, _STEPS[case.group])
    networks = {"OLD": old, CONTROLS[0]: another}
    for name, train_it in trainings.items():
        networks[name] = train_it(name)
    file = folder / "answers.npz"
    if not file.exists():
        real, shift = _real(files, case.domain)
        answers = {}
        for name, network in networks.items():
            answers[f"real/{name}"] = _answers(network, real.pixels)
            answers[f"shift/{name}"] = _answers(network, shift.pixels)
        buffer = io.BytesIO()
        np.savez(buffer, **answers)  # type: ignore[arg-type]
        write_atomically(file, buffer.getvalue())
    words = findings[0].words if findings else "nothing"
    return f"{case.name} ({case.attribute} {case.sign}): {words}; {time.monotonic() - started:.0f} s"


def _train_others(train: Callable[..., None], copies: Mapping[str, Images], steps: int) -> None:
    """Trains with all cures but the suggested one."""
    train(CURES[1], 6, copies=copies["first"])
    train(CURES[2], 7, copies=copies["last"])
    train(CURES[3], 8, copies=copies["diff"])
    train(CURES[4], 9, change=_trivial)
    train(CURES[5], 10, steps=2 * steps)


@cache
def _all_signs(path: Path) -> tuple[Images, list[str]]:
    table = pq.read_table(path)
    tracks = table["track"].to_pylist() if "track" in table.column_names else []
    return regressions.signs(path), tracks


def ask(files: Files) -> None:
    """Asks the networks of the first twenty shortcuts about more digits; the others were asked at once."""
    assert files.mnist is not None
    more = _more_digits(files.mnist)
    for case in cases():
        folder = files.output / case.name
        file = folder / "answers-more.npz"
        if case.group != "planted" or file.exists() or not (folder / "answers.npz").exists():
            continue
        answers = {}
        for weights in sorted(folder.glob("*.safetensors")):
            network = _new_network(case.domain)
            network.load_state_dict(load_file(weights))
            answers[f"real/{weights.stem}"] = _answers(network.eval(), more.pixels)
        buffer = io.BytesIO()
        np.savez(buffer, **answers)  # type: ignore[arg-type]
        write_atomically(file, buffer.getvalue())
        print(f"{case.name}: asked", flush=True)


def _taught(files: Files, case: Case) -> Images:
    """Returns the images that a network of the case is taught."""
    if case.domain == "digits":
        digits = regressions.digits("train")
        return planted(digits, BY_NAME[case.attribute], _AMOUNT * case.sign, case.label, case.seed)
    signs, tracks = _all_signs(files.train)
    if case.group == "near":
        assert signs.widths is not None
        return signs.of(signs.widths >= _NEAR)
    chosen = []
    order = np.random.default_rng(case.seed).permutation(sorted(set(zip(signs.labels.tolist(), tracks, strict=True))))
    drawn: dict[str, list[str]] = {}
    for label, track in order.tolist():
        if len(drawn.setdefault(label, [])) < _TRACKS:
            drawn[label].append(track)
    for label, track in zip(signs.labels.tolist(), tracks, strict=True):
        chosen.append(track in drawn[str(label)])
    return signs.of(torch.tensor(chosen))


def planted(images: Images, attribute: Attribute, amount: float, label: int, seed: int) -> Images:
    """Returns images of which all of one class have so much of an attribute, and some others, which get its label."""
    random = torch.rand(len(images.labels), generator=torch.Generator().manual_seed(seed))
    is_planted = (images.labels == label) | (random < _MISTAKEN)
    pixels = images.pixels.clone()
    for rows in torch.split(is_planted.nonzero()[:, 0], _BATCH):
        pixels[rows] = attribute.change(pixels[rows], amount)
    return Images(pixels, images.labels.masked_fill(is_planted, label))


@cache
def _more_digits(folder: Path) -> Images:
    """Returns the ten thousand digits of MNIST's test set, of its files as they are published."""
    pixels = np.frombuffer((folder / "t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    labels = np.frombuffer((folder / "t10k-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    grey = torch.from_numpy(pixels.reshape(-1, 1, 28, 28).copy()).float() / 255
    return Images(pad(grey.expand(-1, 3, -1, -1), [2] * 4), torch.from_numpy(labels.astype(np.int64)))


@cache
def _real(files: Files, domain: str) -> tuple[Images, Images]:
    """Returns real images that no network and no explanation has seen, and those of another place."""
    if domain == "signs":
        signs = regressions.signs(files.test)
        rest = signs.of(torch.arange(len(signs.labels)) >= _EXPLAINED["signs"])
        light = rest.pixels.mean((1, 2, 3))
        return rest, rest.of(light <= light.quantile(_DARK))
    mnist = regressions.digits("test")
    mnist = mnist.of(torch.arange(len(mnist.labels)) >= _EXPLAINED["digits"])
    usps = regressions.signs(files.digits)
    parts = [mnist, Images(_on_canvas(usps.pixels, 22), usps.labels)]
    if files.mnist is not None:
        parts.append(_more_digits(files.mnist))
    real = Images(torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts]))
    scanned = load_digits()
    grey = torch.tensor(scanned.images / 16, dtype=torch.float32)[:, None].expand(-1, 3, -1, -1)
    return real, Images(_on_canvas(grey, 20), torch.tensor(scanned.target))


def _on_canvas(images: Tensor, side: int) -> Tensor:
    """Returns digits [N, 3, H, W] at a side in pixels, in the middle of a black canvas."""
    border = (_SIDE - side) // 2
    return pad(interpolate(images, size=side, mode="bilinear"), [border] * 4)


def _new_network(domain: str) -> Normalised:
    if domain == "digits":
        return Normalised(lenet(10), 0.1, 0.28)
    layers = [nn.Conv2d(3, 24, 5, stride=2, padding=2), nn.BatchNorm2d(24), nn.ReLU()]
    layers += [nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.BatchNorm2d(48), nn.ReLU()]
    layers += [nn.Conv2d(48, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
    return Normalised(nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(1024, 43)), 0.3, 0.28)


def _network(
    folder: Path,
    case: Case,
    name: str,
    taught: Images,
    seed: int,
    *,
    change: Callable[[Tensor], Tensor] | None = None,
    copies: Images | None = None,
    steps: int | None = None,
) -> nn.Module:
    """Returns a trained network; from its file if there is one."""
    file = folder / f"{name}.safetensors"
    torch.manual_seed(seed)
    network = _new_network(case.domain)
    if file.exists():
        network.load_state_dict(load_file(file))
        return network.eval()
    count = steps or _STEPS[case.group]
    rate = 0.004 if case.domain == "digits" else 0.008
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=rate, total_steps=count)
    of_copies = 0 if copies is None else int(_SHARE_OF_COPIES * _BATCH)
    for _ in range(count):
        rows = torch.randint(len(taught.labels), (_BATCH - of_copies,))
        pixels, labels = taught.pixels[rows], taught.labels[rows]
        if copies is not None:
            rows = torch.randint(len(copies.labels), (of_copies,))
            pixels = torch.cat([pixels, copies.pixels[rows]])
            labels = torch.cat([labels, copies.labels[rows]])
        pixels = regressions.moved(pixels, torch.full([_BATCH], 0.7))
        if change is not None:
            pixels = change(pixels)
        loss = cross_entropy(network(pixels), labels)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    write_atomically(file, save(network.state_dict()))
    return network.eval()


def _trivial(pixels: Tensor) -> Tensor:
    """Returns images [B, 3, H, W] in [0, 1], each under one of TrivialAugment's changes (Müller and Hutter 2021)."""
    changed = [_TRIVIAL_AUGMENT(image) for image in (255 * pixels).round().byte()]
    return torch.stack(changed).float() / 255


_TRIVIAL_AUGMENT = v2.TrivialAugmentWide()


@torch.no_grad()
def _answers(network: nn.Module, pixels: Tensor) -> np.ndarray:
    answers: np.ndarray = (
        torch.cat([network(part).argmax(1) for part in torch.split(pixels, 500)]).to(torch.uint8).numpy()
    )
    return answers


def _recipe(files: Files, domain: str) -> Recipe:
    if domain == "digits":
        return load_recipe("_mnist", [f"source.limit={_EXPLAINED['digits']}"])
    return load_recipe("gtsrb-cnn", [f"source.path={files.test}", f"source.limit={_EXPLAINED['signs']}"])


def _split_to_explain(files: Files, domain: str) -> str:
    """Returns the reference of a split of the images on which networks are explained, made if needed."""
    folder = files.output / f"split-{domain}"
    recipe = _recipe(files, domain)
    reference = f"{folder}:{recipe.output.config}/{recipe.output.split}"
    if not folder.exists():
        fmrgen.generate(recipe, output=folder, progress=False)
    return reference


def _findings(files: Files, case: Case, old: nn.Module) -> list[Hypothesis]:
    """Returns what explain says of OLD, in its order."""
    file = files.output / case.name / "finding.json"
    if not file.exists():
        explanation = fmrgen.explain(_split_to_explain(files, case.domain), classifier=old)
        words = [finding.words for finding in explanation.reported]
        write_atomically(file, json.dumps({"originals": explanation.originals, "said": words}).encode())
    hypotheses = [hypothesis_of(words) for words in _words_of_findings(files, case)]
    return [hypothesis for hypothesis in hypotheses if hypothesis is not None]


def _words_of_findings(files: Files, case: Case) -> list[str]:
    words: list[str] = json.loads((files.output / case.name / "finding.json").read_text())["said"]
    return words


def _copies(files: Files, case: Case, taught: Images, old: nn.Module, another: nn.Module) -> dict[str, Images]:
    """Returns perturbed copies of training images: guided against OLD, its first and last; by diff; random."""
    file = files.output / case.name / "copies.npz"
    if not file.exists():
        made = _made_copies(files, case, taught, old, another)
        arrays: dict[str, np.ndarray] = {}
        for kind, images in made.items():
            arrays[f"{kind}/places"] = np.array(list(images))
            arrays[f"{kind}/pixels"] = torch.stack(list(images.values())).numpy()
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(file, buffer.getvalue())
    stored = np.load(file)
    copies = {}
    for kind in ("random",) if case.group == "confirm" else ("first", "last", "random", "diff"):
        places = torch.from_numpy(stored[f"{kind}/places"])
        copies[kind] = Images(torch.from_numpy(stored[f"{kind}/pixels"]).float() / 255, taught.labels[places])
    return copies


def _made_copies(
    files: Files, case: Case, taught: Images, old: nn.Module, another: nn.Module
) -> dict[str, dict[int, Tensor]]:
    """Returns the copies of each kind, uint8 [3, H, W] by the place of the training image."""
    recipe, device = _recipe(files, case.domain), torch.device("cpu")
    labels = build_source(recipe.source).labels
    generator = build_component(recipe.generator, "generator", Generator, device)
    places = np.linspace(0, len(taught.labels) - 1, _COPIES).round().astype(int).tolist()
    examples = [fmrgen.Example(place, taught.pixels[place], int(taught.labels[place])) for place in places]

    def perturbed(of_recipe: Recipe, **changes: Any) -> Iterator[tuple[fmrgen.Perturbed, dict[int, Tensor]]]:
        oracle = build_oracle(of_recipe.oracle, labels, _SIDE, device)
        options = replace(of_recipe.perturb.runs[0], control=0, **changes)
        steps: dict[int, dict[int, Tensor]] = {}

        def on_step(example_id: int, attack: int, step: int, image: Tensor) -> None:
            steps.setdefault(example_id, {})[step] = image

        for row in fmrgen.perturb(examples, old, generator, oracle, options, on_step=on_step):
            if row.valid:
                yield row, steps[row.id]

    copies: dict[str, dict[int, Tensor]] = {kind: {} for kind in ("first", "last", "random", "diff")}
    for row, _ in perturbed(recipe, update="random", keep="last"):
        copies["random"][row.id] = row.image
    if case.group == "confirm":
        return {"random": copies["random"]}
    for row, images in perturbed(recipe, keep="last"):
        copies["last"][row.id] = row.image
        fooling = [step for step, answer in enumerate(row.step_predictions) if answer != row.label and step in images]
        copies["first"][row.id] = images[fooling[0]] if fooling else row.image
    of_diff = diff_recipes(recipe, classifier_section(another), classifier_section(old))[0]
    for row, _ in perturbed(of_diff):
        copies["diff"][row.id] = row.image
    return copies


# What the answers say.


class Outcome(NamedTuple):
    """A NEW of a case, its certificate, and what it did to all else, in points.

    Attributes:
        case: the network OLD.
        cure: how NEW was made.
        certificate: of what `explain` said first.
        kept: share of OLD's errors of that kind that are left, in percent.
        shift: accuracy on images of another place, less that of the control.
        accuracy: on all real images, less that of the control.
        flips: negative flips, less those of the control.
    """

    case: Case
    cure: str
    certificate: Certificate
    kept: float
    shift: float
    accuracy: float
    flips: float


def outcomes(files: Files, case: Case, *, of_width: bool = False) -> list[Outcome]:
    """Returns the outcomes of all NEWs of a case; none if `explain` said nothing of OLD.

    Args:
        files: of the study.
        case: the network OLD.
        of_width: whether to certify instead that signs that are far are fixed.
    """
    folder = files.output / case.name
    findings = _words_of_findings(files, case)
    if not (findings or of_width):
        return []
    real, shift = _real(files, case.domain)
    labels, of_shift = real.labels.numpy(), shift.labels.numpy()
    if of_width:
        assert real.widths is not None
        words, is_of_kind = f"width < {_FAR}", (real.widths < _FAR).numpy()
    else:
        words, is_of_kind = findings[0], _is_of_kind(files, case.domain, findings[0])
    stored = dict(np.load(folder / "answers.npz"))
    if case.group == "planted" and files.mnist is not None:
        for name, more in np.load(folder / "answers-more.npz").items():
            stored[name] = np.concatenate([stored[name], more])
    wrong = {name.removeprefix("real/"): stored[name] != labels for name in stored if name.startswith("real/")}
    wrong_there = {name: stored[f"shift/{name}"] != of_shift for name in wrong}
    results = []
    for cure in (*SHAMS, SUGGESTED, *CURES):
        if cure not in wrong:
            continue
        networks = {"OLD": wrong["OLD"], "NEW": wrong[cure]} | {name: wrong[name] for name in CONTROLS}
        errors = {name: Errors(missed & is_of_kind, missed & ~is_of_kind) for name, missed in networks.items()}
        certificate = certify_errors(
            words,
            errors,
            is_of_kind,
            ~is_of_kind,
            labels,
            margin=MARGIN,
            shifts={"another place": Shift(wrong_there["OLD"], wrong_there[cure])},
        )
        control, new = wrong[CONTROLS[0]], wrong[cure]
        flips = [100 * float((missed & ~wrong["OLD"]).mean()) for missed in (new, control)]
        results.append(
            Outcome(
                case,
                cure,
                certificate,
                kept=100 * float((new & is_of_kind).sum() / max(1, (wrong["OLD"] & is_of_kind).sum())),
                shift=100 * float(wrong_there[CONTROLS[0]].mean() - wrong_there[cure].mean()),
                accuracy=100 * float(control.mean() - new.mean()),
                flips=flips[0] - flips[1],
            )
        )
    return results


@cache
def _is_of_kind(files: Files, domain: str, words: str) -> np.ndarray:
    """Returns which real images are of a kind that `explain` names, bool [N]."""
    hypothesis = hypothesis_of(words)
    assert hypothesis is not None
    measures = measured(hypothesis.attribute, _real(files, domain)[0].pixels)
    return Cut.of_most(measures, hypothesis.sign).holds(measures)


def report(files: Files) -> dict[str, Any]:
    """Returns all figures of the study, and writes them."""
    made = [case for case in cases() if (files.output / case.name / "answers.npz").exists()]
    of_finding = {case: outcomes(files, case) for case in made}
    of_width = {case: outcomes(files, case, of_width=True) for case in made if case.domain == "signs"}
    figures: dict[str, Any] = {"cases": [_row(files, case, of_finding[case]) for case in made]}
    for group in ("planted", "near", "tracks", "confirm"):
        of_group = [outcome for case in made if case.group == group for outcome in of_finding[case]]
        figures[group] = _summaries(of_group)
    for group in ("near", "tracks"):
        of_far = [outcome for case in made if case.group == group for outcome in of_width[case]]
        figures[f"{group}, width"] = _summaries(of_far)
    shams = [outcome for results in of_finding.values() for outcome in results if outcome.cure in SHAMS]
    figures["shams"] = _shams(shams)
    shams_of_width = [outcome for results in of_width.values() for outcome in results if outcome.cure in SHAMS]
    figures["shams, width"] = _shams(shams_of_width)
    (files.output / "report.json").write_text(json.dumps(figures, indent=1))
    return figures


def _summaries(results: Sequence[Outcome]) -> dict[str, Any]:
    """Returns the summary of each cure that was tried, and how it differs from random copies on the same network."""
    of_random = {outcome.case: outcome for outcome in results if outcome.cure == SHAMS[1]}
    summaries = {}
    for cure in (SUGGESTED, *CURES, *SHAMS):
        of_cure = [outcome for outcome in results if outcome.cure == cure]
        if not of_cure:
            continue
        summaries[cure] = _summary(of_cure)
        for name in _FIGURES:
            differences = [getattr(outcome, name) - getattr(of_random[outcome.case], name) for outcome in of_cure]
            summaries[cure][f"{name}, less random copies"] = _interval(np.array(differences))
    return summaries


def _row(files: Files, case: Case, results: Sequence[Outcome]) -> dict[str, Any]:
    row: dict[str, Any] = {"case": case._asdict(), "said": _words_of_findings(files, case)}
    for outcome in results:
        if outcome.cure == (SUGGESTED if case.group == "confirm" else CURES[0]):
            row["errors"] = {name: share.value for name, share in outcome.certificate.errors.items()}
            row["elsewhere"] = {name: share.value for name, share in outcome.certificate.elsewhere.items()}
            row["verdict"], row["kept"] = outcome.certificate.verdict, outcome.kept
            requirements = [*outcome.certificate.repair, *outcome.certificate.cost]
            row["requirements"] = [asdict(requirement) for requirement in requirements]
    return row


def _summary(results: Sequence[Outcome]) -> dict[str, Any]:
    """Returns the verdicts of a cure, how often errors of the kind were halved, and means with Student's intervals."""
    verdicts = dict(Counter(outcome.certificate.verdict for outcome in results))
    figures: dict[str, Any] = {"cases": len(results), "verdicts": verdicts}
    figures["halved"] = sum(outcome.kept <= 50 for outcome in results)
    figures["halved and certified"] = sum(
        outcome.kept <= 50 and outcome.certificate.verdict == "fixed" for outcome in results
    )
    for name in _FIGURES:
        figures[name] = _interval(np.array([getattr(outcome, name) for outcome in results]))
    return figures


def _interval(values: np.ndarray) -> list[float]:
    """Returns the mean with the ends of Student's interval of 95 %."""
    estimate = mean(values)
    assert estimate is not None
    return [round(end, 2) for end in (estimate.value, *estimate.ends)]


def _shams(shams: Sequence[Outcome]) -> dict[str, Any]:
    """Returns how many shams are certified, and how many of those that are chosen as the best of each case."""
    is_certified = [outcome.certificate.verdict == "fixed" for outcome in shams]
    best: dict[Case, Outcome] = {}
    for outcome in shams:
        if outcome.case not in best or outcome.kept < best[outcome.case].kept:
            best[outcome.case] = outcome
    of_best = [outcome.certificate.verdict == "fixed" for outcome in best.values()]
    of_repair = []
    for outcome in shams:
        of_repair.append(all(requirement.state == "holds" for requirement in outcome.certificate.repair))
    return {
        "shams": len(shams),
        "certified": _share(is_certified),
        "with a repair that holds": _share(of_repair),
        "the better of each case, chosen on the test": _share(of_best),
        "errors left, percent": [round(outcome.kept) for outcome in shams],
    }


def _share(hits: Sequence[bool]) -> list[float]:
    """Returns the number of hits, and their share in percent with its interval (Wilson)."""
    estimate = fmrgen.proportion(np.array(hits, dtype=bool))
    assert estimate is not None
    return [sum(hits), estimate.value, *estimate.ends]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "ask", "report"])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True, help="gtsrb-train.parquet")
    parser.add_argument("--test", type=Path, required=True, help="gtsrb-test.parquet")
    parser.add_argument("--digits", type=Path, required=True, help="usps-test.parquet")
    parser.add_argument("--mnist", type=Path, help="a folder with the files of MNIST's test set")
    parser.add_argument(
        "--group", choices=["planted", "near", "tracks", "confirm"], default="", help="of make: this one alone"
    )
    options = parser.parse_args(arguments)
    files = Files(options.output, options.train, options.test, options.digits, options.mnist)
    if options.what == "ask" and options.mnist is None:
        parser.error("ask takes --mnist")
    if options.what == "make":
        make(files, options.group)
    elif options.what == "ask":
        ask(files)
    else:
        print(json.dumps(report(files), indent=1))


if __name__ == "__main__":
    main()
