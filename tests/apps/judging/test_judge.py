"""Other judges' verdicts on stored images: true of them, resumable, the same on any number of processes, and on the Hub."""

import hashlib
import html
import json
import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import warm
from commands import fmrgen, launched, python, run, upload
from datasets import load_dataset
from stored import rows

import fmrgen as package
from fmrgen import UserError
from fmrgen.oracles.clip import Config as ClipConfig
from fmrgen.report.console import print_report
from fmrgen.report.markdown import to_markdown
from fmrgen.report.outline import evaluation_report
from fmrgen.split.judgements import JudgementsFolder, check_of_split, to_parquet
from fmrgen.storage.paths import SplitPaths

CLIP = "asset:mnist/clip"
LENET = "{kind: classifier, classifier: 'asset:mnist/lenet'}"
ORACLES = ("--oracle", f"clip={CLIP}", "--oracle", f"lenet={LENET}")


def judgements(folder, judge):
    """The table of a judge of mnist/lenet, checked, as rows."""
    paths = SplitPaths(Path(folder), "mnist", "lenet")
    return (
        JudgementsFolder(paths).read(JudgementsFolder(paths).judges()[judge]).table.drop_columns(["when"]).to_pylist()
    )


@pytest.fixture(scope="module")
def judged(finished_split, tmp_path_factory):
    """The finished split, judged by a CLIP and by a LeNet."""
    folder = tmp_path_factory.mktemp("judged") / "out"
    shutil.copytree(finished_split, folder)
    os.environ["FMRGEN_CACHE"] = str(folder.parent / "cache")
    assert run("judge", folder, *ORACLES, "--quiet") == 0
    return folder


def test_verdicts_are_those_of_the_oracle_on_the_stored_images(judged):
    stored = rows(judged)
    oracle = ClipConfig(model=CLIP).build()
    oracle.set_labels(package.Labels(tuple(map(str, range(10)))))
    for verdict in judgements(judged, "clip"):
        row = stored[verdict["id"]]
        assert verdict["image_sha256"] == hashlib.sha256(row[verdict["which"]]["bytes"]).hexdigest()
        if verdict["which"] == "image":  # the split's own oracle is this very CLIP
            assert verdict["label"] == row["oracle_label"]
            assert verdict["probability"] == pytest.approx(row["oracle_probability"], abs=1e-4)
            assert verdict["score"] == pytest.approx(row["clip_score"], abs=1e-4)
        else:
            assert verdict["label"] == row["original_oracle_label"]
    said = {(v["id"], v["which"]): v["label"] for v in judgements(judged, "lenet")}
    assert len(said) == 240
    assert all(said[i, "image"] == row["prediction"] for i, row in stored.items())
    assert all(said[i, "original"] == row["original_prediction"] for i, row in stored.items())


def test_what_it_prints_and_what_the_card_says(judged, capsys):
    assert run("judge", judged, *ORACLES[2:]) == 0
    told = capsys.readouterr().out
    stored = rows(judged).values()
    valid = [row for row in stored if row["valid"]]
    share = 100 * np.mean([row["prediction"] == row["label"] for row in valid])
    assert f"{share:.2f}" in told
    assert "judgements/mnist/lenet/lenet.parquet" in told
    card = (judged / "README.md").read_text()
    assert "| clip | oracle | 240 |" in card
    found = load_dataset(str(judged), "mnist.judgements", split="lenet")
    assert sorted(set(found["judge"])) == ["clip", "lenet"]
    assert len(found) == 480
    assert len(load_dataset(str(judged), "mnist", split="lenet")) == 120


@pytest.mark.slow
def test_a_judge_that_is_no_second_opinion_is_told_beside_its_figures(finished_split, tmp_path, capsys):
    """The split's own oracle, the classifier that is measured, and panels of either."""
    folder = tmp_path / "out"
    shutil.copytree(finished_split, folder)
    panel = f"{{kind: ensemble, oracles: [{{kind: clip, model: '{CLIP}'}}, {LENET}]}}"
    other = "{kind: classifier, classifier: {kind: lenet}}"
    assert run("judge", folder, *ORACLES, "--oracle", f"panel={panel}", "--oracle", f"other={other}", "--quiet") == 0
    told = capsys.readouterr().err
    alike = {
        "clip": "clip shares its weights with the split's own oracle: its figures are no second opinion",
        "lenet": "lenet shares its weights with the classifier that the split was generated against: its figures are no second",
        "panel": "panel shares its weights with the split's own oracle and the classifier that the split was generated against: ",
    }
    assert all(f"warning: {line}" in told for line in alike.values())
    assert "other shares" not in told
    found = package.evaluate(str(folder), {"mine": "asset:mnist/lenet", "untrained": "{kind: lenet}"}, progress=False)
    of = {judge.judge: judge.shares_weights_with for judge in found.splits[0].judges}
    own = ["the split's own oracle"]
    assert of == {"clip": own, "lenet": ["the classifier mine"], "panel": [*own, "the classifier mine"], "other": []}
    package.write_report(found, tmp_path / "report")
    print_report(evaluation_report(found))
    for text in (
        (tmp_path / "report/report.html").read_text(),
        to_markdown(evaluation_report(found)),
        capsys.readouterr().out,
    ):
        text = html.unescape(" ".join(text.split()))
        assert text.count("clip ‡") >= 2  # beside its agreement, and above FMR under it
        assert "‡ clip shares its weights with the split's own oracle: its figures are no second opinion" in text
        assert "‡ lenet shares its weights with the classifier mine: its figures are no second opinion" in text
        assert "other ‡" not in text


def test_two_processes_say_the_same(judged, finished_split, tmp_path):
    shutil.copytree(finished_split, tmp_path / "out")
    command = ("judge", tmp_path / "out", *ORACLES, "--batch-size", "16", "--quiet")
    for done in launched(2, *command, FMRGEN_CACHE=str(tmp_path / "cache")):
        assert done.returncode == 0, done.stderr
    for judge in ("clip", "lenet"):
        alone, together = judgements(judged, judge), judgements(tmp_path / "out", judge)
        key = {(v["id"], v["which"]): v for v in together}
        assert len(key) == len(together) == len(alone)
        for verdict in alone:
            other = key[verdict["id"], verdict["which"]]
            floats = {name: verdict.pop(name) for name in ("probability", "score")}
            assert {name: other.pop(name) for name in floats} == pytest.approx(floats, abs=1e-4)
            assert other == verdict


@pytest.mark.slow
def test_what_is_judged_is_not_judged_again_after_a_kill(finished_split, tmp_path):
    shutil.copytree(finished_split, tmp_path / "out")
    cache = tmp_path / "cache"
    command = ["judge", tmp_path / "out", *ORACLES[:2], "--batch-size", "2", "--quiet"]
    job = warm.Process(["-m", "fmrgen", *command], {**os.environ, "FMRGEN_CACHE": str(cache)})
    deadline = time.monotonic() + 120
    while len(parts := list(cache.glob("judgements/*/*.parquet"))) < 5:
        assert time.monotonic() < deadline
        assert job.poll() is None, job.communicate()
        time.sleep(0.01)
    job.send_signal(signal.SIGKILL)
    job.wait()
    parts = list(cache.glob("judgements/*/*.parquet"))
    assert 5 <= len(parts) < 60
    assert not (tmp_path / "out/judgements").exists()
    for part in parts[:1]:  # what was judged counts: a mark in it comes out at the end
        table = pq.read_table(part)
        marked = table.set_column(table.schema.get_field_index("when"), "when", pa.array(["marked"] * len(table)))
        part.write_bytes(to_parquet(marked))
    assert fmrgen(*command, FMRGEN_CACHE=str(cache)).returncode == 0
    paths = SplitPaths(tmp_path / "out", "mnist", "lenet")
    table = JudgementsFolder(paths).read(JudgementsFolder(paths).judges()["clip"]).table
    assert table["when"].to_pylist().count("marked") == 4
    assert len(table) == 240
    assert not list(cache.glob("judgements/*/*.parquet"))


def read_back(hub, script):
    return json.loads(python(hub, script))


@pytest.mark.slow
def test_on_the_hub_they_are_beside_the_split(judged, hub, tmp_path, finished_split):
    upload(hub, finished_split, "someone/digits")
    cache = {"FMRGEN_CACHE": str(tmp_path / "cache")}
    done = fmrgen("judge", "someone/digits", *ORACLES[:2], **hub.environment, **cache)
    assert done.returncode == 0, done.stderr
    assert "someone/digits" in done.stdout
    script = (
        "import json; from datasets import load_dataset;"
        "found = load_dataset('someone/digits', 'mnist.judgements', split='lenet');"
        "print(json.dumps([list(found[name]) for name in ('judge', 'id', 'which', 'label')]))"
    )
    assert read_back(hub, script)[1:] == [
        [v[name] for v in judgements(judged, "clip")] for name in ("id", "which", "label")
    ]

    other = fmrgen("judge", "someone/digits", "--oracle", f"clip={LENET}", **hub.environment, **cache)
    assert other.returncode == 2
    assert other.stderr.strip().endswith(
        "someone/digits: already holds judgements of another clip on mnist/lenet; give yours another name, NAME=…"
    )
    pushed = fmrgen("push", judged, "someone/digits", "--public", **hub.environment)
    assert pushed.returncode == 0, pushed.stderr
    assert set(read_back(hub, script)[0]) == {"clip", "lenet"}
    evaluating = ("evaluate", "someone/digits", "-c", "asset:mnist/lenet", "-o", tmp_path / "report")
    evaluated = fmrgen(*evaluating, "--all", **hub.environment)
    assert "FMR under each judge" in evaluated.stdout, evaluated.stderr


def test_judgements_that_are_not_of_the_split_are_refused(judged, tmp_path):
    shutil.copytree(judged, tmp_path / "out")
    paths = SplitPaths(tmp_path / "out", "mnist", "lenet")
    folder = JudgementsFolder(paths)
    path, about = folder.table_path("clip"), folder.judges()["clip"]
    judgements = folder.read(about)
    stored = rows(judged)
    ids = np.array(sorted(stored))
    digests = {"image": [hashlib.sha256(stored[i]["image"]["bytes"]).hexdigest() for i in ids]}
    check_of_split(judgements, "out", ids, digests, 10)
    with pytest.raises(UserError, match="judged over 10 classes, and the split has 7"):
        check_of_split(judgements, "out", ids, digests, 7)
    with pytest.raises(UserError, match=r"it judged id \d+, which is not in the split; it judged another split"):
        check_of_split(judgements, "out", ids[:-1], {"image": digests["image"][:-1]}, 10)
    altered = {"image": ["0" * 64, *digests["image"][1:]]}
    with pytest.raises(UserError, match=r"its image of id \d+ is not the stored one; judge this split anew"):
        check_of_split(judgements, "out", ids, altered, 10)

    def rewrite(table):
        content = to_parquet(table)
        path.write_bytes(content)
        small = json.loads(path.with_suffix(".json").read_text()) | {"sha256": hashlib.sha256(content).hexdigest()}
        path.with_suffix(".json").write_text(json.dumps(small))
        return folder.read(folder.judges()["clip"])

    table = judgements.table
    wrong = table.set_column(table.schema.get_field_index("label"), "label", pa.array([10] * len(table), pa.int32()))
    with pytest.raises(UserError, match="label 10 is not one of the 10 classes"):
        rewrite(wrong)
    with pytest.raises(UserError, match="has other columns than judgements have"):
        rewrite(table.drop_columns(["score"]))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="can't be read|is not the table"):
        folder.read(folder.judges()["clip"])
    path.with_suffix(".json").write_text('{"schema": "fmrgen-judgements/9"}')
    with pytest.raises(UserError, match="has schema 'fmrgen-judgements/9', this fmrgen reads fmrgen-judgements/1"):
        folder.judges()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--oracle", "gone/nowhere"], "oracle.model: gone/nowhere can't be loaded"),
        (["--oracle", "{kind: clp}"], "oracle: 'clp': unknown kind, did you mean clip?"),
        (["--oracle", CLIP, "--oracle", CLIP], "two oracles are called clip; give one another name, NAME=…"),
        (["--oracle", "zero_shoot:x/y"], "zero_shoot:x/y: not an oracle; use KIND:MODEL (clip, zero_shot, open_clip"),
    ],
)
def test_who_is_no_judge_is_told_in_a_line(judged, capsys, arguments, error):
    assert run("judge", judged, *arguments) == 2
    told = capsys.readouterr().err
    assert error in told
    assert told.count("\n") == 1


def test_an_image_that_is_stored_as_a_path_is_a_line(split, capsys):
    """Anyone may have written the rows of a split; these hold no bytes to digest."""
    shard = min((split / "mnist").glob("*.parquet"))
    table = pq.read_table(shard)
    stored = table["image"].to_pylist()
    (split / "mnist/one.png").write_bytes(stored[0]["bytes"])
    stored[0] = {"bytes": None, "path": str(split / "mnist/one.png")}
    place = table.schema.get_field_index("image")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(stored, table["image"].type)), shard)
    assert run("judge", split, "--oracle", CLIP, "--quiet") == 2
    told = capsys.readouterr().err
    assert "a file of it can't be read" in told
    assert told.count("\n") == 1


def test_a_judge_as_an_object_in_python(judged):
    class Zero(package.Oracle):
        def judge(self, images, originals=None):
            said = torch.zeros(len(images), 10)
            said[:, 0] = 1
            return package.Judgement(said, said)

    (found,) = package.judge(str(judged), {"zero": Zero()}, progress=False)
    stored = rows(judged).values()
    valid = [row for row in stored if row["valid"]]
    assert found.preserved.value == pytest.approx(100 * np.mean([row["label"] == 0 for row in valid]))
    assert {v["label"] for v in judgements(judged, "zero")} == {0}


class Above(package.Oracle):
    """Sees a 1 in bright images, else a 0; stops after so many batches."""

    def __init__(self, limit, batches=1000):
        self.limit, self.left = limit, [batches]

    derived = ("left",)

    def judge(self, images, originals=None):
        self.left[0] -= 1
        if self.left[0] < 0:
            raise KeyboardInterrupt
        bright = images.flatten(1).mean(1) > self.limit
        said = torch.nn.functional.one_hot(bright.long(), 10).float()
        return package.Judgement(said, said)


@pytest.mark.slow
def test_a_judge_goes_on_as_the_same_alone(judged, tmp_path, monkeypatch):
    """One of another rule does not take what the first one had judged before it was stopped, and a cut file is judged
    again."""
    monkeypatch.setenv("FMRGEN_CACHE", str(tmp_path))
    judge = partial(package.judge, str(judged), batch_size=8, progress=False)
    with pytest.raises(KeyboardInterrupt):
        judge({"above": Above(0.1, batches=20)})
    parts = sorted(tmp_path.glob("judgements/*/*.parquet"))
    assert parts
    parts[0].write_bytes(parts[0].read_bytes()[:100])
    judge({"above": Above(0.2)})
    other = judgements(judged, "above")
    judge({"above": Above(0.1)})
    first = judgements(judged, "above")
    monkeypatch.setenv("FMRGEN_CACHE", str(tmp_path / "new"))
    judge({"above": Above(0.1)})
    assert judgements(judged, "above") == first
    judge({"above": Above(0.2)})
    assert judgements(judged, "above") == other != first


class Ruled(package.Oracle):
    """Sees a 1 in bright images, else a 0; how bright, and when it stops, the environment says, which no digest shows."""

    def judge(self, images, originals=None):
        os.environ["BATCHES"] = str(int(os.environ["BATCHES"]) - 1)
        if os.environ["BATCHES"] == "0":
            raise KeyboardInterrupt
        bright = images.flatten(1).mean(1) > float(os.environ["BRIGHT"])
        probabilities = torch.nn.functional.one_hot(bright.long(), 10).float()
        return package.Judgement(probabilities, probabilities)


@pytest.mark.slow
def test_a_judge_that_sees_other_things_now_does_not_go_on(judged, tmp_path, monkeypatch):
    def judge(bright, batches):
        monkeypatch.setenv("BRIGHT", str(bright))
        monkeypatch.setenv("BATCHES", str(batches))
        return package.judge(str(judged), {"ruled": Ruled()}, batch_size=8, progress=False)

    monkeypatch.setenv("FMRGEN_CACHE", str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        judge(0.1, 20)
    with pytest.raises(
        UserError, match="oracle ruled: differs from the oracle that judged the first rows; .* or delete "
    ):
        judge(0.9, 1000)
    assert len(judge(0.1, 1000)) == 1
