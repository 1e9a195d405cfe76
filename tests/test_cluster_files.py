"""Files for clusters and jobs: they parse, their commands are ours, and a job that is cut off goes on."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib

import pytest
import typer
import yaml
from commands import wait_for
from places import ROOT
from stored import rows

from fmrgen.cli.app import app

CLUSTER = ROOT / "examples/cluster"
COMMANDS = typer.main.get_command(app).commands


def commands_in(text):
    """Every `fmrgen …` in a file, its lines joined."""
    joined = text.replace("\\\n", " ")
    return re.findall(r"(?:^ *|`)fmrgen ([a-z-]+ [^`|\n;&]*)", joined, re.MULTILINE)


@pytest.mark.parametrize(
    "file", ["examples/cluster/slurm.sh", "examples/cluster/skypilot.yaml", "SKILL.md", "docs/scaling.md"]
)
def test_commands_are_ours(file):
    found = commands_in((ROOT / file).read_text())
    assert found
    for command in found:
        name, *words = shlex.split(command, comments=True)
        if name not in COMMANDS:
            assert name == "COMMAND", command
            continue
        known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known, command


def test_files_parse(tmp_path):
    assert subprocess.run(["bash", "-n", str(CLUSTER / "slurm.sh")], check=False).returncode == 0
    assert {"resources", "file_mounts", "setup", "run"} <= yaml.safe_load(
        (CLUSTER / "skypilot.yaml").read_text()
    ).keys()
    container = (CLUSTER / "Containerfile").read_text()
    assert re.search(r"^FROM \S+$", container, re.MULTILINE)
    assert json.loads(re.search(r"^ENTRYPOINT (.+)$", container, re.MULTILINE)[1]) == ["fmrgen"]
    skill = (ROOT / "SKILL.md").read_text()
    assert {"name", "description"} <= yaml.safe_load(skill.split("---")[1]).keys()
    script = (ROOT / "scripts/hf_job.py").read_text()
    metadata = re.search(r"# /// script\n(.+?)# ///", script, re.DOTALL)[1]
    assert "fmrgen" in tomllib.loads(re.sub("^# ?", "", metadata, flags=re.MULTILINE))["dependencies"][0]


@pytest.mark.slow
def test_a_job_goes_on_from_its_state(hub, tmp_path):
    """Its disk is gone after the first one, which was cut off; the second finds its shards in the repo."""
    recipe = ["mnist-lenet", "--limit", "30", "output.shard_size=10", "perturb.budget=3", "perturb.step_size=0.1", "-q"]
    env = {**os.environ, **hub.environment}
    command = [sys.executable, str(ROOT / "scripts/hf_job.py"), *recipe, "--state", "someone/state"]
    first = subprocess.run(
        [*command, "--output", str(tmp_path / "one"), "--part", "1/3"], env=env, capture_output=True, text=True
    )
    assert first.returncode == 0, first.stderr
    assert "someone/state: no earlier state; beginning" in first.stdout
    kept = hub.world().files("someone/state", "state")
    assert "mnist/lenet-00000-of-00003.parquet" in kept
    assert not any("/." in path or path.startswith(".lenet") for path in kept)
    before = next(iter(rows(tmp_path / "one").values()))
    second = subprocess.run([*command, "--output", str(tmp_path / "two")], env=env, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    found = rows(tmp_path / "two")
    assert sorted(found) == list(range(30))
    assert found[before["id"]] == before
    runs = json.loads((tmp_path / "two/provenance/mnist/lenet.json").read_text())["runs"]
    assert sum(run.get("images") or 0 for run in runs) == 30  # none was made twice


@pytest.mark.slow
def test_a_job_that_is_told_to_end_keeps_its_state(hub, tmp_path):
    recipe = ["mnist-lenet", "output.shard_size=4", "perturb.slots=4", "-q"]
    command = [sys.executable, str(ROOT / "scripts/hf_job.py"), *recipe, "--state", "someone/state"]
    command += ["--output", str(tmp_path / "out")]
    job = subprocess.Popen(command, env={**os.environ, **hub.environment}, start_new_session=True)
    try:
        wait_for(lambda: list(tmp_path.glob("out/mnist/*.parquet")) or job.poll() is not None)
        job.send_signal(signal.SIGTERM)
        assert job.wait(60) == 143
        with pytest.raises(ProcessLookupError):
            os.killpg(job.pid, 0)  # nothing of it goes on
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    made = {str(path.relative_to(tmp_path / "out")) for path in tmp_path.glob("out/mnist/*.parquet")}
    assert made <= set(hub.world().files("someone/state", "state"))
