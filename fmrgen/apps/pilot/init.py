"""From a user's labelled images to a recipe: what to perturb them with, what judges them, and how far to trust it.

Each stage leaves its files in a folder beside the recipe, so that a run that was killed goes on where it ended.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fmrgen.apps.pilot import panel, probe
from fmrgen.apps.pilot.candidates import SHIPPED, TRANSFORM, Candidate, answers_to, best, candidates, tried
from fmrgen.apps.pilot.class_names import nameless, names_for_prompts
from fmrgen.apps.pilot.inspect import Inspection, Trial, inspect
from fmrgen.apps.pilot.outcome import PANEL, PANEL_AND_PROBE, PROBE, Init, SizeTried
from fmrgen.apps.pilot.photos import Look, Part, check_folder, deal, look, write_part
from fmrgen.apps.pilot.trust import trust_in
from fmrgen.apps.pilot.written import recipe_text
from fmrgen.config import ComponentConfig, validate
from fmrgen.distributed.launch import start_process
from fmrgen.errors import UserError, option
from fmrgen.files import fingerprint, json_text, no_such_folder, parse_yaml, read_json, to_yaml, write_atomically
from fmrgen.jobs.generate import make_split
from fmrgen.labels import Labels
from fmrgen.metrics.cautions import best_order, outputs_in_another_order
from fmrgen.metrics.intervals import proportion
from fmrgen.progress.job import Progress
from fmrgen.recipe.build import build_classifier, build_oracle, build_source
from fmrgen.recipe.job import Recipe, load_recipe, parse_classifier, parse_oracle, source_config_of
from fmrgen.recipe.objects import AnyClassifier, classifier_section
from fmrgen.recipe.sections import oracle_config_of
from fmrgen.records import Example
from fmrgen.sources.base import LoadedExample, SourceConfig
from fmrgen.sources.in_memory import Config as SourceInMemory

_SIZES = (32, 64, 128, 224, 256)
_LARGEST_ON_CPU = 128
_LOST_BY_SIZE = 2.0  # points of accuracy that a smaller size may cost
_ASKED = 200  # images by which sizes and generators are compared
_JUDGED = 300  # images by which an oracle is
_PILOT = 200  # images that are perturbed on trial
_OF_TRAINING, _OF_PROBE, _OF_STEP, _OF_DIFF = 0.4, 0.1, 0.15, 0.3  # of the time
_FEWEST_TO_TEACH = 200  # photos, below which a network learns nothing of them
_PARTS_OF_STAGE = 100
_STEP = 0.03
_ZERO_SHOT = "zero_shot:google/siglip2-base-patch16-224"  # on a GPU
_INSPECTED = 24  # images
_TAUGHT = 8000  # images, of the reader
_FEW_KEPT = 75.0  # percent
_ROWS_OF_DIFF = 3.5  # in the time of one: two are made, and the oracle sees what is moved and changed too
_FEWEST_STEPS = 5  # on average, of images that stop as soon as they fool
_VALID_LOST = 0.05  # share of valid rows that a longer step may cost
_FEWEST_TESTED = 100
_MOST_NAMED = 20  # classes, in a message


def init(
    images: Any,
    model: AnyClassifier | None = None,
    *,
    output: str | Path = "fmrgen.yaml",
    generators: Sequence[Mapping[str, Any]] = (),
    oracles: Sequence[str] = (),
    backbone: str | None = None,
    names: Mapping[str, str] | None = None,
    minutes: float = 10.0,
    quick: bool = False,
    offline: bool = False,
    on_stage: Callable[[str, int, int], None] = lambda name, done, total: None,
    on_note: Callable[[str], None] = lambda line: None,
) -> Init:
    """Choose a recipe for labelled images: its size, generator, oracle, threshold and step, each by a measurement.

    The images are dealt into three parts: some are tested later, some teach a panel of networks to judge them, and by
    some all choices are made. The same call goes on where an earlier one was interrupted.

    Args:
        images: a folder with a folder for each class; a `datasets.Dataset` with a column of images and one of labels;
            any dataset with `len()` and items (image, label), as in torchvision; or the section of a source.
        model: the network to be tested: a module from images [B, 3, H, W] in [0, 1] to logits [B, K], or what
            `fmrgen.load_classifier` takes; by default one that is trained on the images stands in for it.
        output: the recipe's file, which must not be there yet. What it rests on lies beside it, in `NAME.init`.
        generators: sections of generators to try first.
        oracles: short forms of oracles to try beside the panel.
        backbone: a network of timm on whose features a linear probe is trained, which is tried as oracle by itself and
            in the panel: `timm:NAME`. By default a small one of the Hub.
        names: what classes are called, for oracles that read; `n01440764` and `03 - cats` are understood without.
        minutes: about how long it takes until a first diff has been made, too.
        quick: train nothing: take `transform`, and the oracle that is named.
        offline: take nothing from the Hub.
        on_stage: called with (stage, done, total) as the work goes on.
        on_note: called with a line on what was found.

    Returns:
        What was chosen and why. The recipe is at `path`.

    Raises:
        UserError: the images can't be used, the network fails on them, or the folder is another run's.
    """
    path = Path(output)
    if path.exists():
        raise UserError(f"{path}: is there already; edit it, or name another with {option('output', 'output')}")
    work = _Work(path, images, model, generators, oracles, backbone, names, minutes, quick, offline, on_stage, on_note)
    work.check_asked()
    outcome = Init(str(path), model=None if model is None else _model_name(work.section))
    looked = work.look(outcome)
    work.choose_size(outcome, looked)
    work.train(outcome, looked)
    work.choose_generator(outcome)
    work.choose_oracle(outcome)
    work.choose_step(outcome)
    work.ask_readers(outcome)
    work.write(outcome)
    return outcome


def recipe_of_images(images: Any, model: AnyClassifier, path: Path, on_note: Callable[[str], None]) -> Recipe:
    """Return the recipe in a file, or choose it for labelled images as `init` does.

    Args:
        images: as for `init`.
        model: the network to be tested.
        path: of the recipe.
        on_note: called with a line on what was found.

    Raises:
        UserError: the file is the recipe of other images, or `init` fails.
    """
    if not path.exists():
        outcome = init(images, model, output=path, on_note=on_note)
        for line in outcome.warnings:
            on_note(line)
    elif _asked_source(path) != _source_of(images).model_dump(mode="json"):
        raise UserError(f"{path}: is the recipe of other images; name another {option('output', 'output')}")
    return load_recipe(path)


def _asked_source(path: Path) -> Any:
    """Return the source that a recipe was chosen for; None if `init` did not write it."""
    arguments = path.with_suffix(".init") / "asked.json"
    return read_json(arguments)["source"] if arguments.is_file() else None


def _model_name(model: ComponentConfig) -> str:
    for key in ("checkpoint", "model", "target"):
        name = getattr(model, key, None)
        if name:
            return Path(str(name)).name
    return model.kind


class _Tested(NamedTuple):
    """The tested network for images of one size.

    Attributes:
        network: answers in the labels of the images.
        examples: on which it is tried.
        labels: of these, [N].
        answers: of the network, [N].
    """

    network: nn.Module
    examples: list[Example]
    labels: np.ndarray
    answers: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Whether it names each example as labelled, bool [N]."""
        is_right: np.ndarray = self.answers == self.labels
        return is_right


class _Work:
    """The stages, in the folder beside the recipe."""

    def __init__(
        self,
        path: Path,
        images: Any,
        model: AnyClassifier | None,
        generators: Sequence[Mapping[str, Any]],
        oracles: Sequence[str],
        backbone: str | None,
        names: Mapping[str, str] | None,
        minutes: float,
        quick: bool,
        offline: bool,
        on_stage: Callable[[str, int, int], None],
        on_note: Callable[[str], None],
    ) -> None:
        self.path, self.folder = path, path.with_suffix(".init")
        self.generators, self.oracles = [dict(section) for section in generators], list(oracles)
        self.backbone, self.names = backbone, dict(names or {})
        self.is_stand_in = model is None
        self.section: ComponentConfig
        self.written: Any  # the classifier, as the recipe says it
        if model is not None:
            self._test(model)
        self.minutes, self.quick, self.offline = minutes, quick, offline
        self.on_stage, self.on_note = on_stage, on_note
        self.source_config = _source_of(images)
        self.device = start_process()
        self.labels: Labels
        self._tested: dict[int, _Tested] = {}  # by size
        self.chosen_generator: Candidate
        self.chosen_oracle: panel.Judged

    def _test(self, model: AnyClassifier) -> None:
        """Take a network for the one that is tested."""
        self.section = classifier_section(model)
        self.written = model
        if not isinstance(model, str) or "{" in model:
            tree = self.section.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})
            self.written = {"kind": self.section.kind, **tree}

    def check_asked(self) -> None:
        """Raise UserError if the folder is that of other images.

        With other arguments for the same images what was trained stays, and what was made on trial goes.
        """
        arguments = {
            "source": self.source_config.model_dump(mode="json"),
            "model": None if self.is_stand_in else self.section.model_dump(mode="json"),
            "generators": self.generators,
            "oracles": self.oracles,
            "backbone": self.backbone,
            "names": self.names,
            "minutes": self.minutes,
            "quick": self.quick,
            "offline": self.offline,
        }
        file = self.folder / "asked.json"
        if file.is_file():
            earlier = read_json(file)
            if earlier["source"] != arguments["source"]:
                raise UserError(
                    f"{self.folder}: is of an init of other images; name another recipe with "
                    f"{option('output', 'output')}, or delete that folder"
                )
            if earlier != arguments:
                shutil.rmtree(self.folder / "trial", ignore_errors=True)
            if earlier["backbone"] != self.backbone:
                shutil.rmtree(self.folder / "probe", ignore_errors=True)
        write_atomically(file, json_text(arguments).encode())

    @contextmanager
    def stage(self, outcome: Init, name: str) -> Iterator[Callable[[float], None]]:
        """Time a stage; yields a function of the share of it that is done."""
        started = time.perf_counter()
        self.on_stage(name, 0, _PARTS_OF_STAGE)
        yield lambda share: self.on_stage(name, int(min(share, 0.99) * _PARTS_OF_STAGE), _PARTS_OF_STAGE)
        outcome.seconds[name] = round(time.perf_counter() - started, 1)
        self.on_stage(name, _PARTS_OF_STAGE, _PARTS_OF_STAGE)

    def look(self, outcome: Init) -> Look:
        """Look at the images, and deal them into parts."""
        with self.stage(outcome, "images") as done:
            source = build_source(self.source_config)
            if source.accepts_several:
                raise UserError(
                    "init: these images have several labels each, and init chooses for images of one; write a recipe "
                    "yourself, as `fmrgen recipes imagenet-resnet50` shows, with source.accepted"
                )
            looked = look(source, lambda count, total: done(count / (total or 1)))
            self.labels = looked.labels
            self._check_unchanged(looked)
            outcome.images = looked.lines()
            dealt = deal(looked)
            for part, photos in dealt.items():
                outcome.counts[part] = len(photos)
                if not (self.folder / part / "metadata.csv").is_file():
                    write_part(self.folder / part, photos, source)
            write_atomically(self.folder / "classes.txt", "\n".join(self.labels.names).encode())
        for line in outcome.images:
            self.on_note(line)
        missing = set(range(len(self.labels))) - {photo.label for photo in dealt["tested"]}
        if missing:
            first = self.labels.names[min(missing)]
            outcome.warnings.append(
                f"{len(missing)} of {len(self.labels)} classes have too few images to be tested, such as {first}"
            )
        return looked

    def _check_unchanged(self, looked: Look) -> None:
        """Raise UserError if the images are not those of an earlier run, which has dealt them."""
        key = fingerprint([[photo.digest, photo.label] for photo in looked.photos])
        file = self.folder / "photos.json"
        if file.is_file() and read_json(file)["key"] != key:
            raise UserError(
                f"{self.folder}: the images have changed since it was begun, and networks have learnt from some of "
                "them; delete that folder"
            )
        write_atomically(file, json_text({"key": key}).encode())

    def part(self, part: Part) -> dict[str, Any]:
        """Return the source of a part."""
        folder, classes = str(self.folder / part), str(self.folder / "classes.txt")
        return {"kind": "imagefolder", "path": folder, "classes": classes, "fit": self.source_config.fit}

    def loaded(self, part: Part, size: int, most: int) -> Iterator[LoadedExample]:
        """Yield the first examples of a part at a size; a part's order is that of a digest."""
        source = build_source(source_config_of(self.part(part), "init"))
        for example in source.load(0, min(most, len(source)), size):
            if isinstance(example, LoadedExample):
                yield example

    def load(self, part: Part, size: int, most: int) -> list[Example]:
        """Return the same, in the engine's form."""
        return [example.for_engine() for example in self.loaded(part, size, most)]

    def tested(self, size: int) -> "_Tested":
        """Return the tested network for images of a size, with what it says of some. Raises UserError."""
        if size not in self._tested:
            network = build_classifier(self.section, self.labels, size, self.device)
            examples = self.load("choose", size, _ASKED)
            answers = answers_to(network, torch.stack([example.image for example in examples]).to(self.device))
            labels = np.array([example.label for example in examples])
            self._tested[size] = _Tested(network, examples, labels, answers.cpu().numpy())
        return self._tested[size]

    def choose_size(self, outcome: Init, looked: Look) -> None:
        """Take the smallest size on which the tested network is about as good as on any."""
        most = max(_SIZES[0], 2 * looked.side)
        with self.stage(outcome, "size") as done:
            if self.is_stand_in:
                sizes = [size for size in _SIZES if size <= max(_SIZES[0], looked.side * 4 // 3)]
                outcome.size = min(sizes[-1], 64) if self.device.type == "cpu" else sizes[-1]
                return
            error: UserError | None = None
            for number, size in enumerate(_SIZES):
                done(number / len(_SIZES))
                if size > most and any(entry.accuracy is not None for entry in outcome.sizes):
                    break
                try:
                    outcome.sizes.append(SizeTried(size, proportion(self.tested(size).right)))
                except UserError as failure:
                    error = failure
                    outcome.sizes.append(SizeTried(size, None))
            taken = {entry.size: entry.accuracy.value for entry in outcome.sizes if entry.accuracy is not None}
            if not taken:
                raise error or UserError("init: the network could not be asked")
            outcome.size = min(size for size, value in taken.items() if value >= max(taken.values()) - _LOST_BY_SIZE)
            self._check_order(self.tested(outcome.size))
        if max(taken.values()) < 200 / len(self.labels) and len(self.labels) > 2:
            outcome.warnings.append(
                f"the network is right on {max(taken.values()):.0f} % of the images: are its classes in the order of "
                "the folders' names?"
            )
        if outcome.size > _LARGEST_ON_CPU and self.device.type == "cpu":
            outcome.warnings.append(
                f"the network needs images of {outcome.size} px, and this machine has no GPU: everything will be slow"
            )

    def _check_order(self, tested: "_Tested") -> None:
        """Raise UserError if the outputs of the tested network are in another order than the classes."""
        names, labels, answers = self.labels.names, tested.labels, tested.answers
        if outputs_in_another_order(labels, answers, len(names)):
            order = best_order(labels, answers, len(names))
            listed = ", ".join(names[label] for label in order.tolist()[:_MOST_NAMED])
            raise UserError(
                f"init: the network is right on {tested.right.mean():.0%} of the images, and on "
                f"{(order[answers] == labels).mean():.0%} if its outputs stand for {listed}"
                f"{', …' if len(names) > _MOST_NAMED else ''}; list its classes, in the order of its outputs, as "
                "class_names of its section"
            )

    def train(self, outcome: Init, looked: Look) -> None:
        """Train the members of the panel, a VQGAN, and a stand-in for a network that was not named."""
        if self.quick or outcome.counts["panel"] < _FEWEST_TO_TEACH:
            return
        recipes = self._training_recipes(outcome, looked)
        workers = 1
        if self.device.type == "cpu":
            workers = min(len(recipes), os.cpu_count() or 1)
        seconds = _OF_TRAINING * 60 * self.minutes
        whole = sum(panel.SHARES[name] for name in recipes)
        for name, recipe in recipes.items():
            file = self.folder / f"{name}.yaml"
            if file.is_file():
                trained_size = parse_yaml(file.read_text(encoding="utf-8"), str(file))["model"]["image_size"]
                if trained_size != outcome.size:
                    raise UserError(
                        f"{self.folder}: its networks were trained for images of {trained_size} px, and this network "
                        f"takes {outcome.size}; name another recipe with {option('output', 'output')}"
                    )
            else:
                own_seconds = seconds * workers * panel.SHARES[name] / whole
                recipe["schedule"]["steps"] = panel.steps_within(recipe, self.labels, own_seconds, self.device)
                write_atomically(file, to_yaml(recipe).encode())
        with self.stage(outcome, "training") as done:
            self._train_all(list(recipes), workers, done)

    def _training_recipes(self, outcome: Init, looked: Look) -> dict[str, dict[str, Any]]:
        parts = {"source": self.part("panel"), "test": self.part("choose")}
        images = torch.stack([example.image for example in self.load("panel", outcome.size, 500)])
        mean, std = images.mean((0, 2, 3)).tolist(), images.std((0, 2, 3)).clamp(min=0.05).tolist()
        names = list(panel.MEMBERS)
        if self.is_stand_in:
            names.append(panel.STAND_IN)
        recipes = {}
        for name in names:
            recipes[name] = panel.network_recipe(name, outcome.size, len(looked.labels), mean, std, parts)
        recipes["vqgan"] = panel.vqgan_recipe(outcome.size, SHIPPED, parts)
        return recipes

    def _train_all(self, all_names: Sequence[str], workers: int, done: Callable[[float], None]) -> None:
        """Run the trainings that are left, so many at once; each goes on from its last checkpoint."""
        waiting = deque(name for name in all_names if not self._is_trained(name))
        running: dict[str, subprocess.Popen[str]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    name = waiting.popleft()
                    running[name] = self._start_training(name)
                time.sleep(0.5)
                done(sum(map(self._share_trained, all_names)) / len(all_names))
                for name, process in list(running.items()):
                    if process.poll() is not None:
                        del running[name]
                        if process.returncode:
                            _, problem = process.communicate()
                            last_line = (problem.strip() or f"status {process.returncode}").splitlines()[-1]
                            raise UserError(f"init: the training of {name} failed: {last_line}")
        finally:
            for process in running.values():
                process.terminate()

    def _start_training(self, name: str) -> "subprocess.Popen[str]":
        arguments = [str(self.folder / f"{name}.yaml"), "-o", str(self.folder / name), "-q"]
        arguments += ["--log-file", str(self._log_of(name))]
        return subprocess.Popen(
            [sys.executable, "-m", "fmrgen", "train", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"} if self.device.type == "cpu" else None,
        )

    def _log_of(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _share_trained(self, name: str) -> float:
        """Return the share of a training's steps that are done, by the last line of its log."""
        if self._is_trained(name):
            return 1.0
        if not self._log_of(name).is_file():
            return 0.0
        share = 0.0
        for line in self._log_of(name).read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # the last may not be whole yet
                event = json.loads(line)
                if event["event"] == "progress":
                    share = event["step"] / event["steps"]
        return share

    def _is_trained(self, name: str) -> bool:
        return (self.folder / name / "training.json").is_file()

    def choose_generator(self, outcome: Init) -> None:
        """Try the generators that can be had, and take one."""
        if self.is_stand_in:
            if not self._is_trained(panel.STAND_IN):
                raise UserError(
                    f"init: {outcome.counts['panel']} images are too few to train a network in place of yours; name "
                    f"the one to test with {option('model', 'model=')}"
                )
            self._test(str(self.folder / panel.STAND_IN))
        before = self.tested(outcome.size).right
        own = self.folder / "vqgan" if self._is_trained("vqgan") else None
        all_candidates = candidates(outcome.size, own, self.generators, hub=not self.offline)
        if self.quick and not self.generators:
            all_candidates = [candidate for candidate in all_candidates if candidate.name == TRANSFORM]
        with self.stage(outcome, "generators") as done:
            for number, candidate in enumerate(all_candidates):
                size = int(candidate.section["image_size"])
                try:
                    tested = self.tested(size)
                except UserError:
                    why_not = f"the network does not take images of {size} px"
                    outcome.generators.append(replace(candidate, why_not=why_not))
                else:
                    outcome.generators.append(tried(candidate, tested.network, tested.examples, before, self.device))
                done((number + 1) / len(all_candidates))
        chosen = best(outcome.generators)
        outcome.generator, self.chosen_generator = chosen.name, chosen
        if not chosen.keeps_accuracy and chosen.lost is not None:
            outcome.warnings.append(
                f"reconstructions cost the network {chosen.lost.value:.1f} points of accuracy, which FMR will count as "
                "failures; name a better generator for such images"
            )

    def choose_oracle(self, outcome: Init) -> None:
        """Ask the oracles that can be had about images that none of them has seen, and take one."""
        sections = self._oracles_of_user()
        folders = {}
        for name in panel.MEMBERS:
            if self._is_trained(name):
                folders[name] = self.folder / name
        if folders:
            sections[PANEL] = panel.oracle_section(folders)
        with self.stage(outcome, "oracle") as done:
            of_probe = self._probe(outcome)
            if of_probe is not None:
                if folders:
                    sections[PANEL_AND_PROBE] = panel.oracle_section({**folders, "probe": of_probe})
                sections[PROBE] = panel.oracle_section({"probe": of_probe})
            if not sections:
                raise UserError(
                    f"init: nothing can judge these images: {outcome.counts['panel']} are too few to teach networks, "
                    f"or nothing may be trained; name a better network or a CLIP with {option('oracle', 'oracles=')}"
                )
            for number, (name, section) in enumerate(sections.items(), start=1):
                outcome.oracles.append(self._judged(name, section, outcome.size))
                done(number / len(sections))
        usable = [entry for entry in outcome.oracles if not entry.why_not]
        if not usable:
            raise UserError(f"init: {outcome.oracles[0].why_not}")
        chosen = panel.most_accurate(usable)
        outcome.oracle, self.chosen_oracle = chosen.name, chosen
        if chosen.share_kept < _FEW_KEPT or chosen.accuracy is None or chosen.accuracy.value < _FEW_KEPT:
            outcome.warnings.append(
                f"the oracle is right on {0 if chosen.accuracy is None else chosen.accuracy.value:.0f} % of the "
                f"originals and accepts {chosen.share_kept:.0f} %; figures are of such images alone. Name a better one "
                f"with {option('oracle', 'oracles=')}, or give it more images to learn from"
            )
        if chosen.doubted:
            outcome.warnings.append(
                f"the oracle is sure of another class in {len(chosen.doubted)} of the images that it was asked about; "
                "look at their labels (fmrgen diff --review)"
            )

    def _oracles_of_user(self) -> dict[str, Any]:
        """Return the sections of the oracles that the user names, and on a GPU that of one that reads class names."""
        called = names_for_prompts(self.labels.names, self.names)
        silent = nameless(self.labels.names, called)
        texts = list(self.oracles)
        if self.device.type != "cpu" and not self.offline and not silent:
            texts.append(_ZERO_SHOT)
        sections = {}
        for text in texts:
            name, config = parse_oracle(text)
            tree = config.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})
            if getattr(config, "is_image_text", False):
                if silent:
                    self.on_note(
                        f"the name of the class {silent[0]} says nothing to {name}; give names by "
                        f"{option('names', 'names=')}"
                    )
                if called and not tree.get("class_prompts"):
                    tree["class_prompts"] = called
            sections[name] = {"kind": config.kind, **tree}
        return sections

    def _probe(self, outcome: Init) -> Path | None:
        """Train a linear probe, if there is a backbone and there are images to learn from; return its folder."""
        if self.quick or (self.backbone is None and self.offline) or outcome.counts["panel"] < probe.FEWEST:
            return None
        folder = self.folder / "probe"
        if probe.is_trained(folder):
            return folder
        backbone = self.backbone or (probe.ON_CPU if self.device.type == "cpu" else probe.ON_GPU)
        examples = (example.for_engine() for example in self.loaded("panel", outcome.size, _TAUGHT))
        seconds = _OF_PROBE * 60 * self.minutes
        try:
            config = parse_classifier(backbone)[1]
            probe.train_probe(folder, config, self.labels, examples, outcome.size, self.device, seconds)
        except UserError as error:
            if self.backbone is not None:
                raise
            outcome.oracles.append(panel.Judged(PROBE, {}, why_not=str(error)))
            return None
        return folder

    def _judged(self, name: str, section: dict[str, Any], size: int) -> panel.Judged:
        try:
            oracle = build_oracle(oracle_config_of(section, name), self.labels, size, self.device)
            return panel.judged(name, section, oracle, self.load("choose", size, _JUDGED), self.device)
        except UserError as error:
            return panel.Judged(name, section, why_not=str(error))

    def recipe(self, outcome: Init, part: Part) -> dict[str, Any]:
        """Return the recipe, of what was chosen so far, for the images of a part."""
        return {
            "source": self.part(part),
            "classifier": self.written,
            "generator": self.chosen_generator.section,
            "oracle": self.chosen_oracle.section,
            "perturb": {
                "step_size": outcome.step_size or _STEP,
                "keep": "first",
                "min_probability": self.chosen_oracle.threshold,
            },
            "output": {"config": "photos", "split": "model", "shard_size": 50},
        }

    def choose_step(self, outcome: Init) -> None:
        """Take the step that a pilot proposes, and its warnings."""
        seconds = _OF_STEP * 60 * self.minutes
        with self.stage(outcome, "step size") as done:
            recipe = validate(Recipe, self.recipe(outcome, "choose") | {"classifier": self.section}, "init")
            started = time.monotonic()
            inspection = inspect(
                recipe,
                images=_INSPECTED,
                seconds=max(30.0, seconds),
                on_passes=lambda passes, most: done((time.monotonic() - started) / seconds),
            )
            outcome.inspection = inspection
        chosen = _step_of(inspection)
        outcome.step_size, outcome.at_step = chosen.step_size, str(chosen)
        passes = inspection.seconds_per_pass * (2 + chosen.mean_iterations)
        affordable = int(_OF_DIFF * 60 * self.minutes / (_ROWS_OF_DIFF * max(passes, 1e-6)))
        outcome.limit = min(outcome.counts["tested"], max(_FEWEST_TESTED, affordable // 50 * 50))
        for warning in inspection.warnings:
            if not warning.startswith("with perturb.step_size"):
                outcome.warnings.append(warning)

    def ask_readers(self, outcome: Init) -> None:
        """Perturb some images, and let a reader who has no part in it name them."""
        with self.stage(outcome, "trial") as done:
            tree = self.recipe(outcome, "choose")
            tree["source"]["limit"] = min(_PILOT, outcome.counts["choose"])
            recipe = validate(Recipe, tree | {"classifier": self.section}, "init")

            def report(progress: Progress) -> None:
                done(progress.done / progress.total)

            outcome.summary = make_split(recipe, self.folder / "trial", on_progress=report)
            outcome.trust, outcome.pairs = trust_in(
                f"{self.folder / 'trial'}:photos/model", self.loaded("panel", outcome.size, _TAUGHT), self.labels
            )

    def write(self, outcome: Init) -> None:
        """Write the recipe, each choice with its reason beside it."""
        tree = self.recipe(outcome, "tested")
        tree["source"]["limit"] = outcome.limit
        outcome.recipe = validate(Recipe, tree | {"classifier": self.section}, "init")
        write_atomically(self.path, recipe_text(outcome, tree).encode())


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


def _step_of(inspection: Inspection) -> Trial:
    """Return the longest step that was tried of those that take 5 or more on average and keep rows valid.

    The pilot's proposal takes 10 or more, for images that go on after they fool.
    """
    lost = max(_VALID_LOST, 1.5 / inspection.images)  # of few images one may be lost
    least_valid = max(trial.valid for trial in inspection.trials) - lost
    fitting = []
    for trial in inspection.trials:
        if trial.mean_iterations >= _FEWEST_STEPS and trial.valid >= least_valid:
            fitting.append(trial)
    if not fitting:
        return inspection.proposed or inspection.own
    return max(fitting, key=lambda trial: trial.step_size)
