"""What a new checkpoint gets wrong: the two splits, what they count, and the command."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import warm
import yaml
from commands import fmrgen, launched, run
from datasets import load_dataset
from places import ROOT
from safetensors.torch import load_file, save_file

from fmrgen import UserError, diff_classifiers, evaluate, load_recipe, verify
from fmrgen.apps.release.diff_gallery import class_names_of, diff_galleries
from fmrgen.weights.assets import resolve_path

LENET = "asset:mnist/lenet"
JOB = ["source.limit=40", "perturb.budget=12", "perturb.step_size=0.1", "perturb.control=20", "output.shard_size=20"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """LeNet that calls nothing a seven without more ado."""
    weights = load_file(resolve_path("asset:mnist/lenet/model.safetensors"))
    weights["5.bias"][7] -= 4.0
    path = tmp_path_factory.mktemp("planted") / "model.safetensors"
    save_file(weights, path)
    return {"kind": "lenet", "checkpoint": str(path), "class_names": [str(digit) for digit in range(10)]}


@pytest.fixture(scope="module")
def made(planted, tmp_path_factory):
    output = tmp_path_factory.mktemp("made") / "out"
    return output, diff_classifiers(LENET, planted, recipe=load_recipe("mnist-lenet", JOB), output=output)


def test_each_image_is_right_for_one_and_wrong_for_the_other(made, planted):
    """As both networks say themselves, of the stored images; and the splits are true."""
    output, found = made
    references = [f"{output}:mnist-negative/new", f"{output}:mnist-positive/old"]
    table = evaluate(references, {"old": LENET, "new": planted}, progress=False).predictions.to_pandas()
    table["right"] = table.prediction == table.label
    for split, winner, side in zip(references, ("old", "new"), ("negative", "positive"), strict=True):
        of_winner, of_loser = (
            table[(table.split == split) & ((table.classifier == winner) == wins)].set_index("id")
            for wins in (True, False)
        )
        hit = of_winner.valid & of_winner.right & ~of_loser.right
        assert sorted(hit[hit].index) == sorted(one.id for one in found.generated.images[side])
        assert of_winner.right[of_winner.valid].all()  # the veto
        assert verify(split, trust=True).disagreements == []


def test_a_diff_by_a_recipe_is_never_greener_than_one_on_its_images(made, planted):
    """The limit of the recipe is for what it generates: real images are those that `images=` takes, to the last."""
    _, found = made
    of_images = diff_classifiers(LENET, planted, images="{kind: mnist}")
    assert of_images.flips == found.flips
    assert found.flips.images == 1000
    for one, other in zip(of_images.evidence, found.evidence, strict=False):
        assert replace(one, is_better=False) == replace(other, is_better=False)
    assert of_images.verdict == found.verdict == "worse"


def test_the_first_image_that_fools_is_kept_and_the_clearest_come_first(made):
    output, found = made
    kinds = [one.kind for one in found.evidence]
    assert kinds == ["originals", "class", "transformed", "class", "transformed", "transformed"]
    images = found.generated.images["negative"]
    assert max(images, key=lambda one: one.label == "7").label == "7"
    columns = ["id", "label", "iterations", "stop_reason", "step_predictions"]
    rows = load_dataset(str(output), "mnist-negative", split="new").select_columns(columns)
    reached = [row for row in rows if row["stop_reason"] == 5]
    assert {row["id"] for row in reached} == {one.id for one in images}
    assert all(row["step_predictions"][-2] == row["label"] for row in reached if row["iterations"] > 1)
    clarity = [min(one.before, 1 - one.after) for one in images]
    assert clarity == sorted(clarity, reverse=True)


def test_one_network_is_refused_and_a_finished_diff_is_not_made_again(made, planted, tmp_path):
    output, found = made
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")}
    assert diff_classifiers(LENET, planted, recipe=load_recipe("mnist-lenet", JOB), output=output) == found
    assert before == {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")}
    with pytest.raises(UserError, match="old and new are one network: they have the same weights and settings"):
        diff_classifiers(LENET, LENET, recipe=load_recipe("mnist-lenet", ["source.limit=2"]), output=tmp_path / "out")


def test_the_command_and_its_files(made, planted, tmp_path, capsys):
    output, _ = made
    job = ["diff", "mnist-lenet", *JOB, "--old", f"old={LENET}", "--new", f"new={json.dumps(planted)}"]
    status = run(*job, "-o", output, "--junit", tmp_path / "j.xml", "--summary", tmp_path / "s.md", "--json")
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert status == int(told["verdict"] == "worse")
    written = json.loads((output / "diff/diff.json").read_text())
    assert written == told
    assert told["schema"] == "fmrgen-diff/5"
    page = (output / "diff/diff.html").read_text()
    assert "old → new on mnist-lenet" in page
    assert "Generated: NEW wrong" in page
    assert "exact test, or Tango" in page
    assert (output / "diff/six.png").read_bytes().startswith(b"\x89PNG")
    comment = (output / "diff/diff.md").read_text()
    assert comment.splitlines()[0] == "# old → new on mnist-lenet"
    assert ": of 1,000 images " in comment.splitlines()[2]
    assert "| originals transformed at random (rotation, scale, shear, shift) | 40 |" in (tmp_path / "s.md").read_text()
    case = ElementTree.parse(tmp_path / "j.xml").getroot().find("testcase")
    assert (case.find("failure") is not None) == bool(status)
    assert run(*job[:-1], "new=nothing:at-all", "-o", tmp_path / "out") == 2


@pytest.mark.slow
def test_two_processes_find_the_same(made, planted, tmp_path):
    job = ["diff", "mnist-lenet", *JOB, "--old", f"old={LENET}", "--new", f"new={json.dumps(planted)}", "--quiet"]
    for done in launched(2, *job, "-o", tmp_path / "out"):
        assert done.returncode in (0, 1), done.stderr
    found = json.loads((tmp_path / "out/diff/diff.json").read_text())
    _, alone = made
    for side in ("negative", "positive"):
        ids = {one.id for one in alone.generated.images[side]}
        told = {one["id"] for one in found["generated"]["images"][side]}
        assert len(ids ^ told) <= 2  # ties, on a processor that rounds otherwise


@pytest.mark.slow
def test_both_splits_are_published_and_ask_the_next_checkpoint(made, hub, tmp_path):
    output, _ = made
    done = fmrgen("push", output, "someone/negative", "-q", **hub.environment)
    assert done.returncode == 0, done.stderr
    done = fmrgen(
        "evaluate", "someone/negative:mnist-negative/new", "-c", LENET, "-o", tmp_path, "--json", **hub.environment
    )
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["total"]["perturbed_accuracy"]["value"] == 100.0  # it is OLD, whose veto they passed
    done = fmrgen("verify", "someone/negative:mnist-positive/old", "--files", **hub.environment)
    assert done.returncode == 0, done.stderr


def test_a_path_in_the_gallery_ends_in_the_answer_of_its_image(made):
    """Whatever classes the images have, the numbers of classes are those of the splits."""
    _, found = made
    few = {}
    for side, images in found.generated.images.items():
        few[side] = [image for image in images if image.prediction != "0"][:3]
    outcome = replace(found, generated=replace(found.generated, images=few))
    galleries = diff_galleries(outcome, {}, class_names_of(outcome))
    assert [len(gallery.rows) for gallery in galleries] == [len(images) for images in few.values() if images]
    assert galleries
    for gallery in galleries:
        shown = gallery.classifiers.index(gallery.own)
        for row in gallery.rows:
            assert row.steps.predictions[-1] == row.predictions[shown][1] != row.label
            assert row.failed_at is not None


class Runner:
    """A runner of GitHub's with the action; its command `gh` answers with `comments.json`, by jq, and may not ask who it
    is. `git` and `gh` write down how they are called."""

    def __init__(self, folder):
        self.folder, self.output = folder, folder / "out"
        action = yaml.safe_load((ROOT / "actions/diff/action.yml").read_text())
        self.install, self.diff, self.page, self.comment, self.fails = action["runs"]["steps"]
        self.inputs = {name: entry.get("default", "") for name, entry in action["inputs"].items()}
        self.inputs |= {"output": str(self.output), "junit": str(folder / "diff.xml")}
        tools = folder / "tools"
        tools.mkdir()
        warm.put_on_path(tools)
        (tools / "gh").write_text(
            '#!/bin/sh\necho "gh $@" >> "$CALLS"\n'
            'case "$*" in "api user"*) echo no; exit 1;; *--jq*) jq -r "$5" "$COMMENTS";; *) cp "${6#body=@}" "$WRITTEN";; esac\n'
        )
        (tools / "git").write_text(f'#!/bin/sh\necho "git $@" >> "$CALLS"\nexec {shutil.which("git")} "$@"\n')
        for name in ("gh", "git"):
            (tools / name).chmod(0o755)
        subprocess.run(["git", "init", "--quiet", "--bare", folder / "you/repo"], check=True)
        (folder / "comments.json").write_text("[]")
        self.environment = {
            **os.environ,
            "GITHUB_SERVER_URL": f"file://{folder}",
            "GITHUB_REPOSITORY": "you/repo",
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            "GITHUB_OUTPUT": str(folder / "output"),
            "PATH": f"{tools}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
            "CALLS": str(folder / "calls"),
            "COMMENTS": str(folder / "comments.json"),
            "WRITTEN": str(folder / "comment.md"),
            "NUMBER": "12",
            "KEY": "0123456789ab",
            "PAGE": "https://forge/artifact",
            "GH_TOKEN": "SECRET123",
        }

    def run(self, step, status=0, **changed):
        """Runs a step as a runner does; returns what it printed."""
        variables = {
            key: self.inputs[value.split(".")[1].strip(" }")]
            for key, value in step["env"].items()
            if value.startswith("${{ inputs") and key != "GH_TOKEN"
        }
        environment = self.environment | variables | changed
        script = ["bash", "-eo", "pipefail", "-c", step["run"]]
        done = subprocess.run(script, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done.stdout

    def read(self, name):
        return (self.folder / name).read_text()

    def git(self, *arguments):
        """What git says of the repo."""
        return subprocess.check_output(["git", "--git-dir", self.folder / "you/repo", *arguments])


@pytest.fixture
def runner(tmp_path):
    return Runner(tmp_path)


needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="stands in for the one inside gh")


@needs_jq
def test_the_action_updates_only_its_own_comment(runner):
    (runner.output / "diff").mkdir(parents=True)
    (runner.output / "diff/comment.md").write_text("### A diff\n")
    runner.run(runner.comment)
    mark = runner.read("comment.md").splitlines()[0]
    strangers = {"id": 66, "user": {"login": "stranger"}, "body": f"{mark}\nmine"}
    others = {"id": 68, "user": {"login": "github-actions[bot]"}, "body": "<!-- fmrgen diff 0123 -->"}
    (runner.folder / "comments.json").write_text(json.dumps([strangers, others]))
    runner.run(runner.comment)
    assert "PATCH" not in runner.read("calls")
    own = strangers | {"id": 67, "user": {"login": "github-actions[bot]"}}
    (runner.folder / "comments.json").write_text(json.dumps([own, strangers, others]))
    runner.run(runner.comment)
    assert "--method PATCH repos/you/repo/issues/comments/67 " in runner.read("calls")
    runner.run(runner.comment, KEY="ba9876543210")  # of a matrix
    assert runner.read("calls").count("PATCH") == 1
    refs = runner.git("for-each-ref", "--format=%(refname)").decode().split()
    assert [ref.rpartition("-")[0] for ref in refs] == ["refs/heads/fmrgen-diff/12"] * 2


def test_git_gets_the_token_of_the_action_on_no_command_line(runner):
    (runner.output / "diff").mkdir(parents=True)
    (runner.output / "diff/comment.md").touch()
    sent = []

    class Forge(BaseHTTPRequestHandler):
        def do_GET(self):
            sent.append(self.headers["Authorization"])
            self.send_response(403 if sent[-1] else 401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Forge) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        printed = runner.run(runner.comment, GITHUB_SERVER_URL=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert "::warning::no comment" in printed
    assert base64.b64decode(sent[-1].removeprefix("Basic ")) == b"x-access-token:SECRET123"
    assert "push" in runner.read("calls")
    assert not re.search("SECRET123|U0VDUkVUMTIz", runner.read("calls"))


@pytest.mark.slow
@needs_jq
def test_the_action_comments_once_with_pictures(made, planted, runner):
    """Its scripts as a runner runs them, with git's own push; of GitHub's command only what it is asked is real."""
    output, _ = made
    assert runner.page["with"]["path"] == "${{ inputs.output }}/diff"
    runner.inputs |= {"recipe": "mnist-lenet", "overrides": "\n".join(JOB), "output": str(output)}
    runner.inputs |= {"old": f"old={LENET}", "new": f"new={json.dumps(planted)}"}
    assert "${INSTALL:-$GITHUB_ACTION_PATH/../..${ASKED:+[models]}}" in runner.install["run"]
    assert (ROOT / "actions/diff/../..").resolve() == ROOT

    runner.run(runner.diff)
    verdict = json.loads((output / "diff/diff.json").read_text())["verdict"]
    assert re.fullmatch(rf"key=\w{{12}}\nverdict={verdict}\n", runner.read("output"))
    assert "](six.png)" not in runner.read("summary.md")
    assert "'worse' && inputs.worse != 'pass'" in runner.fails["if"]

    runner.run(runner.comment)
    written = runner.read("comment.md")
    (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", written)
    at = re.fullmatch(rf"file://{runner.folder}/you/repo/blob/(\w{{40}})/six.png\?raw=true", picture)[1]
    assert runner.git("show", f"{at}:six.png") == (output / "diff/six.png").read_bytes()
    assert written.count("NEW is worse: of") <= 1
    assert written.index("<details>") < written.index("What the verdict rests on")
    assert "(https://forge/artifact)" in written
    assert "--method POST repos/you/repo/issues/12/comments" in runner.read("calls")

    fork = runner.run(runner.comment, GITHUB_REPOSITORY="you/nothing")  # whose token may not write
    assert "::warning::no comment" in fork
    runner.inputs["new"] = "nothing:at-all"
    runner.run(runner.diff, status=2)


def test_the_action_compares_files_of_predictions_and_a_first_run_passes(runner):
    assert "steps.diff.outputs.verdict != 'first run'" in runner.comment["if"]
    for name, called in (("old", 3), ("new", 4)):
        rows = [f"{row}.png,{row % 10},{called if row % 10 == 3 else row % 10}" for row in range(200)]
        runner.inputs[name] = str(runner.folder / f"{name}.csv")
        (runner.folder / f"{name}.csv").write_text("\n".join(["id,label,prediction", *rows]))
    runner.run(runner.diff)
    assert runner.read("output").endswith("\nverdict=worse\n")
    assert "| 3 → 4 | 20 | 20 | 0 |" in runner.read("summary.md")
    if shutil.which("jq"):
        runner.run(runner.comment)
        line = "NEW is worse: 20 of 20 images of class 3 are negative flips; of 200 images"
        assert line in runner.read("comment.md")
    (runner.folder / "old.csv").unlink()
    (runner.folder / "output").unlink()
    assert "::warning::" in runner.run(runner.diff)
    assert runner.read("output").endswith("\nverdict=first run\n")
