"""Pushing to a (real, small) Hub: what is there afterwards, whatever goes wrong on the way."""

import hashlib
import json
import os
import re
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from commands import FAULTS, fmrgen, launched, push, push_refused, pushed, python, run_jobs, upload, wait_for

from fmrgen.publish.card import write_card
from fmrgen.records import Perturbed, StopReason
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import new_run, read_provenance
from fmrgen.storage.shards import SplitFolder

REPO = "someone/digits"
LENET = "asset:mnist/lenet"


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def renamed(split, folder, name):
    """A copy of a split's folder, in which it is another split of the same config."""
    shutil.copytree(split, folder)
    told = json.loads((folder / "provenance/mnist/lenet.json").read_text())
    told["recipe"]["output"]["split"] = name
    told["files"] = {path.replace("lenet-", f"{name}-"): digest for path, digest in told["files"].items()}
    (folder / "provenance/mnist/lenet.json").write_text(json.dumps(told | {"fingerprint": "f" * 16}))
    for path in [*folder.glob("*/mnist/lenet*"), *folder.glob("mnist/lenet-*")]:
        path.rename(path.with_name(path.name.replace("lenet", name)))
    return folder


@pytest.fixture
def other(finished_split, tmp_path):
    return renamed(finished_split, tmp_path / "other", "twin")


def shortened(folder):
    """Writes the first shard of the split in `folder` in other bytes, and takes the last one away."""
    path = folder / "provenance/mnist/lenet.json"
    told = json.loads(path.read_text())
    first, _, last = told["files"]
    pq.write_table(pq.read_table(folder / first), folder / first, compression="none")
    told["files"][first] = hashlib.sha256((folder / first).read_bytes()).hexdigest()
    (folder / last).unlink()
    del told["files"][last]
    edit_json(path, files=told["files"], examples=80, fingerprint="0" * 16, summary=told["summary"] | {"rows": 80})


@pytest.mark.slow
@pytest.mark.parametrize("scene", [pytest.param("new repo", marks=pytest.mark.nightly), "replaced beside another"])
def test_a_push_ends_the_same_whichever_request_of_it_fails(hub, split, other, tmp_path, scene):
    arguments = ["push", str(split), REPO, "--quiet"]
    if scene == "replaced beside another":
        for folder in (split, other):
            job = {"world": "begin", "arguments": ["push", str(folder), REPO, "--quiet"]}
            assert run_jobs(hub, tmp_path, [job]) == [[[0, "", ""]]]
        shortened(split)
        arguments.append("--replace")
        begin, faults = "begin", {name: FAULTS[name] for name in ("unanswered", "killed after")}
    else:
        begin, faults = "nothing", {name: FAULTS[name] for name in FAULTS if name not in ("429", "killed")}
        hub.world(begin)
    expected = hub.copy_world(begin, "expected")
    assert run_jobs(hub, tmp_path, [{"world": "expected", "arguments": arguments}]) == [[[0, "", ""]]]
    requests = expected.requests
    jobs = []
    for position in range(len(requests)):
        for name, fault in faults.items():
            world = f"{name}{position}".replace(" ", "")
            hub.copy_world(begin, world)
            jobs.append({"world": world, "arguments": arguments, "fault": {"at": position, **fault}})
    done = run_jobs(hub, tmp_path, jobs)
    for job, calls in zip(jobs, done, strict=True):
        world = hub.world(job["world"])
        met = f"{job['fault']}: {world.requests} {calls}"
        assert [status for status, *_ in calls][-1] == 0, met
        assert len(calls) == (2 if job["fault"].get("killed") else 1), met
        assert not any("Traceback" in stderr or "writer-" in stderr for _, stderr, _ in calls), met
        assert world.files(REPO) == expected.files(REPO), met
        assert world.repos[REPO]["tags"].keys() == expected.repos[REPO]["tags"].keys(), met
        assert world.history(REPO) == expected.history(REPO), met
        # No finished file is sent twice, but for one whose receipt was lost on the way.
        fault = job["fault"]
        lost_receipt = fault == {"at": fault["at"], "drop": "after"} and "PUT" in requests[fault["at"]]
        assert set(world.uploads) == set(expected.uploads), met
        assert len(world.uploads) <= len(expected.uploads) + lost_receipt, met


SPLITS = """
import sys, hashlib
from datasets import Image, load_dataset
for name in sys.argv[2:]:
    config, _, split = name.partition("/")
    rows = load_dataset(sys.argv[1], config, split=split)
    digest = hashlib.sha256()
    for column in ("image", "original"):
        for row in rows.cast_column(column, Image(decode=False))[column]:
            digest.update(row["bytes"])
    print(name, len(rows), digest.hexdigest())
"""


def loaded(hub, repo, *names):
    """What `load_dataset` finds: rows and a digest of all images, for each split."""
    return dict(line.split(" ", 1) for line in python(hub, SPLITS, repo, *names).splitlines())


@pytest.mark.slow
def test_pushed_splits_load_and_evaluate_as_from_the_folder(hub, split, other, tmp_path):
    shutil.copytree(other, split, dirs_exist_ok=True)
    write_card(split)
    told = pushed(hub, split, REPO).stdout
    assert "someone/digits (private): pushed mnist/lenet, mnist/twin\n" in told
    files = hub.world().files(REPO)
    for path in split.rglob("*.parquet"):
        assert files[str(path.relative_to(split))] == hashlib.sha256(path.read_bytes()).hexdigest()
    tasks = yaml.safe_load((hub.world().blobs / files["eval.yaml"]).read_text())["tasks"]
    assert [task["id"] for task in tasks] == ["mnist-lenet", "mnist-twin"]
    names = ("mnist/lenet", "mnist/twin")
    assert loaded(hub, REPO, *names) == loaded(hub, str(split), *names)
    figures = []
    for where in (split, REPO):
        out = tmp_path / f"figures-{len(figures)}"
        references = [f"{where}:{name}" for name in names]
        result = fmrgen("evaluate", *references, "-c", LENET, "-q", "-o", out, **hub.environment)
        assert result.returncode == 0, result.stderr
        results = json.loads((out / "evaluation.json").read_text())["results"]
        figures.append([{**result, "split": ""} for result in results])
    assert figures[0] == figures[1]
    tag = next(line for line in told.splitlines() if "cite as" in line and "-lenet-" in line).split("@")[1]
    script = """
import sys
from datasets import load_dataset
stream = load_dataset(sys.argv[1], "mnist", split="lenet", revision=sys.argv[2], streaming=True)
print(sum(row["valid"] for row in stream.select_columns(["valid"])))
"""
    valid = sum(pq.read_table(path)["valid"].to_pylist().count(True) for path in split.glob("mnist/lenet-*"))
    before = len(hub.world().requests)
    assert python(hub, script, REPO, tag) == str(valid)
    assert len(hub.world().requests) - before < 40


@pytest.mark.slow
def test_reading_some_columns_does_not_fetch_the_images(hub, split):
    noise = torch.randint(0, 256, (200, 3, 160, 160), dtype=torch.uint8)
    columns = pq.read_table(split / "mnist/lenet-00000-of-00003.parquet").to_pylist()[0]
    columns |= {"score": 0.5, "probability": 0.5, "margin": 0.5}
    values = {name: value for name, value in columns.items() if name in Perturbed.__dataclass_fields__}
    values["stop_reason"] = StopReason.BUDGET
    rows = [Perturbed(**{**values, "id": i, "image": image, "original": image}) for i, image in enumerate(noise)]
    told = read_provenance(SplitPaths(split, "mnist", "lenet"))
    folder = SplitFolder(SplitPaths(split, "mnist", "big"), 200, 200)
    folder.paths.provenance.write_bytes(told.model_copy(update={"runs": [new_run("cpu")]}).encoded)
    folder.write_shard(0, rows, [], told)
    size = folder.shard_path(0).stat().st_size
    upload(hub, split, REPO)
    script = """
import sys
from datasets import load_dataset
address = f"hf://datasets/{sys.argv[1]}/mnist/big-*.parquet"
rows = load_dataset("parquet", data_files=address, split="train", columns=["id", "valid"], streaming=True)
print(len(list(rows)))
"""
    before = hub.world().sent
    assert python(hub, script, REPO) == "200"
    assert size > 25e6
    assert hub.world().sent - before < size / 2


@pytest.mark.slow
def test_two_pushes_at_once_both_succeed(hub, split, other, tmp_path):
    pushed(hub, split, REPO, HF_TOKEN="writer-w")
    third = renamed(split, tmp_path / "third", "third")
    hub.fail("w", at=0, match="/commit/", slow=3)
    job = {"world": "w", "calls": 1}
    jobs = [job | {"arguments": ["push", str(folder), REPO, "--quiet"]} for folder in (other, third)]
    assert [[status for status, *_ in calls] for calls in run_jobs(hub, tmp_path, jobs)] == [[0], [0]]
    world = hub.world("w")
    assert sum("/commit/" in request for request in world.requests) == 4  # one of them came too late, once
    assert len(world.history(REPO)) == 4
    hub.environment["HF_TOKEN"] = "writer-w"
    found = loaded(hub, REPO, "mnist/lenet", "mnist/twin", "mnist/third")
    assert found == {name: f"120 {found['mnist/lenet'].split()[1]}" for name in found}
    assert len(world.repos[REPO]["tags"]) == 3


@pytest.mark.slow
def test_a_split_is_replaced_only_when_told_and_nothing_else_changes(hub, split, other, tmp_path):
    card = "---\nlicense: mit\npretty_name: Digits\n---\n\n# Ours\n\nWritten by hand.\n"
    commit_by_hand(hub, REPO, **{"README.md": card})
    pushed(hub, split, REPO)
    pushed(hub, other, REPO)
    before, first = hub.world().files(REPO), loaded(hub, REPO, "mnist/twin")
    shortened(split)
    told = push_refused("someone/digits: already contains another mnist/lenet (recipe", hub, split, REPO)
    assert "pass --replace" in told
    assert hub.world().files(REPO) == before
    pushed(hub, split, REPO, "--replace")
    after = hub.world().files(REPO)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert changed == {
        "README.md",
        "provenance/mnist/lenet.json",
        "mnist/lenet-00000-of-00003.parquet",
        "mnist/lenet-00002-of-00003.parquet",
    }
    assert "mnist/lenet-00002-of-00003.parquet" not in after
    assert loaded(hub, REPO, "mnist/twin") == first
    assert loaded(hub, REPO, "mnist/lenet")["mnist/lenet"].startswith("80 ")
    text = (hub.world().blobs / after["README.md"]).read_text()
    assert "# Ours\n\nWritten by hand.\n\n<!-- fmrgen" in text
    assert "pretty_name: Digits" in text
    assert "license:\n- mit\n- cc-by-sa-3.0\n" in text
    assert len(hub.world().repos[REPO]["tags"]) == 3  # the replaced one can still be cited
    assert "already up to date" in push(hub, split, REPO).stdout
    edit_json(other / "provenance/mnist/twin.json", weights_sha256={"generator": "x", "oracle": "x", "classifier": "x"})
    pushed(hub, other, REPO, "--replace")  # the very same files: only its record changed


@pytest.mark.slow
def test_configs_are_not_mixed(hub, split, other):
    pushed(hub, split, REPO)
    told = json.loads((other / "provenance/mnist/twin.json").read_text())
    told["recipe"]["oracle"]["prompts"] = ["a digit {class}"]
    (other / "provenance/mnist/twin.json").write_text(json.dumps(told))
    push_refused("someone/digits: config mnist has another oracle.prompts in its split lenet", hub, other, REPO)


@pytest.mark.parametrize(
    ("repo", "environment", "message"),
    [
        (REPO, {"HF_TOKEN": "nobody"}, "does not know your token: log in with `hf auth login`, or set HF_TOKEN"),
        (REPO, {"HF_TOKEN": ""}, "you are not logged in to the Hub"),
        (REPO, {"HF_TOKEN": "reader"}, "use a token with write access to someone, or another name"),
        ("elsewhere/digits", {}, "the Hub refused: You don't have the rights"),
        (f"someone/{'x' * 100}", {}, "not a valid repo name, choose another"),
        ("someone/a b", {}, "not a valid repo name, choose another"),
        ("a/b/c", {}, "not a valid repo name, choose another"),
        (REPO, {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set; unset it"),
        (REPO, {"HF_ENDPOINT": "http://127.0.0.1:9"}, "the Hub can't be reached ([Errno 111] Connection refused); run"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(hub, split, repo, environment, message):
    push_refused(message, hub, split, repo, **environment)
    assert not hub.world().repos
    assert not hub.world().uploads


@pytest.mark.slow
def test_a_gated_repo_and_a_full_one(hub, split, other):
    pushed(hub, split, REPO)
    world = hub.world()
    world.repos[REPO]["gated"] = True
    before = world.files(REPO)
    push_refused("someone/digits: accept its terms on ", hub, other, REPO)
    world.repos[REPO]["gated"] = False
    hub.fail(at=0, match="/lfs/objects/batch", status=403, message="Private repository storage limit reached")
    push_refused("Private repository storage limit reached", hub, other, REPO)
    assert world.files(REPO) == before
    pushed(hub, other, REPO)


@pytest.mark.slow
def test_what_the_server_does_wrong_for_a_moment_is_got_over(hub, split, other):
    pushed(hub, split, REPO)
    for fault in (
        {"match": "/commit/", "status": 412, "message": "a commit has happened since"},
        {"match": "/resolve/", "etag": "0" * 64},
        {"match": "PUT /lfs/", "slow": 2},
    ):
        hub.fail(at=0, **fault)
    result = pushed(hub, other, REPO)
    assert "the Hub returned 412; trying again" in result.stderr
    assert loaded(hub, REPO, "mnist/twin")["mnist/twin"].startswith("120 ")
    for number in range(6):
        hub.fail(at=number, match="/refs", status=429, headers={"Retry-After": "1"})
    result = push(hub, split, REPO)
    assert result.returncode == 2
    assert result.stderr.count("the Hub returned 429; trying again in 1 s") == 5
    assert "the Hub returned 429; run the same command again to continue" in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_branches_and_pull_requests(hub, split, other):
    pushed(hub, split, REPO)
    pushed(hub, other, REPO, "--revision", "next")
    world = hub.world()
    assert not any("twin" in path for path in world.files(REPO))
    assert any("twin" in path for path in world.files(REPO, "next"))
    world.repos[REPO]["refs"]["refs/pr/1"] = world.repos[REPO]["refs"]["main"]
    result = pushed(hub, other, REPO, "--revision", "refs/pr/1")
    assert "cite as" not in result.stdout
    assert any("twin" in path for path in world.files(REPO, "refs/pr/1"))
    for repo in (REPO, "someone/none"):
        message = f"{repo}: has no pull request refs/pr/7; open one on its page"
        push_refused(message, hub, other, repo, "--revision", "refs/pr/7")
    assert "someone/none" not in world.repos


@pytest.mark.slow
def test_a_repo_is_private_unless_told(hub, split):
    pushed(hub, split, REPO)
    assert hub.world().repos[REPO]["private"]
    result = pushed(hub, split, "someone/open", "--public")
    assert not hub.world().repos["someone/open"]["private"]
    assert "note" not in result.stdout  # the recipe says a licence under which one may share
    message = "someone/open: is a public repo; if these images may be published, pass --public"
    push_refused(message, hub, split, "someone/open")
    push_refused(message, hub, split, "someone/open", "--revision", "next")  # nor through a new branch
    path = split / "provenance/mnist/lenet.json"
    told = json.loads(path.read_text())
    for licence, message in (("other", "is other"), (None, "is not said (source.license)")):
        told["recipe"]["source"]["license"] = licence
        path.write_text(json.dumps(told))
        result = push(hub, split, "someone/open", "--public")
        assert f"note: mnist/lenet is public, and the licence of its source {message}: make sure" in result.stdout


@pytest.mark.slow
def test_only_what_is_finished_and_as_it_was_checked_is_pushed(hub, split, other):
    shutil.copytree(other, split, dirs_exist_ok=True)
    edit_json(split / "provenance/mnist/twin.json", finished=False)
    for folder, message in (
        (f"{split}:mnist/twin", "mnist/twin is not finished and stays here; run the same generate command again"),
        (f"{split}:mnist/vgg", "contains no perturbed split"),
        (split / "nowhere", "no such folder; push the --output of a generate command"),
        (split / "mnist", "contains no perturbed split"),
    ):
        push_refused(message, hub, folder, REPO)
    shard = split / "mnist/lenet-00001-of-00003.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content + b" ")
    assert "is not the file that was checked; delete it, and run the same generate" in push(hub, split, REPO).stderr
    shard.unlink()
    assert f"{shard}: is gone; run the same generate command again" in push(hub, split, REPO).stderr
    assert not hub.world().repos
    shard.write_bytes(content)
    pipe = split / "results/mnist/lenet/x.json"
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    assert f"{pipe}: can't be read: is a pipe, a socket or a device" in push(hub, split, REPO).stderr
    pipe.unlink()
    result = pushed(hub, split, REPO)
    assert "note: mnist/twin is not finished and stays here" in result.stdout
    assert not any("twin" in path for path in hub.world().files(REPO))


def commit_by_hand(hub, repo, **files):
    """A commit of somebody else's: contents by path, None deletes."""
    script = """
import sys, json
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
api, files = HfApi(), json.loads(sys.argv[2])
api.create_repo(sys.argv[1], repo_type="dataset", private=True, exist_ok=True)
operations = [
    CommitOperationDelete(path) if content is None else CommitOperationAdd(path, content.encode())
    for path, content in files.items()
]
api.create_commit(sys.argv[1], operations, commit_message="By hand", repo_type="dataset")
"""
    python(hub, script, repo, json.dumps(files))


@pytest.mark.slow
def test_answers_that_are_no_answers(hub, split, other):
    """A proxy's page, an error inside an answer, a token with a stray character: a line, not a traceback."""
    pushed(hub, split, REPO)
    page = {"status": 502, "body": "<html>Bad gateway</html>"}
    hub.fail(at=0, match="/validate-yaml", **page)
    hub.fail(at=0, match="/commit/", **page)
    result = pushed(hub, other, REPO)
    assert "Traceback" not in result.stderr
    shortened(split)
    error = {"objects": [{"oid": "0", "error": {"code": 422, "message": "Quota exceeded"}}]}
    hub.fail(at=0, match="/lfs/objects/batch", status=200, body=json.dumps(error))
    push_refused("someone/digits: the Hub rejected the files", hub, split, REPO, "--replace")
    push_refused("the token contains a character that no token has", hub, split, REPO, HF_TOKEN="hf_secret\u200babc")


def test_what_xet_is_refused_is_told_as_that(hub, split):
    """With Xet on, as it is by default: the client's other way to send files."""
    hub.fail(at=0, match="xet-write-token", status=403, message="Your storage is full")
    push_refused("someone/digits: the Hub refused", hub, split, REPO, HF_HUB_DISABLE_XET="")


@pytest.mark.slow
def test_a_shard_that_somebody_takes_away_meanwhile_is_sent_again(hub, split, tmp_path):
    pushed(hub, split, REPO)
    before = hub.world().files(REPO)
    kept = "mnist/lenet-00001-of-00003.parquet"
    shortened(split)
    hub.fail(at=0, match="/commit/", slow=4)
    pushing = threading.Thread(target=lambda: done.append(push(hub, split, REPO, "--replace")))
    done = []
    pushing.start()
    wait_for(lambda: any("preupload" in request for request in hub.world().requests[-3:]), seconds=60)
    world = hub.world()
    commit = [{"key": "header", "value": {"summary": "By hand"}}, {"key": "deletedFile", "value": {"path": kept}}]
    with world.lock:
        world.commit(REPO, "main", commit)
    pushing.join()
    assert done[0].returncode == 0, done[0].stderr
    assert hub.world().files(REPO)[kept] == before[kept]


@pytest.mark.slow
def test_a_damaged_split_is_mended_by_pushing_it_again(hub, split):
    pushed(hub, split, REPO)
    before = hub.world().files(REPO)
    shard, picture = "mnist/lenet-00001-of-00003.parquet", "pictures/mnist/lenet.png"
    commit_by_hand(hub, REPO, **{shard: "junk", picture: None})
    result = pushed(hub, split, REPO)
    assert "pushed mnist/lenet" in result.stdout
    assert hub.world().files(REPO) == before


@pytest.mark.slow
def test_data_that_could_not_be_loaded_any_more_is_not_joined(hub, split, tmp_path):
    commit_by_hand(hub, REPO, **{"train.csv": "a\n1\n"})
    message = "contains data that its card does not list (train.csv), which load_dataset would no longer find"
    push_refused(message, hub, split, REPO)
    card = "---\nconfigs:\n- data_files: train.csv\n---\n"
    commit_by_hand(hub, REPO, **{"README.md": card})
    message = "contains data that is not parquet (train.csv), and load_dataset reads one format per repo"
    push_refused(message, hub, split, REPO)
    (tmp_path / "plain").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "plain/train.parquet")
    card = "---\nconfigs:\n- data_files: train.parquet\ndataset_info:\n  features:\n  - {name: a, dtype: int64}\n---\n"
    (tmp_path / "plain/README.md").write_text(card)
    upload(hub, tmp_path / "plain", "someone/plain")
    pushed(hub, split, "someone/plain", "--public")
    script = "import sys; from datasets import load_dataset; print(load_dataset(sys.argv[1], 'default')['train'][0])"
    assert python(hub, script, "someone/plain") == "{'a': 1}"
    assert loaded(hub, "someone/plain", "mnist/lenet")["mnist/lenet"].startswith("120 ")


@pytest.mark.slow
def test_what_others_put_where_fmrgen_reads_is_passed_over(hub, split):
    strangers = {"provenance/other/x.json": "{}", "provenance/other/y.json": "[]", "provenance/mnist/z.json": "{"}
    strangers["provenance/other/w.json"] = '{"finished": true}'
    commit_by_hand(hub, REPO, **strangers)
    pushed(hub, split, REPO)
    assert loaded(hub, REPO, "mnist/lenet")["mnist/lenet"].startswith("120 ")


def test_text_in_the_card_of_the_folder_arrives(hub, split):
    card = split / "README.md"
    text = re.sub("pretty_name: .*", "pretty_name: Ours", card.read_text(), count=1)
    card.write_text(text + "\n# By hand\n")
    pushed(hub, split, REPO)
    text = (hub.world().blobs / hub.world().files(REPO)["README.md"]).read_text()
    assert "pretty_name: Ours" in text
    assert "# By hand" in text


def test_files_that_the_repo_ignores_are_missed(hub, split):
    commit_by_hand(hub, REPO, **{"README.md": "Mine\n"})
    hub.world().repos[REPO]["ignored"] = r"\.png$"
    push_refused("rejected pictures/mnist/lenet.png; a .gitignore in it may match", hub, split, REPO)


def test_the_token_is_told_to_nobody(hub, split, tmp_path):
    secret = "writer-w_Sup3rS3cretT0ken"
    path = split / "provenance/mnist/lenet.json"
    clean = path.read_text()
    edit_json(path, recipe=json.loads(clean)["recipe"] | {"description": f"read with {secret}"})
    result = push(hub, split, REPO, HF_TOKEN=secret)
    assert result.returncode == 2
    assert re.search(r"(provenance/mnist/lenet\.json|README\.md): contains your token", result.stderr)
    assert secret not in result.stderr + result.stdout
    path.write_text(clean)
    world = hub.world(secret.partition("-")[2])
    hub.fail(world.root.name, at=0, match="/commit/", status=500)
    hub.fail(world.root.name, at=0, match="/tag/", status=403)
    result = push(hub, split, REPO, HF_TOKEN=secret)
    assert result.returncode == 2
    assert secret not in result.stdout + result.stderr
    files = [*world.blobs.iterdir(), *filter(Path.is_file, split.rglob("*"))]
    assert not any(secret.encode() in file.read_bytes() for file in files)


@pytest.mark.slow
def test_generating_and_pushing_in_one_command(hub, tmp_path):
    job = ("generate", "mnist-lenet", "--limit", "20", "perturb.budget=3", "--output", tmp_path / "out", "--push", REPO)
    stopped = fmrgen(*job, **{**hub.environment, "HF_TOKEN": "nobody"})
    assert (stopped.returncode, stopped.stderr.count("\n")) == (2, 1), stopped.stderr
    assert not (tmp_path / "out").exists()  # told before the work, not after it
    told = fmrgen(*job[:-2], "--public", **hub.environment)
    assert told.stderr == "fmrgen: --public only applies with --push REPO\n"
    result, second = launched(2, *job, **hub.environment)
    assert (result.returncode, second.returncode) == (0, 0), result.stderr
    assert "someone/digits (private): pushed mnist/lenet" in result.stdout
    assert loaded(hub, REPO, "mnist/lenet")["mnist/lenet"].startswith("20 ")
    again = fmrgen(*job, "perturb.budget=4", "--output", tmp_path / "more", **hub.environment)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1), again.stderr
    assert "someone/digits: already contains another mnist/lenet" in again.stderr
    assert not (tmp_path / "more").exists()


@pytest.mark.skipif(
    not (os.environ.get("HF_TOKEN") and os.environ.get("FMRGEN_TEST_NAMESPACE")),
    reason="needs HF_TOKEN and FMRGEN_TEST_NAMESPACE: writes to the real Hub",
)
def test_the_real_hub(split, other):
    from huggingface_hub import HfApi

    repo = f"{os.environ['FMRGEN_TEST_NAMESPACE']}/fmrgen-test-{os.getpid()}"
    online = {"HF_HUB_OFFLINE": "0"}
    try:
        for folder in (split, other):
            result = fmrgen("push", folder, repo, **online)
            assert result.returncode == 0, result.stderr
        names = ("mnist/lenet", "mnist/twin")
        hub = SimpleNamespace(environment=online)
        assert loaded(hub, repo, *names)[names[0]] == loaded(hub, split, names[0])[names[0]]
    finally:
        HfApi().delete_repo(repo, repo_type="dataset", missing_ok=True)
