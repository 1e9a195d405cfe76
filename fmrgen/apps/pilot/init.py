"""From labelled images and a network to a recipe: which images, what perturbs them, what judges them, and a step.

A fixed plan, each choice with its reason. The parts of the images and the trained networks stay in a folder beside the
recipe, so that a run that was killed continues.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from textwrap import TextWrapper
from typing import Any

import numpy as np
import torch
from torch import nn

from fmrgen.apps.pilot import panel
from fmrgen.apps.pilot.candidates import Candidate, best, candidates, predictions_of, seconds_of_step, tried
from fmrgen.apps.pilot.photos import Look, Part, check_folder, deal, look, write_images
from fmrgen.config import ComponentConfig, validate
from fmrgen.distributed.launch import start_process
from fmrgen.distributed.rank import note
from fmrgen.errors import UserError, option
from fmrgen.files import fingerprint, json_text, no_such_folder, read_json, to_yaml, write_atomically
from fmrgen.jobs.step_size import find_step
from fmrgen.labels import Labels
from fmrgen.metrics.intervals import Estimate, format_estimate
from fmrgen.metrics.outputs import best_order, outputs_in_another_order
from fmrgen.progress.bars import format_duration, report
from fmrgen.recipe.build import build_classifier, build_oracle, build_source
from fmrgen.recipe.job import Recipe, parse_oracle
from fmrgen.recipe.objects import AnyClassifier, classifier_section, generator_section
from fmrgen.recipe.sections import oracle_config_of, source_config_of
from fmrgen.records import Example
from fmrgen.report.report import Badge, Report, Section, Table
from fmrgen.sources.base import LoadedExample, Source, SourceConfig
from fmrgen.sources.in_memory import Config as SourceInMemory

_SIZES = (32, 64, 128, 224, 256)  # of images, for a network that takes any
_ASKED = 300  # images by which all choices are made
_TRAINING_SECONDS = 240.0  # of the panel
_FEWEST_TO_TEACH = 200  # photos, below which a network learns nothing of them
_STEPS = 20  # of an image, about what a good step size leads to
_WIDTH = 110  # of the recipe's comments


@dataclass
class Init:
    """What `init` chose, and what it measured on the way.

    Attributes:
        path: of the recipe.
        images: what the images are like, line by line.
        counts: of images in each part.
        size: side in pixels of the images that are perturbed.
        accuracy: of the tested network on images of that size, in percent.
        generators: that were tried.
        generator: the one that was chosen.
        oracle: that was chosen.
        step_size: that was found, and how, line by line.
        recipe: that is written: `fmrgen.generate(outcome.recipe, output=…)` makes its split.
        warnings: what looks wrong, each with its cure.
    """

    path: str
    images: list[str]
    counts: dict[str, int]
    size: int
    accuracy: Estimate
    generators: list[Candidate]
    generator: Candidate
    oracle: panel.Judged
    step_size: list[str]
    recipe: Recipe
    warnings: list[str] = field(default_factory=list)


def init(
    images: Any,
    model: AnyClassifier,
    *,
    output: str | Path = "fmrgen.yaml",
    generator: Mapping[str, Any] | str | None = None,
    oracle: str | None = None,
    offline: bool = False,
) -> Init:
    """Choose a recipe for labelled images and a network, by a fixed plan.

    The images are split into three parts: for later tests, for training a panel of three networks as their oracle
    (about four minutes), and for the choices. Images have the network's own size; the generator is the first of the
    shipped VQGAN, TAESD and `transform` whose reconstructions keep the network's accuracy; the step is found as by
    `perturb.step_size=auto`. The same call continues where an earlier one was interrupted.

    Args:
        images: a folder with a folder for each class; a `datasets.Dataset` with a column of images and one of labels;
            any dataset with `len()` and items (image, label), as in torchvision; or the section of a source.
        model: the classifier to test: a module from images [B, 3, H, W] in [0, 1] to logits [B, K], or what
            `fmrgen.load_classifier` takes.
        output: the recipe's file, which must not exist yet; image lists and trained networks go to `NAME.init` beside
            it.
        generator: the section of a generator, or a word for one, instead of the choice.
        oracle: the short form of an oracle, instead of the panel.
        offline: download nothing from the Hub.

    Raises:
        UserError: the images can't be used, the network fails on them, or the folder belongs to another run.
    """
    path = Path(output)
    if path.exists():
        raise UserError(f"{path}: exists already; edit it, or name another with {option('output', 'output')}")
    section, device = classifier_section(model), start_process()
    source_config = _source_of(images)
    parts = _Parts(path.with_suffix(".init"), source_config)
    source = build_source(source_config)
    if source.accepts_several:
        raise UserError(
            "init: supports one label for each image; write a recipe for several, as `fmrgen recipes "
            "imagenet-resnet50` shows, with source.accepted"
        )
    looked = look(source)
    counts, warnings = _deal(looked, source, parts)
    size = _size_for(section, looked, device)
    network = build_classifier(section, looked.labels, size, device)
    examples = parts.load("choose", size, _ASKED)
    accuracy = _accuracy_of(network, examples, looked.labels, device)
    if len(looked.labels) > 2 and accuracy.value < 200 / len(looked.labels):
        warnings.append(
            f"the network is right on {accuracy.value:.0f} % of the images: are its classes in the order of the "
            "folders' names?"
        )
    chosen_section = None if generator is None else _tree_of(generator_section(generator, size))
    listed = candidates(size, chosen_section, hub=not offline)
    trains = oracle is None and not all((parts.folder / name / "training.json").is_file() for name in panel.MEMBERS)
    _note_on_time(seconds_of_step(listed[0], network, examples[:4], device), listed[0], counts, trains=trains)
    generators = _generators(listed, network, examples, device)
    chosen = best(generators)
    if not chosen.keeps_accuracy and chosen.lost is not None:
        warnings.append(
            f"reconstructions cost the network {chosen.lost.value:.1f} points of accuracy, which FMR will count as "
            f"failures; name a better generator with {option('generator', 'generator=')}"
        )
    name, tree = _oracle(oracle, parts, size, looked.labels, device)
    built = build_oracle(oracle_config_of(tree, name), looked.labels, size, device)
    judged = panel.judged(name, tree, built, examples, device)
    warnings += _doubts(judged, accuracy)
    written = {
        "source": parts.section("choose"),
        "classifier": _tree_of(section),
        "generator": chosen.section,
        "oracle": judged.section,
        "perturb": {"step_size": "auto", "keep": "first", "min_probability": judged.threshold},
        "output": {"config": "photos", "split": "model", "shard_size": 50},
    }
    recipe = validate(Recipe, {**written, "classifier": section}, "init")
    step, notes = find_step(recipe.build(device), recipe.perturb, device)
    written |= {"source": parts.section("tested"), "perturb": {**written["perturb"], "step_size": step}}
    recipe = validate(Recipe, {**written, "classifier": section}, "init")
    outcome = Init(
        path=str(path),
        images=looked.lines(),
        counts=counts,
        size=size,
        accuracy=accuracy,
        generators=generators,
        generator=chosen,
        oracle=judged,
        step_size=notes,
        recipe=recipe,
        warnings=warnings,
    )
    write_atomically(path, _recipe_text(outcome, written).encode())
    return outcome


class _Parts:
    """The parts of the images: lists in a folder beside the recipe."""

    def __init__(self, folder: Path, source: SourceConfig) -> None:
        self.folder, self.fit = folder, source.fit
        self.own = source if source.kind == "imagefolder" else None
        self.images = folder / "images" if self.own is None else Path(self.own.model_dump()["path"])

    def section(self, part: Part) -> dict[str, Any]:
        """Return the source of a part; its order is that of a digest."""
        only = {"only": str(self.folder / f"{part}.txt")}
        if self.own is not None:
            return {"kind": "imagefolder"} | self.own.model_dump(exclude_defaults=True, exclude={"on_error"}) | only
        classes = str(self.folder / "classes.txt")
        return {"kind": "imagefolder", "path": str(self.images), "classes": classes, "fit": self.fit} | only

    def load(self, part: Part, size: int, most: int) -> list[Example]:
        """Return the first examples of a part at a size."""
        source = build_source(source_config_of(self.section(part), "init"))
        loaded = source.load(0, min(most, len(source)), size)
        return [example.for_engine() for example in loaded if isinstance(example, LoadedExample)]


def _source_of(images: Any) -> SourceConfig:
    """Return the source of a folder or a dataset. Raises UserError for a folder without labelled images."""
    if isinstance(images, SourceConfig):
        return images
    if not isinstance(images, str | Path):
        return SourceInMemory.of(images)
    folder = Path(images)
    if not folder.is_dir():
        raise UserError(no_such_folder(str(folder)))
    check_folder(folder)
    return source_config_of({"kind": "imagefolder", "path": str(folder), "on_error": "skip"}, "init")


def _deal(looked: Look, source: Source, parts: _Parts) -> tuple[dict[str, int], list[str]]:
    """Write the parts, and return how many images each has, and warnings.

    Raises UserError if the folder holds the parts of other images.
    """
    key = fingerprint([[photo.digest, photo.label] for photo in looked.photos])
    file = parts.folder / "photos.json"
    if file.is_file() and read_json(file)["key"] != key:
        raise UserError(
            f"{parts.folder}: belongs to an init of other images, on which networks were trained; name another "
            f"recipe with {option('output', 'output')}, or delete that folder"
        )
    write_atomically(file, json_text({"key": key}).encode())
    dealt = deal(looked)
    if parts.own is None:
        write_images(parts.images, list(chain.from_iterable(dealt.values())), source)
        write_atomically(parts.folder / "classes.txt", "\n".join(looked.labels.names).encode())
    for part, photos in dealt.items():
        if not photos:
            raise UserError(
                f"init: no image is left for the part {part}: of {len(looked.photos):,} most are copies, or frames of "
                "few series; add images of other scenes"
            )
        files = [f"{photo.place:06}.png" for photo in photos]
        if parts.own is not None:
            files = [os.path.relpath(str(photo.file), parts.images) for photo in photos]
        write_atomically(parts.folder / f"{part}.txt", "\n".join(files).encode())
    warnings = []
    missing = set(range(len(looked.labels))) - {photo.label for photo in dealt["tested"]}
    if missing:
        warnings.append(
            f"{len(missing)} of {len(looked.labels)} classes have too few images to be tested, such as "
            f"{looked.labels.names[min(missing)]}"
        )
    return {part: len(photos) for part, photos in dealt.items()}, warnings


def _size_for(section: ComponentConfig, looked: Look, device: torch.device) -> int:
    """Return the size to which the network itself resizes images; for one that takes any, that of most photos."""
    network = section.build(device)
    own = getattr(getattr(network, "preprocess", None), "size", None)
    if isinstance(own, int):
        return own
    return min(_SIZES, key=lambda size: abs(size - looked.side))


def _accuracy_of(network: nn.Module, examples: Sequence[Example], labels: Labels, device: torch.device) -> Estimate:
    """Return the network's accuracy in percent. Raises UserError if its outputs are in another order."""
    images = torch.stack([example.image for example in examples]).to(device)
    predicted = predictions_of(network, images).cpu().numpy()
    truth, names = np.array([example.label for example in examples]), labels.names
    if outputs_in_another_order(truth, predicted, len(names)):
        order = best_order(truth, predicted, len(names))
        listed = ", ".join(names[label] for label in order.tolist()[:20])
        raise UserError(
            f"init: the network is right on {(predicted == truth).mean():.0%} of the images, and on "
            f"{(order[predicted] == truth).mean():.0%} if its outputs stand for {listed}"
            f"{', …' if len(names) > 20 else ''}; list its classes, in the order of its outputs, as "
            "class_names of its section"
        )
    return panel.share(predicted == truth)


def _note_on_time(per_step: float | None, first: Candidate, counts: Mapping[str, int], *, trains: bool) -> None:
    """Note how long the choices, and then the images, are about to take: `per_step` seconds for a step of an image."""
    times = [f"about {_TRAINING_SECONDS / 60:.0f} min on idle cores for the panel"] if trains else []
    if per_step is not None:
        steps = 0.7 * min(_ASKED, counts["choose"]) + 3 * 32 * _STEPS  # there and not back; three searches by 32 images
        times.append(
            f"about {format_duration(per_step * steps)} for generator and step; then fmrgen generate takes about "
            f"{format_duration(per_step * counts['tested'] * _STEPS)}, at {1000 * per_step:.0f} ms for a step of an "
            f"image by {first.name}"
        )
    if times:
        note(f"init takes {', and '.join(times)}")


def _generators(
    listed: Sequence[Candidate], network: nn.Module, examples: Sequence[Example], device: torch.device
) -> list[Candidate]:
    """Return those that were tried, in their order: the first that keeps the network's accuracy ends the search."""
    generators: list[Candidate] = []
    for candidate in listed:
        generators.append(tried(candidate, network, examples, device))
        report("generator", len(generators), len(generators) + 1)
        if generators[-1].keeps_accuracy:
            break
    return generators


def _oracle(
    named: str | None, parts: _Parts, size: int, labels: Labels, device: torch.device
) -> tuple[str, dict[str, Any]]:
    """Return name and section of the oracle that is named, or train a panel."""
    if named is not None:
        name, config = parse_oracle(named)
        return name, _tree_of(config)
    taught = parts.load("panel", size, 500)
    if len(taught) < _FEWEST_TO_TEACH:
        raise UserError(
            f"init: {len(taught)} images are too few to teach a panel of networks ({_FEWEST_TO_TEACH} at least); name "
            f"a CLIP or a better network with {option('oracle', 'oracle=')}; diff --images needs no oracle"
        )
    images = torch.stack([example.image for example in taught])
    mean, std = images.mean((0, 2, 3)).tolist(), images.std((0, 2, 3)).clamp(min=0.05).tolist()
    sources = {"source": parts.section("panel"), "test": parts.section("choose")}
    folders = {name: parts.folder / name for name in panel.MEMBERS}
    for name, folder in folders.items():
        file = folder.with_suffix(".yaml")
        if not file.is_file():
            recipe = panel.network_recipe(name, size, len(labels), mean, std, sources)
            workers = min(len(folders), os.cpu_count() or 1) if device.type == "cpu" else 1
            seconds = _TRAINING_SECONDS * workers * panel.SHARES[name] / sum(panel.SHARES.values())
            recipe["schedule"]["steps"] = panel.steps_within(recipe, labels, seconds, device)
            write_atomically(file, to_yaml(recipe).encode())
    _train(list(folders.values()), device)
    members = [{"kind": "classifier", "classifier": str(folder)} for folder in folders.values()]
    section = {"kind": "ensemble", "names": list(folders), "oracles": members}
    return "a panel of three networks, trained on these images", section


def _train(folders: Sequence[Path], device: torch.device) -> None:
    """Run the trainings that are left, on a CPU one for each core; each continues from its last checkpoint."""
    waiting = [folder for folder in folders if not (folder / "training.json").is_file()]
    running: dict[Path, subprocess.Popen[str]] = {}
    workers = (os.cpu_count() or 1) if device.type == "cpu" else 1
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                folder = waiting.pop(0)
                arguments = [folder.with_suffix(".yaml"), "-o", folder, "-q", "--log-file", folder.with_suffix(".log")]
                running[folder] = subprocess.Popen(
                    [sys.executable, "-m", "fmrgen", "train", *map(str, arguments)],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "OMP_NUM_THREADS": "1"} if device.type == "cpu" else None,
                )
            time.sleep(0.5)
            report("training", sum(map(_percent_trained, folders)), 100 * len(folders))
            for folder, process in list(running.items()):
                if process.poll() is not None:
                    del running[folder]
                    if process.returncode:
                        _, problem = process.communicate()
                        last_line = (problem.strip() or f"status {process.returncode}").splitlines()[-1]
                        raise UserError(f"init: the training of {folder.name} failed: {last_line}")
    finally:
        for process in running.values():
            process.terminate()


def _percent_trained(folder: Path) -> int:
    """Return the share of a training's steps that are done, by the last line of its log."""
    if (folder / "training.json").is_file():
        return 100
    log = folder.with_suffix(".log")
    share = 0.0
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        with suppress(ValueError):  # the last may not be whole yet
            event = json.loads(line)
            if event["event"] == "progress":
                share = event["step"] / event["steps"]
    return int(100 * share)


def _doubts(judged: panel.Judged, accuracy: Estimate) -> list[str]:
    """Return warnings on an oracle that errs more than the tested network, or accepts few originals."""
    cure = f"name a better one with {option('oracle', 'oracle=')}, or give it more images to learn from"
    doubts = []
    if judged.accuracy.value < accuracy.value:
        doubts.append(
            f"the oracle is right on {judged.accuracy.value:.1f} % of the originals and the network on "
            f"{accuracy.value:.1f} %: a judge that errs more than what it judges; {cure}"
        )
    if judged.kept.value < 75:  # percent
        doubts.append(
            f"the oracle accepts {judged.kept.value:.0f} % of the originals, and figures are of such images alone; "
            f"{cure}"
        )
    if judged.doubted:
        doubts.append(
            f"the oracle is confident of another class in {len(judged.doubted)} of {_ASKED} originals: are their "
            "labels right?"
        )
    return doubts


def _tree_of(section: ComponentConfig) -> dict[str, Any]:
    """Return a section as a recipe has it: its kind, and what was set."""
    return {"kind": section.kind, **section.model_dump(mode="json", exclude_unset=True)}


def _recipe_text(outcome: Init, tree: Mapping[str, Any]) -> str:
    """Return a recipe as YAML, each section below the reason for it."""
    judged, counts = outcome.oracle, outcome.counts
    members = ", ".join(f"{name} {share:.0f}" for name, share in (judged.members or {}).items())
    reasons = {
        "source": [
            f"{counts['tested']:,} of your images, which nothing here has seen; {counts['choose']:,} others decided "
            f"the choices below, and {counts['panel']:,} taught the panel. The parts share no copy, scene or series."
        ],
        "classifier": [f"Right on {format_estimate(outcome.accuracy)} % of images of {outcome.size} px."],
        "generator": [_reason(candidate, outcome.generator) for candidate in outcome.generators],
        "oracle": [
            f"{judged.name}: right on {format_estimate(judged.accuracy)} % of images that it has not seen"
            f"{f' ({members})' if members else ''}. Another: zero_shot:REPO, clip:REPO, or any better network."
        ],
        "perturb": [
            "min_probability: the highest at which the oracle accepts 80 % of the originals, raised until it accepts "
            f"at most 2 % as another class. It accepts {format_estimate(judged.kept)} %, and "
            f"{format_estimate(judged.wrong)} % as another; of images that are half another class "
            f"{format_estimate(judged.mixes)} %, of shuffled pixels {format_estimate(judged.shuffled)} %.",
            *outcome.step_size,
            "keep: the first image that fools the network, not the last that the oracle accepts.",
        ],
        "output": ["Names in the dataset folder: of images, generator and oracle, and of the network."],
    }
    lines = [
        "# Written by fmrgen init: what it measured stands above each choice. Change what you like.",
        "# Commands in this folder take this recipe by themselves: fmrgen generate, compare, diff, explain.",
    ]
    comment = TextWrapper(
        _WIDTH, initial_indent="# ", subsequent_indent="#   ", break_long_words=False, break_on_hyphens=False
    )
    for name, section in tree.items():
        lines.append("")
        for reason in reasons[name]:
            lines += comment.wrap(reason)
        lines += to_yaml({name: section}, _WIDTH).rstrip().splitlines()
    return "\n".join(lines) + "\n"


def _reason(candidate: Candidate, chosen: Candidate) -> str:
    """Return what a generator showed, or why it could not be tried."""
    mark = "Taken" if candidate == chosen else "Tried"
    figures = f"reconstructions of {candidate.psnr:.1f} dB cost the network {format_estimate(candidate.lost)} points"
    return f"{mark}: {candidate.name}: {candidate.why_not or figures}."


def init_report(outcome: Init) -> Report:
    """Return the report of an `init`: what was chosen, and by which figures."""
    judged = outcome.oracle
    rows = [
        ["images", f"{outcome.size} px; {outcome.counts['tested']:,} are tested"],
        ["the network's accuracy on them, %", format_estimate(outcome.accuracy)],
        ["generator", outcome.generator.name],
        ["points of accuracy that its reconstructions cost", format_estimate(outcome.generator.lost)],
        ["oracle", judged.name],
        ["its accuracy on images that it has not seen, %", format_estimate(judged.accuracy)],
        ["its threshold", f"{judged.threshold:g}"],
        ["originals that it accepts, %", format_estimate(judged.kept)],
        ["originals that it accepts as another class, %", format_estimate(judged.wrong)],
        ["step size", f"{outcome.recipe.perturb.step_size:g}"],
    ]
    is_weaker = judged.accuracy.value < outcome.accuracy.value
    return Report(
        "init",
        "A recipe for your images",
        [
            Section("choices", "What was chosen", tables=[Table(["", ""], rows, of_text=True)]),
            Section("images", "Images", lines=outcome.images),
        ],
        {name: value for name, value in vars(outcome).items() if name != "recipe"},
        warnings=outcome.warnings,
        badge=Badge("The oracle is weaker than the network", "bad") if is_weaker else None,
        next_steps=[
            "generate images and look at them: fmrgen generate && fmrgen show out",
            "compare two checkpoints: fmrgen diff --old OLD --new NEW",
        ],
        allow_nan=True,
    )
