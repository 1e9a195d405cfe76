"""Tasks of a scheduler, faked by the variables that it sets: they share a job as the processes of a launcher do."""

import json
import os

import pytest
import warm
from stored import assert_same_rows, rows

from fmrgen.distributed.launch import start_process
from fmrgen.distributed.schedulers import adopt_scheduler, first_host, tasks_of_nodes

WORDS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SLURM = {"SLURM_JOB_ID": "71", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "gpu[07-09,12],cpu1"}


def slurm(rank, tasks=2, here=0, node=0, per_node="2"):
    return SLURM | {
        "SLURM_PROCID": str(rank),
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_LOCALID": str(here),
        "SLURM_NODEID": str(node),
        "SLURM_STEP_TASKS_PER_NODE": per_node,
    }


def open_mpi(rank):
    values = {"RANK": rank, "SIZE": 2, "LOCAL_RANK": rank, "LOCAL_SIZE": 2}
    return {f"OMPI_COMM_WORLD_{name}": str(value) for name, value in values.items()} | {"PMIX_NAMESPACE": "job@1"}


def hydra(rank):
    return {"PMI_RANK": str(rank), "PMI_SIZE": "2", "MPI_LOCALRANKID": str(rank), "MPI_LOCALNRANKS": "2"}


@pytest.fixture
def adopted(monkeypatch):
    """What a process with so many variables calls itself."""

    def adopt(variables):
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name in WORDS or name.startswith(("SLURM", "OMPI", "PMI"))]:
                patch.delenv(name)
            for name, value in variables.items():
                patch.setenv(name, value)
            before = dict(os.environ)
            adopt_scheduler()
            found = {name: os.environ[name] for name in WORDS if name in os.environ}
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
        return found

    return adopt


@pytest.mark.parametrize("variables", [slurm(1, here=1), open_mpi(1), hydra(1)], ids=["slurm", "open mpi", "pmi"])
def test_a_task_knows_its_number(adopted, variables):
    found = adopted(variables)
    assert 20000 <= int(found.pop("MASTER_PORT")) < 32000
    assert found == dict(zip(WORDS, ("1", "2", "1", "2", "127.0.0.1"), strict=False))


def test_tasks_on_several_nodes_meet_on_the_first(adopted):
    found = adopted(slurm(5, tasks=7, here=1, node=2, per_node="2(x3),1"))
    assert [found[name] for name in WORDS[:5]] == ["5", "7", "1", "2", "gpu07"]
    again = adopted(slurm(6, tasks=7, here=0, node=3, per_node="2(x3),1"))
    assert [again[name] for name in WORDS] == ["6", "7", "0", "1", "gpu07", found["MASTER_PORT"]]
    assert adopted(slurm(0) | {"SLURM_STEP_ID": "1"})["MASTER_PORT"] != found["MASTER_PORT"]


@pytest.mark.parametrize(
    "variables",
    [
        {},
        slurm(0, tasks=1, per_node="1"),
        {name: value for name, value in slurm(0).items() if name != "SLURM_STEP_ID"},  # a batch script
        slurm(0) | {"SLURM_PROCID": "what"},
        {"OMPI_COMM_WORLD_RANK": "0"},
    ],
    ids=["alone", "one task", "batch script", "no number", "half"],
)
def test_others_are_alone(adopted, variables):
    assert adopted(variables) == {}


def test_a_launchers_own_words_count(adopted):
    assert adopted(slurm(1) | {"RANK": "0", "WORLD_SIZE": "4"}) == {"RANK": "0", "WORLD_SIZE": "4"}


def test_short_forms():
    assert tasks_of_nodes("2(x3),1") == [2, 2, 2, 1]
    assert tasks_of_nodes("") == []
    assert [first_host(text) for text in ("a", "a1,b", "n[3,5]", "rack2-[01-04].x,b", "")] == [
        *("a", "a1", "n3", "rack2-01.x", "")
    ]


def test_a_script_of_ones_own_is_a_task_too(adopted, monkeypatch):
    called = []
    monkeypatch.setattr("fmrgen.distributed.launch.adopt_scheduler", lambda: called.append(1))
    assert start_process().type in ("cpu", "cuda")
    assert called


def srun(tasks, *arguments, cwd):
    """What `srun fmrgen …` does: starts as many processes, with a task's variables, and waits for all."""
    started = []
    for variables in tasks:
        kept = {name: value for name, value in os.environ.items() if name not in WORDS}
        started.append(warm.Process(["-m", "fmrgen", *arguments], {**kept, **variables}, cwd))
    return [(process.wait(300), *process.said()) for process in started]


@pytest.mark.slow
def test_a_job_of_two_tasks_is_that_of_one_process(finished_split, tmp_path):
    overrides = ["source.limit=120", "output.shard_size=40", "perturb.budget=8", "perturb.step_size=0.1"]
    tasks = [slurm(rank, here=rank) for rank in (0, 1)]
    for status, _, err in srun(tasks, "generate", "_mnist", *overrides, "-o", tmp_path / "out", cwd=tmp_path):
        assert status == 0, err
    assert_same_rows(rows(tmp_path / "out"), rows(finished_split))
    runs = json.loads((tmp_path / "out/provenance/mnist/lenet.json").read_text())["runs"]
    assert [run["processes"] for run in runs] == [2, 2]
    assert sum(run["images"] for run in runs) == 120


@pytest.mark.nightly
def test_an_evaluation_by_two_tasks_is_shared_and_printed_once(finished_split, tmp_path):
    job = ["evaluate", f"{finished_split}:mnist/lenet", "-c", "asset:mnist/lenet", "-o", tmp_path / "report", "--json"]
    first, other = srun([open_mpi(0), open_mpi(1)], *job, cwd=tmp_path)
    assert first[0] == other[0] == 0, first[2] + other[2]
    assert other[1] == ""
    assert json.loads(first[1])["splits"][0]["rows"] == 120
