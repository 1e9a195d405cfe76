"""All that a GPU is asked to do, on a device that is not the CPU: no tensor is on the wrong one, few cross, and the images
are the CPU's to the bit."""

import shutil
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from elsewhere import ELSEWHERE, elsewhere, traffic
from fakes import by_id, examples
from families import FAMILIES
from installed import needs_app
from safetensors.torch import save_file
from small_models import LABELS, SIZE, smooth_images, tiny_network
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

import fmrgen
from fmrgen import evaluate
from fmrgen.classifiers.base import Classifier, Normalize
from fmrgen.distributed.launch import Processes
from fmrgen.engine.options import PerturbOptions
from fmrgen.engine.perturb import perturb
from fmrgen.oracles.classifier import ClassifierOracle
from fmrgen.recipe.job import parse_classifier
from fmrgen.weights.checkpoint import freeze

COUNT, BUDGET, SLOTS = 5, 4, 3


class Crossed(NamedTuple):
    """How many tensors have come from the device, how many have gone to it, and how many rows have ended."""

    come: int
    gone: int
    rows: int


# One of each family of networks.
LARGE = ("adm", "iddpm", "stylegan-xl")
KINDS = ("vqgan", "KL", "Tiny", "transform", "ddpm", "consistency", "one step", "vdvae", *LARGE)


VIT = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def timm(model, **arguments):
    section = {"kind": "timm", "model": model, "pretrained": False, "data_config": {"input_size": [3, 32, 32]}}
    return section | {"model_args": {"num_classes": LABELS, **arguments}}


def of_transformers(folder):
    labels = {number: str(number) for number in range(LABELS)}
    ViTForImageClassification(ViTConfig(**VIT, intermediate_size=32, id2label=labels)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return {"kind": "transformers", "model": str(folder)}


CLASSIFIERS = {
    "resnet": lambda folder: timm("resnet18"),
    "vit": lambda folder: timm("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2),
    "clip": lambda folder: {
        "kind": "oracle",
        "oracle": {"kind": "clip", "model": "asset:mnist/clip"},
        "class_names": [str(number) for number in range(LABELS)],
    },
    "transformers": of_transformers,
    "cifar": lambda folder: {"kind": "cifar", "model": "mobilenet", "num_classes": LABELS},
}


def run(config, device, section, **options):
    """The rows by id, and what had crossed by each pass; with the classifier of `section`, where one is given."""
    if section is None:
        network = Classifier(tiny_network(1), Normalize([0.4] * 3, [0.3] * 3, SIZE), None, "rgb")
        classifier = freeze(network, device)
    else:
        torch.manual_seed(0)
        classifier = parse_classifier(f"it={section}")[1].build(device)
    oracle = ClassifierOracle(freeze(tiny_network(2), device))
    given = examples(smooth_images(COUNT), [number % LABELS for number in range(COUNT)])
    settings = PerturbOptions(budget=BUDGET, step_size=0.05, slots=SLOTS, **options)
    passes, rows = [], []

    def on_pass(active):
        passes.append(Crossed(traffic["from"], traffic["to"], len(rows)))

    for row in perturb(given, classifier, config.build(device), oracle, settings, device=device, on_pass=on_pass):
        rows.append(row)
    return by_id(rows), passes


def run_there(config, section=None, **options):
    """What had crossed by each pass on the other device, which makes the CPU's rows.

    Attention has another kernel there, so a pixel may be another by one level of 255.
    """
    expected, _ = run(config, torch.device("cpu"), section, **options)
    with elsewhere() as device:
        found, passes = run(config, device, section, **options)
    assert found.keys() == expected.keys()
    for i, row in found.items():
        assert (row.image.int() - expected[i].image.int()).abs().max() <= 1, i
        ends = [(it.valid, it.iterations, it.stop_reason, it.step_predictions) for it in (row, expected[i])]
        assert ends[0] == ends[1]
    assert traffic["float64"] == 0
    return passes


def in_quiet_passes(passes):
    """What crossed in each pass after which no row ended, so that no new one was encoded: from the device, and to it."""
    return {
        (after.come - before.come, after.gone - before.gone)
        for before, after in pairwise(passes)
        if before.rows == after.rows
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=pytest.mark.nightly if family in LARGE else []) for family in KINDS]
)
def test_every_generator(family, tmp_path):
    assert in_quiet_passes(run_there(FAMILIES[family](tmp_path))) == {(1, 0)}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier(name, tmp_path):
    passes = run_there(FAMILIES["transform"](tmp_path), CLASSIFIERS[name](tmp_path / "classifier"))
    brought = 2 if name == "transformers" else 0  # mean and deviation, by its library; nothing waits
    assert in_quiet_passes(passes) == {(1, brought)}


@pytest.mark.parametrize(
    "options",
    [
        {"update": "l2"},
        {"update": "adam"},
        {"update": "random"},
        {"update": "nes", "queries": 4},
        {"reencode": True},
        {"start_noise": 0.01},
        {"objective": "targeted"},
        {"keep": "first"},
        {"start": "pgd"},
    ],
    ids=lambda options: " ".join(map(str, next(iter(options.items())))),
)
def test_every_way_to_move(options, tmp_path):
    run_there(FAMILIES["KL"](tmp_path), **options)


@pytest.fixture
def device_of_jobs(monkeypatch):
    """Whatever comes together on a device does so on the other one."""
    begin = Processes.__init__

    def there(self):
        begin(self)
        self.device = ELSEWHERE

    monkeypatch.setattr(Processes, "__init__", there)


@pytest.mark.slow
def test_an_evaluation(finished_split, device_of_jobs, monkeypatch, tmp_path):
    lenet = "asset:mnist/lenet"
    with monkeypatch.context() as here:
        here.undo()
        expected = evaluate(finished_split, {"lenet": lenet}, progress=False, store=tmp_path / "one")
    with elsewhere():
        found = evaluate(finished_split, {"lenet": lenet}, progress=False, store=tmp_path / "other")
    assert found.results[0].total == expected.results[0].total
    assert traffic["float64"] == 0
    assert traffic["from"] > 0


@pytest.mark.slow
@needs_app("judging")
def test_a_judge(finished_split, device_of_jobs, tmp_path):
    shutil.copytree(finished_split, tmp_path / "split")
    with elsewhere():
        found = fmrgen.judge(str(tmp_path / "split"), "asset:mnist/clip", progress=False)
    assert traffic["float64"] == 0
    assert found


@pytest.mark.slow
@needs_app("training")
def test_a_training(device_of_jobs, tmp_path, monkeypatch):
    def saved(state, path):  # safetensors asks for addresses, which only real devices have
        return save_file({name: values.cpu() for name, values in state.items()}, path)

    monkeypatch.setattr("fmrgen.apps.training.objectives.classifier.save_file", saved)
    recipe = fmrgen.load_train_recipe(
        "train/mnist-lenet", ["schedule.steps=3", "schedule.batch_size=8", "source.limit=64", "test.limit=16"]
    )
    with elsewhere():
        metrics = fmrgen.train(recipe, tmp_path / "there")
    assert traffic["float64"] == 0
    expected = fmrgen.train(recipe, tmp_path / "here")
    assert metrics == pytest.approx(expected)
