"""Files for clusters and jobs: they parse, their commands are ours, and other engines make the same rows."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml
from commands import succeeded
from installed import of_installed_commands
from places import ROOT
from stored import assert_same_rows, rows

from fmrgen.cli.app import COMMANDS, app

ANYWHERE = ROOT / "examples/anywhere"


def commands_in(text):
    """Every `fmrgen …` in a file, its lines joined."""
    joined = text.replace("\\\n", " ")
    return re.findall(r"(?:^ *|`| {2,})fmrgen ([a-z-]+ [^`|\n;&]*)", joined, re.MULTILINE)


@pytest.mark.parametrize(
    "file",
    [
        "examples/anywhere/slurm.sh",
        "examples/anywhere/skypilot.yaml",
        "examples/anywhere/hf_jobs.sh",
        "SKILL.md",
        "docs/guides/scaling.md",
    ],
)
def test_commands_are_ours(file):
    found = of_installed_commands(commands_in((ROOT / file).read_text()))
    assert found
    for command in found:
        name, *words = shlex.split(command, comments=True)
        if name not in COMMANDS:
            assert name == "COMMAND", command
            continue
        known = {option for argument in app[name].assemble_argument_collection() for option in argument.names}
        assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known, command


def test_files_parse(tmp_path):
    for script in ANYWHERE.glob("*.sh"):
        assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    task = yaml.safe_load((ANYWHERE / "skypilot.yaml").read_text())
    assert {"pool", "resources", "setup", "run"} <= task.keys()
    (container,) = yaml.safe_load((ANYWHERE / "kubernetes.yaml").read_text())["spec"]["template"]["spec"]["containers"]
    assert container["command"][:2] == ["fmrgen", "generate"]
    container = (ANYWHERE / "Containerfile").read_text()
    assert re.search(r"^FROM \S+$", container, re.MULTILINE)
    assert json.loads(re.search(r"^ENTRYPOINT (.+)$", container, re.MULTILINE)[1]) == ["fmrgen"]
    skill = (ROOT / "SKILL.md").read_text()
    assert {"name", "description"} <= yaml.safe_load(skill.split("---")[1]).keys()


@pytest.mark.nightly
@pytest.mark.parametrize(("engine", "more"), [("ray", ["--gpus", "0"]), ("datatrove", [])])
def test_other_engines_make_the_split(engine, more, tmp_path):
    """Two tasks share the shards, and the rows are those of one process."""
    pytest.importorskip(engine)
    small = ["source.limit=24", "output.shard_size=4", "perturb.budget=5"]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("extends: mnist-lenet\nsource: {limit: 24}\noutput: {shard_size: 4}\nperturb: {budget: 5}\n")
    succeeded("generate", "mnist-lenet", *small, "-o", tmp_path / "one", "-q")
    script = [sys.executable, ANYWHERE / f"{engine}_tasks.py", recipe, tmp_path / "out", "--tasks", "2", *more]
    done = subprocess.run(
        script, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert_same_rows(rows(tmp_path / "out"), rows(tmp_path / "one"))
    runs = json.loads((tmp_path / "out/provenance/mnist/lenet.json").read_text())["runs"]
    assert len(runs) in (1, 2)  # beside a busy neighbour one task may be done before the other begins
    assert sum(run["images"] for run in runs) == 24
