"""Other judges' verdicts on stored images: true of them, resumable, the same on any number of processes, and on the Hub."""

import hashlib
import html
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import warm
from commands import fmrgen, launched, python, run, upload, wait_for
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


def table_of(folder, judge):
    """The checked table of a judge of mnist/lenet."""
    verdicts = JudgementsFolder(SplitPaths(Path(folder), "mnist", "lenet"))
    return verdicts.read(verdicts.judges()[judge]).table


def judgements(folder, judge):
    return table_of(folder, judge).drop_columns(["when"]).to_pylist()


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
def test_a_judge_that_is_no_second_opinion_is_told_beside_its_figures(split, tmp_path, capsys):
    """The split's own oracle, the classifier that is measured, and panels of either."""
    panel = f"{{kind: ensemble, oracles: [{{kind: clip, model: '{CLIP}'}}, {LENET}]}}"
    other = "{kind: classifier, classifier: {kind: lenet}}"
    assert run("judge", split, *ORACLES, "--oracle", f"panel={panel}", "--oracle", f"other={other}", "--quiet") == 0
    told = capsys.readouterr().err
    alike = {
        "clip": "clip shares its weights with the split's own oracle: its figures are no second opinion",
        "lenet": "lenet shares its weights with the classifier that the split was generated against: its figures are no second",
        "panel": "panel shares its weights with the split's own oracle and the classifier that the split was generated against: ",
    }
    assert all(f"warning: {line}" in told for line in alike.values())
    assert "other shares" not in told
    found = package.evaluate(str(split), {"mine": "asset:mnist/lenet", "untrained": "{kind: lenet}"}, progress=False)
    of = {judge.judge: judge.shares_weights_with for judge in found.splits[0].judges}
    own = ["the split's own oracle"]
    assert of == {"clip": own, "lenet": ["the classifier mine"], "panel": [*own, "the classifier mine"], "other": []}
    package.write_report(found, tmp_path / "report")
    print_report(evaluation_report(found))
    page, markdown = (tmp_path / "report/report.html").read_text(), to_markdown(evaluation_report(found))
    for text in (page, markdown, capsys.readouterr().out):
        text = html.unescape(" ".join(text.split()))
        assert text.count("clip ‡") >= 2  # beside its agreement, and above FMR under it
        assert "‡ clip shares its weights with the split's own oracle: its figures are no second opinion" in text
        assert "‡ lenet shares its weights with the classifier mine: its figures are no second opinion" in text
        assert "other ‡" not in text


def test_two_processes_say_the_same(judged, split, tmp_path):
    command = ("judge", split, *ORACLES, "--batch-size", "16", "--quiet")
    for done in launched(2, *command, FMRGEN_CACHE=str(tmp_path / "cache")):
        assert done.returncode == 0, done.stderr
    for judge in ("clip", "lenet"):
        alone, together = judgements(judged, judge), judgements(split, judge)
        key = {(v["id"], v["which"]): v for v in together}
        assert len(key) == len(together) == len(alone)
        for verdict in alone:
            other = key[verdict["id"], verdict["which"]]
            floats = {name: verdict.pop(name) for name in ("probability", "score")}
            assert {name: other.pop(name) for name in floats} == pytest.approx(floats, abs=1e-4)
            assert other == verdict


@pytest.mark.slow
def test_what_is_judged_is_not_judged_again_after_a_kill(split, tmp_path):
    cache = tmp_path / "cache"
    command = ["judge", split, *ORACLES[:2], "--batch-size", "2", "--quiet"]
    job = warm.Process(["-m", "fmrgen", *command], {**os.environ, "FMRGEN_CACHE": str(cache)})
    wait_for(lambda: len(list(cache.glob("judgements/*/*.parquet"))) >= 5 or job.poll() is not None)
    job.send_signal(signal.SIGKILL)
    job.wait()
    parts = list(cache.glob("judgements/*/*.parquet"))
    assert 5 <= len(parts) < 60
    assert not (split / "judgements").exists()
    table = pq.read_table(parts[0])  # what was judged counts: a mark in it comes out at the end
    marked = table.set_column(table.schema.get_field_index("when"), "when", pa.array(["marked"] * len(table)))
    parts[0].write_bytes(to_parquet(marked))
    assert fmrgen(*command, FMRGEN_CACHE=str(cache)).returncode == 0
    table = table_of(split, "clip")
    assert table["when"].to_pylist().count("marked") == 4
    assert len(table) == 240
    assert not list(cache.glob("judgements/*/*.parquet"))


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
    told = [[v[name] for v in judgements(judged, "clip")] for name in ("id", "which", "label")]
    assert json.loads(python(hub, script))[1:] == told
    other = fmrgen("judge", "someone/digits", "--oracle", f"clip={LENET}", **hub.environment, **cache)
    assert other.returncode == 2
    assert other.stderr.strip().endswith(
        "someone/digits: already holds judgements of another clip on mnist/lenet; give yours another name, NAME=…"
    )
    pushed = fmrgen("push", judged, "someone/digits", "--public", **hub.environment)
    assert pushed.returncode == 0, pushed.stderr
    assert set(json.loads(python(hub, script))[0]) == {"clip", "lenet"}
    evaluating = ("evaluate", "someone/digits", "-c", "asset:mnist/lenet", "-o", tmp_path / "report")
    evaluated = fmrgen(*evaluating, "--all", **hub.environment)
    assert "FMR under each judge" in evaluated.stdout, evaluated.stderr


def test_judgements_that_are_not_of_the_split_are_refused(own):
    folder = JudgementsFolder(SplitPaths(own, "mnist", "lenet"))
    path = folder.table_path("clip")
    judgements = folder.read(folder.judges()["clip"])
    stored = rows(own)
    ids = np.array(sorted(stored))
    digests = {"image": [hashlib.sha256(stored[i]["image"]["bytes"]).hexdigest() for i in ids]}
    fewer, altered = digests["image"][:-1], ["0" * 64, *digests["image"][1:]]
    check_of_split(judgements, "out", ids, digests, 10)
    for of_split, error in (
        ((ids, digests, 7), "judged over 10 classes, and the split has 7"),
        ((ids[:-1], {"image": fewer}, 10), r"it judged id \d+, which is not in the split; it judged another split"),
        ((ids, {"image": altered}, 10), r"its image of id \d+ is not the stored one; judge this split anew"),
    ):
        with pytest.raises(UserError, match=error):
            check_of_split(judgements, "out", *of_split)

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


class Bright(package.Oracle):
    """Sees a 1 in images brighter than `limit`, else a 0; None: than the environment says, which no digest shows."""

    def __init__(self, limit=None):
        self.limit = limit

    def judge(self, images, originals=None):
        os.environ["BATCHES"] = str(int(os.environ["BATCHES"]) - 1)
        if os.environ["BATCHES"] == "0":
            raise KeyboardInterrupt
        bright = images.flatten(1).mean(1) > (self.limit or float(os.environ["BRIGHT"]))
        said = torch.nn.functional.one_hot(bright.long(), 10).float()
        return package.Judgement(said, said)


@pytest.fixture
def judge(judged, tmp_path, monkeypatch):
    """Judges by an oracle that stops before so many batches; returns what it said."""

    def judge(oracle, batches=1000, bright=0.0, cache="cache"):
        for name, value in {"BATCHES": batches, "BRIGHT": bright, "FMRGEN_CACHE": tmp_path / cache}.items():
            monkeypatch.setenv(name, str(value))
        package.judge(str(judged), {"bright": oracle}, batch_size=8, progress=False)
        return judgements(judged, "bright")

    return judge


@pytest.mark.slow
def test_a_judge_goes_on_as_the_same_alone(judge, tmp_path):
    """One of another rule does not take what the first one had judged before it was stopped, and a cut file is judged
    again."""
    with pytest.raises(KeyboardInterrupt):
        judge(Bright(0.1), batches=20)
    part, *_ = sorted(tmp_path.glob("cache/judgements/*/*.parquet"))
    part.write_bytes(part.read_bytes()[:100])
    other, first = judge(Bright(0.2)), judge(Bright(0.1))
    assert judge(Bright(0.1), cache="new") == first
    assert judge(Bright(0.2), cache="new") == other != first


@pytest.mark.slow
def test_a_judge_that_sees_other_things_now_does_not_go_on(judge):
    with pytest.raises(KeyboardInterrupt):
        judge(Bright(), 20, bright=0.1)
    differs = "oracle bright: differs from the oracle that judged the first rows; .* or delete "
    with pytest.raises(UserError, match=differs):
        judge(Bright(), bright=0.9)
    assert len(judge(Bright(), bright=0.1)) == 240
