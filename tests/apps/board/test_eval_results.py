"""Results in the Hub's own format: a benchmark's tasks, entries for models, and pull requests that come once."""

import json
import re
from pathlib import Path

import httpx2
import pytest
import yaml
from commands import FAULTS, run, run_jobs
from huggingface_hub import HfApi, constants, parse_eval_result_entries
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from fmrgen import evaluate
from fmrgen.apps.board.submit import read_models
from fmrgen.errors import UserError
from fmrgen.publish.benchmark import write_benchmark
from fmrgen.publish.eval_results import read_eval_results, results_of, write_eval_results
from fmrgen.publish.results import Recorded
from fmrgen.results.evaluation import read_figures

LENET = "asset:mnist/lenet"
NETS = 20
NO_ANSWERS = {name: {"status": 200, "body": body} for name, body in {"null": "null", "list": "[]"}.items()}


def of_the_hub(split, folder, classifiers=("mine",), revision="c" * 40):
    """The report folder of an evaluation, its split as if it had been read from the Hub, and its entries for models."""
    folder.mkdir(parents=True, exist_ok=True)
    evaluation = evaluate([str(split)], [f"{classifiers[0]}={LENET}"])
    told = json.loads(evaluation.to_json())
    told["splits"][0] |= {"repo": "someone/digits", "revision": revision}
    told["classifiers"] = [told["classifiers"][0] | {"name": name} for name in classifiers]
    told["results"] = [told["results"][0] | {"classifier": name} for name in classifiers]
    (folder / "evaluation.json").write_text(json.dumps(told))
    figures = read_figures(folder / "evaluation.json")
    return figures, write_eval_results(figures, [Recorded("", "d" * 40)], folder / "eval-results")


def test_entries_are_what_the_hubs_library_reads(split, tmp_path):
    figures, (path,) = of_the_hub(split, tmp_path)
    assert path.parent == results_of(tmp_path / "eval-results", figures.classifiers[0])
    assert path.parent.name == ".eval_results"
    (entry,) = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    total = figures.results[0].total
    assert (entry.dataset_id, entry.task_id, entry.dataset_revision) == ("someone/digits", "mnist-lenet", "c" * 40)
    assert entry.value == round(total.fmr.value, 2)
    assert entry.source_url.endswith(
        f"/datasets/someone/digits/blob/{'d' * 40}/results/mnist/lenet/{path.parts[-3]}.json"
    )
    assert f"FMR {total.fmr} %; SA {total.standard_accuracy}" in entry.notes
    assert "made against this model" in entry.notes
    provenance = json.loads((split / "provenance/mnist/lenet.json").read_text())
    assert f"split mnist-lenet-{provenance['fingerprint']}-" in entry.notes
    assert entry.date.startswith("20")


def test_a_split_that_is_not_on_the_hub_has_no_entry(split, tmp_path):
    assert of_the_hub(split, tmp_path, revision=None)[1] == []


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
    job = {"world": "0", "arguments": ["push", str(split), "someone/digits"], "fault": refused}
    ((pushed,),) = run_jobs(hub, tmp_path, [job])
    assert pushed[0] == 0, pushed
    told = "pushed without eval.yaml, so it has no board of the Hub's: someone/digits: the Hub answered 400"
    assert told in pushed[2]
    there = hub.world("0").files("someone/digits")
    assert "eval.yaml" not in there
    assert "provenance/mnist/lenet.json" in there


@pytest.mark.parametrize("text", ["[1]", "{}", "a: {b: c}", "a: [", ""])
def test_a_map_of_models_that_is_none(tmp_path, text):
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(UserError, match="must map the names of classifiers to model repos"):
        read_models(tmp_path / "map.yaml")


def test_what_there_is_not_to_submit(split, tmp_path, capsys):
    of_the_hub(split, tmp_path / "a")
    of_the_hub(split, tmp_path / "b", revision=None)
    (tmp_path / "map.yaml").write_text("mine: team/net\nyours: team/other\n")
    assert run("submit", tmp_path / "a", "--models", tmp_path / "map.yaml") == 2
    assert "has no classifier yours; choose from mine" in capsys.readouterr().err
    (tmp_path / "map.yaml").write_text("mine: team/net\n")
    assert run("submit", tmp_path / "b", "--models", tmp_path / "map.yaml") == 2
    assert "has no results of mine to submit; evaluate splits on the Hub with --eval-results" in capsys.readouterr().err
    assert run("submit", tmp_path / "c", "--models", tmp_path / "map.yaml") == 2
    assert run("submit", tmp_path / "a", "--models", tmp_path / "none.yaml") == 2


def test_only_what_the_evaluation_gives_is_sent(split, tmp_path, capsys):
    figures, (path,) = of_the_hub(split, tmp_path / "a")
    mine = figures.classifiers[0]
    own = path.read_bytes()

    def read():
        results = read_eval_results(figures, mine, tmp_path / "a/eval-results")
        return {result.path: result.content for result in results}

    in_repo = f".eval_results/{path.name}"
    assert read() == {in_repo: own}
    (entry,) = yaml.safe_load(own)
    mirrored = entry | {"source": entry["source"] | {"url": entry["source"]["url"].replace("huggingface.co", "mirror")}}
    path.write_text(f"# private\n{yaml.safe_dump([mirrored])}")
    assert read() == {in_repo: own}
    for changed in (
        b"password: hunter2",
        b"\xff",
        yaml.safe_dump([entry | {"value": 99.9}]).encode(),
        yaml.safe_dump([entry | {"date": "soon"}]).encode(),
        yaml.safe_dump([entry | {"more": "private"}]).encode(),
        yaml.safe_dump([entry | {"source": {"url": "https://evil/", "name": "fmrgen"}}]).encode(),
        yaml.safe_dump([entry, entry]).encode(),
    ):
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r"is not what this evaluation gives; delete it|can't be read"):
            read()
    path.write_bytes(own)
    path.with_name("other.yaml").write_bytes(own)
    with pytest.raises(UserError, match=r"other\.yaml: is not what this evaluation gives"):
        read()
    path.with_name("other.yaml").unlink()
    path.rename(tmp_path / "private")
    path.symlink_to(tmp_path / "private")
    (tmp_path / "map.yaml").write_text("mine: team/net\n")
    assert run("submit", tmp_path / "a", "--models", tmp_path / "map.yaml") == 2
    assert "is a link that leads out of the folder and is not followed" in capsys.readouterr().err


def test_results_at_chance_are_not_sent(split, tmp_path, capsys):
    of_the_hub(split, tmp_path / "a", ["good", "broken"])
    path = tmp_path / "a/evaluation.json"
    told = json.loads(path.read_text())
    told["results"][1]["at_chance"] = True
    path.write_text(json.dumps(told))
    figures = read_figures(path)
    write_eval_results(figures, [Recorded("", "d" * 40)], tmp_path / "a/eval-results")
    (tmp_path / "map.yaml").write_text("broken: team/net\n")
    capsys.readouterr()
    assert run("submit", tmp_path / "a", "--models", tmp_path / "map.yaml") == 0
    said = capsys.readouterr()
    assert said.out == "broken: team/net: left out, as hardly better than chance\n"
    assert said.err.startswith("hardly better than chance on the originals, and not sent: broken on mnist/lenet; are ")


@pytest.mark.slow
def test_a_pull_request_for_each_model_and_never_a_second(hub, split, tmp_path):
    names = [f"net{number}" for number in range(NETS)]
    of_the_hub(split, tmp_path / "evaluation", names)
    models = {name: f"team/{name}" for name in names}
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(models))
    (tmp_path / "one.yaml").write_text(yaml.safe_dump({"net0": "team/net0"}))
    for name in ("all", "one"):
        world = hub.world(name)
        for model in models.values():
            world.create(f"models/{model}", False)
    arguments = ["submit", str(tmp_path / "evaluation"), "--models", str(tmp_path / "map.yaml")]
    dry, first, again = (
        run_jobs(hub, tmp_path, [{"world": "all", "arguments": [*arguments, *more]}])[0]
        for more in (["--dry-run"], [], [])
    )
    everything = hub.world("all")
    assert [call[0] for call in (*dry, *first, *again)] == [0, 0, 0], (dry, first, again)
    assert dry[0][2].count("would open a pull request, .eval_results/someone--digits--mnist-lenet.yaml") == NETS
    assert first[0][2].count("opened a pull request") == NETS
    (tmp_path / "some.yaml").write_text(yaml.safe_dump({"net0": "team/gone", "net1": "team/net1", "net2": "a b"}))
    some = ["submit", str(tmp_path / "evaluation"), "--models", str(tmp_path / "some.yaml"), "--dry-run"]
    ((told, *_),) = run_jobs(hub, tmp_path, [{"world": "all", "arguments": some, "calls": 1}])
    lines = told[2].splitlines()
    assert lines[0] == "net0: team/gone: no such model repo, or none that your token may read"
    assert lines[1].startswith("net1: team/net1: a pull request is open")
    assert lines[2].startswith("net2: a b: not a valid repo name, choose another")
    assert (told[0], told[1].count("\n")) == (2, 1)
    assert "some.yaml: the repos of net0, net2 take no results; correct them" in told[1]
    assert again[0][2].count("a pull request is open") == NETS
    assert {len(everything.repos[f"models/{model}"]["pull_requests"]) for model in models.values()} == {1}

    # Whichever request fails, and however: one pull request with the same files.
    one = ["submit", str(tmp_path / "evaluation"), "--models", str(tmp_path / "one.yaml")]
    begin = hub.copy_world("one", "expected")
    ((done,),) = run_jobs(hub, tmp_path, [{"world": "expected", "arguments": one}])
    assert done[0] == 0, done
    jobs = []
    for position in range(len(begin.requests)):
        for name, fault in {**{name: FAULTS[name] for name in ("500", "killed after")}, **NO_ANSWERS}.items():
            world = f"{name}{position}".replace(" ", "")
            hub.copy_world("one", world)
            jobs.append({"world": world, "arguments": one, "fault": {"at": position, **fault}})
    for job, calls in zip(jobs, run_jobs(hub, tmp_path, jobs), strict=True):
        met = f"{job['fault']}: {calls}"
        assert calls[-1][0] == 0, met
        assert len(calls) == (2 if job["fault"].get("killed") else 1), met
        assert not any("Traceback" in stderr or "writer-" in stderr for _, stderr, _ in calls), met
        assert len(hub.world(job["world"]).repos["models/team/net0"]["pull_requests"]) == 1, met
        assert hub.world(job["world"]).files("models/team/net0", "refs/pr/1") == begin.files(
            "models/team/net0", "refs/pr/1"
        )

    # Results that changed go to the pull request that is open; once it is merged there is nothing to do.
    entry = next(Path(tmp_path / "evaluation/eval-results").glob("net0*/.eval_results/*.yaml"))
    entry.write_text(re.sub(r"date: '\d{4}", "date: '2020", entry.read_text()))
    ((updated,),) = run_jobs(hub, tmp_path, [{"world": "expected", "arguments": one}])
    assert "updated your open pull request" in updated[2], updated
    repo = begin.repos["models/team/net0"]
    repo["refs"]["main"] = repo["refs"]["refs/pr/1"]
    ((merged,),) = run_jobs(hub, tmp_path, [{"world": "expected", "arguments": one}])
    assert "net0: team/net0: has these results" in merged[2], merged
    assert len(repo["pull_requests"]) == 1


def test_an_outage_is_not_taken_for_files_that_are_not_there(hub, monkeypatch):
    """Else a second pull request would be opened for what is proposed already."""
    from fmrgen.apps.board import submit
    from fmrgen.hub import client

    def is_out(*arguments, **options):
        answer = httpx2.Response(503, request=httpx2.Request("GET", hub.address))
        raise LocalEntryNotFoundError("no such file here") from HfHubHTTPError("503", response=answer)

    monkeypatch.setattr(client, "hf_hub_download", is_out)
    model = submit._Model("team/net", print)
    with pytest.raises(LocalEntryNotFoundError):
        model._has({".eval_results/x.yaml": b"1"}, "main")


@pytest.mark.slow
def test_from_the_split_to_the_board(hub, split, tmp_path, monkeypatch):
    """A push, an evaluation from the Hub, and the board that reads the pull request."""
    ((pushed,),) = run_jobs(hub, tmp_path, [{"world": "0", "arguments": ["push", str(split), "someone/digits", "-q"]}])
    assert pushed[0] == 0, pushed
    world = hub.world("0")
    told = yaml.safe_load((world.blobs / world.files("someone/digits")["eval.yaml"]).read_text())
    assert told["tasks"] == [{"id": "mnist-lenet", "config": "mnist", "split": "lenet"}]
    world.create("models/team/net", False)
    (tmp_path / "map.yaml").write_text("mine: team/net\n")
    folder = tmp_path / "evaluation"
    evaluation = ["evaluate", "someone/digits", "-c", f"mine={LENET}", "-q", "--eval-results", "-o", str(folder)]
    submission = ["submit", str(folder), "--models", str(tmp_path / "map.yaml")]
    for arguments in (evaluation, submission):
        ((done,),) = run_jobs(hub, tmp_path, [{"world": "0", "arguments": arguments}])
        assert done[0] == 0, done
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    api = HfApi(hub.address, token="writer")
    (entry,) = api.get_dataset_leaderboard("someone/digits")
    fmr = read_figures(folder / "evaluation.json").results[0].total.fmr
    assert (entry.model_id, entry.value, entry.pull_request) == ("team/net", round(fmr.value, 2), 1)
    # What the entry points to is there, at that commit.
    commit, path = re.fullmatch(rf"{hub.address}/datasets/someone/digits/blob/(\w+)/(.+)", entry.source["url"]).groups()
    assert (
        json.loads((world.blobs / world.files("someone/digits", commit)[path]).read_text())["fmr"]["value"] == fmr.value
    )
