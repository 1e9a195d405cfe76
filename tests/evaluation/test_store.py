"""Answers are kept by all that decides them: nothing is asked twice, and nothing stale is ever taken."""

import gc
import importlib
import io
import json
import os
import signal
import sys
import weakref
from contextlib import nullcontext
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import warm
from commands import fmrgen, launched, run, wait_for
from datasets import Dataset
from object_store import object_store
from places import SUPPORT
from torch import nn

from fmrgen import UserError, evaluate
from fmrgen.evaluation.predictor import SCHEMA
from fmrgen.recipe.job import parse_classifier
from fmrgen.storage.predictions import PredictionStore

DIGITS = [str(digit) for digit in range(10)]
ROWS = 120


class Net(nn.Module):
    """Ten classes from the means of a grid; counts the images that it is asked about."""

    alive: ClassVar = weakref.WeakSet()

    def __init__(self, seed=0, mean=0.5, crop=0, dtype=torch.float32, finish=torch.Tensor.float):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10)).to(dtype)
        self.prepare = lambda images: images[:, :, crop:, crop:].to(dtype) - mean  # nothing that a digest sees
        self.finish, self.class_names, self.asked = finish, DIGITS, 0
        Net.alive.add(self)

    def forward(self, images):
        self.asked += len(images)
        return self.finish(self.layers(self.prepare(images)))


class Broken(Net):
    def forward(self, images):
        if len(images) > 8:
            raise RuntimeError("no such layer")
        return super().forward(images)


def answers(evaluation):
    return evaluation.predictions.select(["classifier", "id", "prediction", "original_prediction"]).to_pylist()


def asked_of_rows(net):
    """Without the images by which it is proved to fit, and by which stored answers are."""
    return net.asked >= ROWS


def test_what_was_said_is_not_asked_again(finished_split, tmp_path):
    first, second, other = Net(), Net(), Net(seed=1)
    one = evaluate(str(finished_split), {"a": first}, store=tmp_path, progress=False)
    assert first.asked >= 2 * ROWS  # images and originals
    two = evaluate(str(finished_split), {"b": second, "c": other}, store=tmp_path, progress=False)
    assert second.asked < ROWS  # the images by which it is recognised
    assert asked_of_rows(other)
    assert one.result(one.splits[0].name, "a").total == two.result(two.splits[0].name, "b").total
    plain = evaluate(str(finished_split), {"b": Net(), "c": Net(seed=1)}, store=tmp_path / "new", progress=False)
    assert answers(plain) == answers(two)


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"mean": 0.52}, {"crop": 1}, {"dtype": torch.float64}],
    ids=["weights", "mean", "crop", "dtype"],
)
def test_another_network_is_asked_itself(finished_split, tmp_path, changed):
    evaluate(str(finished_split), {"net": Net()}, store=tmp_path, progress=False)
    net = Net(**changed)
    found = evaluate(str(finished_split), {"net": net}, store=tmp_path, progress=False)
    assert asked_of_rows(net)
    assert answers(found) == answers(evaluate(str(finished_split), {"net": Net(**changed)}, store=tmp_path / "new"))


def test_other_images_or_labels_are_asked_about(finished_split, tmp_path):
    rows = Dataset.from_parquet(str(finished_split / "mnist/lenet-*.parquet"))
    columns = {name: rows[name] for name in ("image", "label", "original", "id", "valid")}
    features = rows.select_columns(list(columns)).features

    def asked(**other):
        net = Net()
        evaluate(Dataset.from_dict(columns | other, features=features), {"net": net}, store=tmp_path, progress=False)
        return asked_of_rows(net)

    assert asked()
    assert not asked()
    images = list(columns["image"])
    images[70] = images[71]
    assert asked(image=images)
    assert asked(label=[(label + 1) % 10 for label in columns["label"]])
    assert not asked(valid=[True] * ROWS)  # which no answer depends on


def test_another_function_that_the_network_calls_is_another_network(finished_split, tmp_path, monkeypatch):
    """A fix that touches one image in ten shows neither in the first image nor in noise."""
    lines = [
        "import test_store",
        "from store_rules import fix",
        "class Ruled(test_store.Net):",
        "    def forward(self, images): return fix(super().forward(images), images)",
    ]
    (tmp_path / "store_net.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    section = {"kind": "module", "target": "store_net:Ruled"}

    def evaluated(rule, store):
        (tmp_path / "store_rules.py").write_text(f"def fix(logits, images):\n    {rule}\n    return logits\n")
        importlib.invalidate_caches()
        for name in ("store_net", "store_rules"):
            sys.modules.pop(name, None)
        return answers(evaluate(str(finished_split), {"net": section}, store=tmp_path / store, progress=False))

    evaluated("pass", "store")
    rule = "thin = images.mean((1, 2, 3)) < 0.05; logits[thin] = logits[thin].roll(1, 1)"
    changed = evaluated(rule, "store")
    assert changed == evaluated(rule, "new")
    assert changed != evaluated("pass", "store")


def test_answers_of_what_cannot_be_hashed_are_not_kept(finished_split, tmp_path, caplog):
    net = Net()
    net.numbers = (number for number in range(3))
    evaluate(str(finished_split), {"net": net}, store=tmp_path / "store", progress=False)
    assert not list((tmp_path / "store").glob("*"))
    assert caplog.text.count("classifier net: can't be hashed (cannot pickle 'generator' object)") == 1


def test_a_flipped_bit_is_seen(finished_split, tmp_path):
    evaluate(str(finished_split), {"net": Net()}, store=tmp_path, progress=False)
    store, path = PredictionStore(tmp_path), next(tmp_path.glob("*.predictions"))
    content = path.read_bytes()
    assert store.get(path.stem, SCHEMA, ROWS) is not None
    for place in np.random.default_rng(0).choice(len(content), 300, replace=False):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert store.get(path.stem, SCHEMA, ROWS) is None


def test_the_stored_columns_are_those_of_the_logits(finished_split, tmp_path):
    net = Net()
    evaluate(str(finished_split), {"net": net}, store=tmp_path, progress=False)
    rows = Dataset.from_parquet(str(finished_split / "mnist/lenet-*.parquet"))
    images = torch.stack([torch.from_numpy(np.asarray(image.convert("RGB")).copy()) for image in rows["image"]])
    logits, labels = net(images.permute(0, 3, 1, 2) / 255).detach(), torch.tensor(rows["label"])
    tables = [pq.read_table(io.BytesIO(path.read_bytes()[32:])) for path in tmp_path.glob("*.predictions")]
    (table,) = [table for table in tables if table["prediction"].to_pylist() == logits.argmax(1).tolist()]
    assert np.allclose(table["confidence"].to_numpy(), logits.softmax(1).amax(1), atol=1e-6)
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    assert np.allclose(table["margin"].to_numpy(), logits[torch.arange(ROWS), labels] - others, atol=1e-5)


def test_one_classifier_is_in_memory_at_a_time(finished_split, tmp_path, monkeypatch):
    gc.collect()
    before, most = len(Net.alive), 0

    def count(name, done, rows):
        nonlocal most
        most = max(most, len(Net.alive) - before)

    sections = {str(seed): {"kind": "module", "target": "test_store:Net", "args": {"seed": seed}} for seed in range(5)}
    monkeypatch.setattr("fmrgen.jobs.evaluate.report", count)
    found = evaluate(str(finished_split), sections, store=tmp_path)
    assert len(found.results) == 5
    assert most <= 2  # the next one may be built before the last one's cycles are collected


@pytest.mark.slow
def test_one_that_fails_is_left_out(finished_split, tmp_path, capsys):
    split = str(finished_split)
    found = evaluate(split, {"good": Net(), "bad": Broken(), "also": Net(seed=1)}, store=tmp_path, progress=False)
    assert [one.name for one in found.classifiers] == ["good", "also"]
    (failed,) = found.failed
    assert failed.name == "bad"
    assert "no such layer" in failed.why
    assert json.loads(found.to_json())["failed"][0]["name"] == "bad"
    with pytest.raises(UserError, match="no such layer"):
        evaluate(split, {"bad": Broken(), "worse": Broken()}, store=tmp_path, progress=False)
    command = ("evaluate", finished_split, "-c", "lenet=asset:mnist/lenet", "-c", "bad={kind: lenet, num_classes: 7}")
    assert run(*command, "-o", tmp_path / "report", "--store", tmp_path) == 1
    told = capsys.readouterr()
    assert "bad is left out: classifier bad" in told.err
    assert "bad is left out" in (tmp_path / "report/evaluation.md").read_text()


def test_images_that_fit_nowhere_are_decoded_anew(finished_split, tmp_path, monkeypatch):
    kept = evaluate(str(finished_split), {"a": Net(), "b": Net(seed=1)}, store=tmp_path / "one", progress=False)
    monkeypatch.setattr("fmrgen.evaluation.images._SHARE_OF_DISK", 0.0)
    anew = evaluate(str(finished_split), {"a": Net(), "b": Net(seed=1)}, store=tmp_path / "two", progress=False)
    assert answers(kept) == answers(anew)


@pytest.mark.slow
def test_a_killed_evaluation_loses_the_classifier_at_work_at_most(finished_split, tmp_path):
    slow = "slow={kind: module, target: 'slow_networks:Slow'}"
    (tmp_path / "slow_networks.py").write_text(
        "import time\nfrom outside_components import SmallNet\n"
        "class Slow(SmallNet):\n"
        "    def forward(self, images):\n"
        "        time.sleep(0.0 if len(images) < 8 else 60)\n"
        "        return super().forward(images)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{SUPPORT}{os.pathsep}{tmp_path}"}
    options = ["-o", str(tmp_path / "report"), "--store", str(tmp_path / "kept"), "-q"]
    command = ["-m", "fmrgen", "evaluate", finished_split, *options]
    fast = "asset:mnist/lenet"
    job = warm.Process([*command, "-c", f"fast={fast}", "-c", slow], environment)
    wait_for(lambda: len(list((tmp_path / "kept").glob("*.predictions"))) == 2)
    job.send_signal(signal.SIGKILL)
    job.wait()
    files = {path: path.stat().st_ino for path in (tmp_path / "kept").glob("*.predictions")}
    assert len(files) == 2
    done = fmrgen("evaluate", finished_split, *options, "-c", f"fast={fast}", "-c", "other={kind: lenet}")
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_ino for path in files} == files  # taken, and not written again
    assert len(list((tmp_path / "kept").glob("*.predictions"))) == 4


@pytest.mark.slow
@pytest.mark.parametrize(("models", "processes"), [(2, 3), (3, 2)])
def test_processes_share_classifiers_or_their_batches(finished_split, tmp_path, models, processes):
    """Of 16 images each: 7 batches and a half."""
    small = "{kind: outside_components:SmallNetConfig, width: %d}"
    chosen = ["n0=asset:mnist/lenet", f"n1={small % 8}", f"n2={small % 16}"][:models]
    named = [part for one in chosen for part in ("-c", one)]
    for folder, count in (("one", 1), ("several", processes)):
        options = ("-q", "-o", tmp_path / folder, "--store", tmp_path / f"kept {folder}", "--batch-size", 16)
        first, *others = launched(count, "evaluate", finished_split, *named, *options, PYTHONPATH=str(SUPPORT))
        for done in (first, *others):
            assert done.returncode == 0, done.stderr
        assert first.stdout.splitlines()[-1] == f"{tmp_path / folder / 'report.html'}"  # the first process alone prints
        assert not any(other.stdout for other in others)
    for name in ("evaluation.json", "predictions.parquet", "report.html", "evaluation.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "several" / name).read_bytes()
    assert len(list((tmp_path / "kept several").iterdir())) == 2 * models


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_store_that_can_not_be_written_is_told(finished_split, kind, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    with object_store() if kind == "bucket" else nullcontext() as store:
        for name, value in (store.environment if store else {}).items():
            monkeypatch.setenv(name, value)
        place = "s3://nowhere/kept" if store else tmp_path / "file"
        found = evaluate(str(finished_split), {"net": Net()}, store=place, progress=False)
    assert len(found.results) == 1
    assert ("there is no such bucket; make it first; " if store else "") + "predictions are not kept" in caplog.text


def test_the_oldest_go_where_the_store_is_full(finished_split, tmp_path, monkeypatch):
    monkeypatch.setenv("FMRGEN_CACHE", str(tmp_path))
    evaluate(str(finished_split), {"first": Net()}, progress=False)
    kept = tmp_path / "predictions"
    first = set(kept.iterdir())
    for path in first:
        os.utime(path, (1, 1))
    size = sum(path.stat().st_size for path in first)
    (kept / "mine.parquet").write_bytes(b"not an answer")
    monkeypatch.setattr("fmrgen.storage.predictions._LARGEST", int(1.5 * size))
    evaluate(str(finished_split), {"second": Net(seed=1)}, progress=False)
    assert len({*kept.glob("*.predictions")} - first) == 2
    assert sum(path.stat().st_size for path in kept.glob("*.predictions")) <= 1.5 * size
    assert (kept / "mine.parquet").exists()


def leave_a_class_out(logits):
    return logits.index_fill(1, torch.tensor([9]), -torch.inf)


@pytest.mark.parametrize(("mean", "is_asked"), [(0.5, False), (0.51, True)])
def test_an_infinite_logit_hides_no_change(finished_split, tmp_path, mean, is_asked):
    evaluate(str(finished_split), {"net": Net(finish=leave_a_class_out)}, store=tmp_path, progress=False)
    net = Net(mean=mean, finish=leave_a_class_out)
    evaluate(str(finished_split), {"net": net}, store=tmp_path, progress=False)
    assert asked_of_rows(net) == is_asked


class Learns(Net):
    """Its weights change as it is asked."""

    def forward(self, images):
        if len(images) > 8:
            self.layers[2].bias.data += 0.1
        return super().forward(images)


def test_nothing_is_kept_of_one_that_changes(finished_split, tmp_path):
    for _ in range(2):
        with pytest.raises(UserError, match="its weights changed during the run"):
            evaluate(str(finished_split), {"net": Learns()}, store=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


class Turned(Net):
    """LeNet with its outputs in another order, which it does not name."""

    def __init__(self):
        super().__init__()
        self.lenet = parse_classifier("asset:mnist/lenet")[1].build()
        self.class_names = None

    def forward(self, images):
        return self.lenet(images)[:, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]]


def test_one_in_another_order_ends_nothing_and_whole_numbers_are_logits(finished_split, tmp_path):
    nets = {"counts": Net(finish=lambda logits: (100 * logits).long()), "turned": Turned()}
    found = evaluate(str(finished_split), nets, store=tmp_path, progress=False)
    assert [one.name for one in found.classifiers] == ["counts"]
    assert "put in another order" in found.failed[0].why
