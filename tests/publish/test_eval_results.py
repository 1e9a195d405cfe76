"""Results in the Hub's own format: a benchmark's tasks, entries for models, and pull requests that come once."""

import json

import httpx2
import pytest
import yaml
from commands import FAULTS, run, run_jobs
from huggingface_hub import parse_eval_result_entries
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from fmrgen import evaluate
from fmrgen.errors import UserError
from fmrgen.hub.client import HubClient
from fmrgen.publish import eval_results
from fmrgen.publish.benchmark import write_benchmark
from fmrgen.results.evaluation import read_figures

LENET = "asset:mnist/lenet"
PATH = ".eval_results/someone--digits--mnist-lenet.yaml"
GARBLED = {name: {"status": 200, "body": body} for name, body in {"null": "null", "list": "[]"}.items()}


@pytest.fixture(scope="module")
def figures(finished_split):
    """The text of an evaluation of `mine`."""
    return evaluate([str(finished_split)], [f"mine={LENET}"]).to_json()


@pytest.fixture
def report(figures, tmp_path):
    """Writes the report folder of it, its split as if it had been read from the Hub."""

    def write(revision="c" * 40, at_chance=False):
        tree = json.loads(figures)
        tree["splits"][0] |= {"repo": "someone/digits", "revision": revision}
        tree["results"][0]["total"]["at_chance"] = at_chance
        (tmp_path / "evaluation.json").write_text(json.dumps(tree))
        return tmp_path

    return write


def called(hub, tmp_path, world, *arguments, **job):
    """One call of a command in a world of the Hub: its exit status, stderr and stdout."""
    ((call,),) = run_jobs(hub, tmp_path, [{"world": world, "arguments": list(map(str, arguments)), **job}])
    return call


def test_entries_are_what_the_hubs_library_reads(finished_split, report):
    folder = report()
    ((path, content),) = eval_results._entries(folder, "mine").items()
    assert path == PATH
    (entry,) = parse_eval_result_entries(yaml.safe_load(content))
    total = read_figures(folder / "evaluation.json").results[0].total
    assert (entry.dataset_id, entry.task_id, entry.dataset_revision) == ("someone/digits", "mnist-lenet", "c" * 40)
    assert entry.value == round(total.fmr.value, 2)
    assert entry.source_url.endswith(f"/datasets/someone/digits/tree/{'c' * 40}")
    assert f"FMR {total.fmr} %; SA {total.standard_accuracy}" in entry.notes
    assert "generated against this model" in entry.notes
    provenance = json.loads((finished_split / "provenance/mnist/lenet.json").read_text())
    assert f"split mnist-lenet-{provenance['fingerprint']}-" in entry.notes


def test_tasks_that_others_wrote_stay(split):
    path = split / "eval.yaml"
    write_benchmark(split, "someone/digits")
    own = {"id": "mnist-lenet", "config": "mnist", "split": "lenet"}
    told = yaml.safe_load(path.read_text())
    assert (told["name"], told["evaluation_framework"], told["tasks"]) == ("digits", "fmrgen", [own])
    theirs = {
        "name": "Digits",
        "extra": 1,
        "tasks": [{"id": "reading", "config": "a", "split": "b"}, own | {"note": "x"}],
    }
    path.write_text(yaml.safe_dump(theirs))
    for _ in range(2):
        write_benchmark(split, "someone/digits")
        told = yaml.safe_load(path.read_text())
        assert (told["name"], told["extra"], told["evaluation_framework"]) == ("Digits", 1, "fmrgen")
        assert told["tasks"] == theirs["tasks"]


@pytest.mark.parametrize(
    "text", ["[1]", "tasks: 3", "tasks: [a]", "tasks: [{config: a}]", "a: [", "\x00", "[" * 5000, "\udcff"]
)
def test_an_eval_yaml_that_is_none(split, text):
    (split / "eval.yaml").write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match=r"someone/digits: eval.yaml: .*fix it by hand"):
        write_benchmark(split, "someone/digits")


@pytest.mark.slow
def test_where_the_hub_takes_no_eval_yaml_the_splits_go_without(hub, split, tmp_path):
    refused = {"at": 0, "match": "/commit/main", "status": 400, "message": "unknown evaluation_framework"}
    pushed = called(hub, tmp_path, "0", "push", split, "someone/digits", fault=refused)
    assert pushed[0] == 0, pushed
    warning = "pushed without eval.yaml, so it has no board of the Hub's: someone/digits: the Hub returned 400"
    assert warning in pushed[2]
    there = hub.world("0").files("someone/digits")
    assert "eval.yaml" not in there
    assert "provenance/mnist/lenet.json" in there


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, "yours", "has no classifier yours; choose from mine"),
        ({"revision": None}, "mine", "has no FMR of mine on a split of the Hub; evaluate OWNER/NAME:CONFIG/SPLIT"),
        ({"at_chance": True}, "mine", "mine: is hardly better than chance on the originals of"),
        ({}, "mine --replace", "--results: can't be combined with"),
        (None, "mine", "evaluation.json: can't be read"),
    ],
)
def test_what_there_is_not_to_push(report, tmp_path, capsys, changes, options, message):
    if changes is not None:
        report(**changes)
    assert run("push", tmp_path, "team/net", "--results", *options.split()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_one_pull_request_whichever_request_fails(hub, report, tmp_path):
    folder = report()
    hub.world("one").create("models/team/net", False)
    command = ["push", str(folder), "team/net", "--results", "mine"]
    begin = hub.copy_world("one", "expected")
    first = called(hub, tmp_path, "expected", *command)
    requests = len(begin.requests)
    again = called(hub, tmp_path, "expected", *command)
    assert (first[0], again[0]) == (0, 0), (first, again)
    assert first[2].startswith("team/net: opened http")
    assert again[2].startswith("team/net: has these results already: http")
    gone = called(hub, tmp_path, "expected", "push", folder, "team/gone", "--results", "mine", calls=1)
    assert (gone[0], gone[1].count("\n")) == (2, 1)
    assert "team/gone: no such model repo, or none that your token may read" in gone[1]

    faults = {name: FAULTS[name] for name in ("500", "killed after")} | GARBLED
    jobs = []
    for position in range(requests):
        for name, fault in faults.items():
            world = f"{name}{position}".replace(" ", "")
            hub.copy_world("one", world)
            jobs.append({"world": world, "arguments": command, "fault": {"at": position, **fault}})
    proposed = begin.files("models/team/net", "refs/pr/1")
    for job, calls in zip(jobs, run_jobs(hub, tmp_path, jobs), strict=True):
        met = f"{job['fault']}: {calls}"
        assert calls[-1][0] == 0, met
        assert not any("Traceback" in stderr or "writer-" in stderr for _, stderr, _ in calls), met
        assert len(hub.world(job["world"]).repos["models/team/net"]["pull_requests"]) == 1, met
        assert hub.world(job["world"]).files("models/team/net", "refs/pr/1") == proposed, met

    # Results that changed go to the pull request that is open; once it is merged there is nothing to do.
    report(revision="b" * 40)
    updated = called(hub, tmp_path, "expected", *command)
    assert updated[2].startswith("team/net: updated http"), updated
    repo = begin.repos["models/team/net"]
    repo["refs"]["main"] = repo["refs"]["refs/pr/1"]
    merged = called(hub, tmp_path, "expected", *command)
    assert merged[2] == f"team/net: has these results already: {PATH}\n"
    assert len(repo["pull_requests"]) == 1


def test_an_outage_is_not_taken_for_files_that_are_not_there(hub, monkeypatch):
    """Else a second pull request would be opened for what is proposed already."""
    from fmrgen.hub import client

    def is_out(*arguments, **options):
        response = httpx2.Response(503, request=httpx2.Request("GET", hub.address))
        raise LocalEntryNotFoundError("no such file here") from HfHubHTTPError("503", response=response)

    monkeypatch.setattr(client, "hf_hub_download", is_out)
    with pytest.raises(LocalEntryNotFoundError):
        eval_results._has(HubClient("team/net", "model"), {PATH: b"1"}, "main")
