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
from places import ROOT
from safetensors.torch import load_file, save_file

from fmrgen import UserError, diff_classifiers, evaluate, load_recipe, verify
from fmrgen.apps.release.diff_gallery import class_names_of, diff_galleries
from fmrgen.apps.release.diff_report import diff_report, verdict_line
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
    said = evaluate(references, {"old": LENET, "new": planted}, progress=False)
    table = said.predictions.to_pandas()
    for split, right, wrong, side in (
        (references[0], "old", "new", "negative"),
        (references[1], "new", "old", "positive"),
    ):
        by = {
            name: table[(table.split == split) & (table.classifier == name)].set_index("id") for name in (right, wrong)
        }
        hit = by[right].valid & (by[right].prediction == by[right].label) & (by[wrong].prediction != by[wrong].label)
        assert sorted(hit[hit].index) == sorted(one.id for one in found.generated.images[side])
        assert (by[right].prediction == by[right].label)[by[right].valid].all()  # the veto
        outcome = verify(split, trust=True)
        assert outcome.disagreements == []


def test_a_diff_by_a_recipe_is_never_greener_than_one_on_its_images(made, planted):
    """The limit of the recipe is for what it generates: real images are those that `images=` takes, to the last."""
    _, found = made
    of_images = diff_classifiers(LENET, planted, images="{kind: mnist}")
    assert of_images.flips == found.flips
    assert found.flips.images == 1000
    assert [replace(one, is_better=False) for one in of_images.evidence] == [
        replace(one, is_better=False) for one in found.evidence[: len(of_images.evidence)]
    ]
    assert of_images.verdict == found.verdict == "worse"


def test_the_first_image_that_fools_is_kept_and_the_clearest_come_first(made):
    output, found = made
    kinds = [one.kind for one in found.evidence]
    assert kinds == ["originals", "class", "transformed", "class", "transformed", "transformed"]
    images = found.generated.images["negative"]
    assert max(images, key=lambda one: one.label == "7").label == "7"
    reached = [row for row in rows_of_side(output, "mnist-negative/new") if row["stop_reason"] == 5]
    assert {row["id"] for row in reached} == {one.id for one in images}
    assert all(row["step_predictions"][-2] == row["label"] for row in reached if row["iterations"] > 1)
    clarity = [min(one.before, 1 - one.after) for one in images]
    assert clarity == sorted(clarity, reverse=True)


def rows_of_side(output, name):
    config, split = name.split("/")
    import pyarrow.parquet as pq

    return [
        row for path in sorted((output / config).glob(f"{split}-*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


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
    report = diff_report(alone, "a diff", {})
    assert len(report.sections[0].tables[0].rows) == 6
    assert "of 1,000 images" in verdict_line(alone)


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
    few = {
        side: [image for image in images if image.prediction != "0"][:3]
        for side, images in found.generated.images.items()
    }
    outcome = replace(found, generated=replace(found.generated, images=few))
    galleries = diff_galleries(outcome, {}, class_names_of(outcome))
    assert [len(gallery.rows) for gallery in galleries] == [len(images) for images in few.values() if images]
    assert galleries
    for gallery in galleries:
        shown = gallery.classifiers.index(gallery.own)
        for row in gallery.rows:
            assert row.steps.predictions[-1] == row.predictions[shown][1] != row.label
            assert row.failed_at is not None


def runner(tmp_path):
    """The environment of a runner of GitHub's; its command `gh` answers with `comments.json`, by jq, and may not ask
    who it is. `git` and `gh` write down how they are called."""
    tools = tmp_path / "tools"
    tools.mkdir()
    warm.put_on_path(tools)
    (tools / "gh").write_text(
        "#!/bin/sh\n"
        'echo "gh $@" >> "$CALLS"\n'
        'case "$*" in "api user"*) echo no; exit 1;; *--jq*) jq -r "$5" "$COMMENTS";; *) cp "${6#body=@}" "$WRITTEN";; esac\n'
    )
    (tools / "git").write_text(f'#!/bin/sh\necho "git $@" >> "$CALLS"\nexec {shutil.which("git")} "$@"\n')
    for name in ("gh", "git"):
        (tools / name).chmod(0o755)
    subprocess.run(["git", "init", "--quiet", "--bare", str(tmp_path / "you/repo")], check=True)
    (tmp_path / "comments.json").write_text("[]")
    return {
        "GITHUB_SERVER_URL": f"file://{tmp_path}",
        "GITHUB_REPOSITORY": "you/repo",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "PATH": f"{tools}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "COMMENTS": str(tmp_path / "comments.json"),
        "WRITTEN": str(tmp_path / "comment.md"),
        "NUMBER": "12",
        "KEY": "0123456789ab",
        "PAGE": "https://forge/artifact",
        "GH_TOKEN": "SECRET123",
    }


def run_step(step, inputs, environment):
    """A step of the action as a runner runs it."""
    variables = {
        key: inputs[value.split(".")[1].strip(" }")]
        for key, value in step["env"].items()
        if value.startswith("${{ inputs") and key != "GH_TOKEN"
    }
    environment = {**os.environ, **environment, **variables}
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", step["run"]], env=environment, capture_output=True, text=True
    )


def action_inputs():
    action = yaml.safe_load((ROOT / "actions/diff/action.yml").read_text())
    return action["runs"]["steps"], {name: entry.get("default", "") for name, entry in action["inputs"].items()}


@pytest.mark.skipif(shutil.which("jq") is None, reason="stands in for the one inside gh")
def test_the_action_updates_only_its_own_comment(tmp_path):
    steps, inputs = action_inputs()
    (comment,) = (step for step in steps if step.get("id") == "comment")
    inputs |= {"recipe": "mnist-lenet", "old": "a", "new": "b", "output": str(tmp_path / "out")}
    (tmp_path / "out/diff").mkdir(parents=True)
    (tmp_path / "out/diff/comment.md").write_text("### A diff\n")
    environment = runner(tmp_path)
    calls = tmp_path / "calls"

    assert (done := run_step(comment, inputs, environment)).returncode == 0, done.stderr
    mark = (tmp_path / "comment.md").read_text().splitlines()[0]
    strangers = {"id": 66, "user": {"login": "stranger"}, "body": f"{mark}\nmine"}
    others = {"id": 68, "user": {"login": "github-actions[bot]"}, "body": "<!-- fmrgen diff 0123 -->"}
    (tmp_path / "comments.json").write_text(json.dumps([strangers, others]))
    assert run_step(comment, inputs, environment).returncode == 0
    assert "PATCH" not in calls.read_text()
    own = strangers | {"id": 67, "user": {"login": "github-actions[bot]"}}
    (tmp_path / "comments.json").write_text(json.dumps([own, strangers, others]))
    assert run_step(comment, inputs, environment).returncode == 0
    assert "--method PATCH repos/you/repo/issues/comments/67 " in calls.read_text()

    another = environment | {"KEY": "ba9876543210"}  # of a matrix
    assert run_step(comment, inputs, another).returncode == 0
    assert calls.read_text().count("PATCH") == 1
    branches = ["git", "--git-dir", str(tmp_path / "you/repo"), "for-each-ref", "--format=%(refname)"]
    refs = subprocess.run(branches, capture_output=True, text=True, check=True).stdout.split()
    assert [ref.rpartition("-")[0] for ref in refs] == ["refs/heads/fmrgen-diff/12"] * 2


def test_git_gets_the_token_of_the_action_on_no_command_line(tmp_path):
    steps, inputs = action_inputs()
    (comment,) = (step for step in steps if step.get("id") == "comment")
    (tmp_path / "out/diff").mkdir(parents=True)
    (tmp_path / "out/diff/comment.md").touch()
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
        environment = runner(tmp_path) | {"GITHUB_SERVER_URL": f"http://127.0.0.1:{server.server_port}"}
        done = run_step(comment, inputs | {"output": str(tmp_path / "out")}, environment)
        server.shutdown()
    assert (done.returncode, "::warning::no comment" in done.stdout) == (0, True)
    assert base64.b64decode(sent[-1].removeprefix("Basic ")) == b"x-access-token:SECRET123"
    called = (tmp_path / "calls").read_text()
    assert "push" in called
    assert not re.search("SECRET123|U0VDUkVUMTIz", called)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("jq") is None, reason="stands in for the one inside gh")
def test_the_action_comments_once_with_pictures(made, planted, tmp_path):
    """Its scripts as a runner runs them, with git's own push; of GitHub's command only what it is asked is real."""
    output, _ = made
    (install, diff_step, page, comment, fails), inputs = action_inputs()
    assert page["with"]["path"] == "${{ inputs.output }}/diff"
    inputs |= {"recipe": "mnist-lenet", "overrides": "\n".join(JOB), "output": str(output)}
    inputs |= {"old": f"old={LENET}", "new": f"new={json.dumps(planted)}", "junit": str(tmp_path / "diff.xml")}
    assert "${INSTALL:-$GITHUB_ACTION_PATH/../..${ASKED:+[models]}}" in install["run"]
    assert (ROOT / "actions/diff/../..").resolve() == ROOT
    environment = runner(tmp_path)

    done = run_step(diff_step, inputs, environment)
    assert done.returncode == 0, done.stderr
    verdict = json.loads((output / "diff/diff.json").read_text())["verdict"]
    key, line = (tmp_path / "output").read_text().splitlines()
    assert re.fullmatch(r"key=\w{12}", key)
    assert line == f"verdict={verdict}"
    assert "](six.png)" not in (tmp_path / "summary.md").read_text()
    assert "'worse' && inputs.worse != 'pass'" in fails["if"]

    assert (done := run_step(comment, inputs, environment)).returncode == 0, done.stderr
    written = (tmp_path / "comment.md").read_text()
    shown = re.findall(r"!\[.*?\]\((.*?)\)", written)
    (picture,) = shown
    at = re.fullmatch(rf"file://{tmp_path}/you/repo/blob/(\w{{40}})/six.png\?raw=true", picture)[1]
    pushed = ["git", "--git-dir", str(tmp_path / "you/repo"), "show", f"{at}:six.png"]
    assert subprocess.run(pushed, capture_output=True, check=True).stdout == (output / "diff/six.png").read_bytes()
    assert written.count("NEW is worse: of") <= 1
    assert written.index("<details>") < written.index("What the verdict rests on")
    assert "(https://forge/artifact)" in written
    assert "--method POST repos/you/repo/issues/12/comments" in (tmp_path / "calls").read_text()

    environment["GITHUB_REPOSITORY"] = "you/nothing"  # a token that may not write, as of a fork
    done = run_step(comment, inputs, environment)
    assert (done.returncode, "::warning::no comment" in done.stdout) == (0, True)
    inputs["new"] = "nothing:at-all"
    assert run_step(diff_step, inputs, environment).returncode == 2


def test_the_action_compares_files_of_predictions_and_a_first_run_passes(tmp_path):
    (_, diff_step, _, comment, _), inputs = action_inputs()
    assert "steps.diff.outputs.verdict != 'first run'" in comment["if"]
    labels = [row % 10 for row in range(200)]
    rows = [f"{row}.png,{label}" for row, label in enumerate(labels)]
    worse = [f"{row},{(label + (label == 3)) % 10}" for row, label in zip(rows, labels, strict=True)]
    equal = [f"{row},{label}" for row, label in zip(rows, labels, strict=True)]
    for name, lines in (("new", worse), ("old", equal)):
        (tmp_path / f"{name}.csv").write_text("\n".join(["id,label,prediction", *lines]))
    files = {"old": str(tmp_path / "old.csv"), "new": str(tmp_path / "new.csv"), "output": str(tmp_path / "out")}
    inputs |= files | {"junit": str(tmp_path / "diff.xml")}
    environment = runner(tmp_path)
    assert (done := run_step(diff_step, inputs, environment)).returncode == 0, done.stderr
    assert (tmp_path / "output").read_text().endswith("\nverdict=worse\n")
    assert "| 3 → 4 | 20 | 20 | 0 |" in (tmp_path / "summary.md").read_text()
    if shutil.which("jq"):
        assert run_step(comment, inputs, environment).returncode == 0
        written = (tmp_path / "comment.md").read_text()
        assert "NEW is worse: 20 of 20 images of class 3 are negative flips; of 200 images" in written
    (tmp_path / "old.csv").unlink()
    (tmp_path / "output").unlink()
    done = run_step(diff_step, inputs, environment)
    assert (done.returncode, "::warning::" in done.stdout) == (0, True)
    assert (tmp_path / "output").read_text().endswith("\nverdict=first run\n")
