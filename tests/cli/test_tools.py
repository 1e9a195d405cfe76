"""What helps to find one's way: recipes resolved, dry runs, the doctor, help without jargon."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from commands import run
from installed import has_app
from places import ROOT

from fmrgen.recipe.job import load_recipe


def test_a_recipe_is_shown_with_every_value(capsys):
    assert run("recipes", "imagenet-vit", "perturb.budget=3") == 0
    told = yaml.safe_load(capsys.readouterr().out)
    assert told == load_recipe("imagenet-vit", ["perturb.budget=3"]).model_dump(mode="json")
    if has_app("training"):
        assert run("recipes", "train/mnist-lenet") == 0
        assert yaml.safe_load(capsys.readouterr().out)["source"]["kind"] == "mnist"


def test_bases_are_neither_listed_nor_proposed(capsys):
    assert run("recipes") == 0
    assert "_paper" not in capsys.readouterr().out
    assert run("recipes", "_papr") == 2
    assert "_paper" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_tells_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    job = ["mnist-lenet", "source.limit=30", "output.shard_size=10", "perturb.budget=1"]
    assert run("generate", *job, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "examples  30 of 10 classes, at 32 px, in 3 shards of 10\n" in shown
    assert "exists    0 of 3 shards in out:mnist/lenet; 30 images are left\n" in shown
    assert re.search(r"^one pass  \d+\.\d ms per image$", shown, re.MULTILINE)
    assert "if every image uses the budget of 1\n" in shown
    assert re.search(r"^disk      about \d+ kB of images; .* are free$", shown, re.MULTILINE)
    assert yaml.safe_load(shown.partition("examples  ")[0])["perturb"]["budget"] == 1
    assert list(tmp_path.iterdir()) == []
    assert run("generate", *job, "-q") == 0
    next((tmp_path / "out/mnist").glob("*-00001-*")).unlink()
    capsys.readouterr()
    assert run("generate", *job, "--dry-run") == 0
    assert "exists    2 of 3 shards in out:mnist/lenet; 10 images are left\n" in capsys.readouterr().out
    assert run("generate", *job, "perturb.seed=3", "--dry-run") == 2
    assert "was made by another recipe: perturb.seed was 0, is 3" in capsys.readouterr().err


def test_env(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws_secret")
    assert run("env") == 0
    shown = capsys.readouterr().out
    for name in ("python", "torch", "datasets", "gpu", "cores"):
        assert re.search(rf"^{name} +\S", shown, re.MULTILINE)
    assert "secret" not in shown


@pytest.mark.slow
def test_a_reader_that_has_enough_ends_the_command_quietly():
    command = f"{sys.executable} -m fmrgen recipes mnist-lenet | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert result.stdout.startswith("description")
    assert result.stderr == ""


def test_the_shell_completes_commands_options_and_recipes(tmp_path):
    command = tmp_path / "bin/fmrgen"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m fmrgen "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/bash", "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{command.parent}:{environment['PATH']}"

    def bash(script):
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "installed; start a new shell" in bash("fmrgen --install-completion")
    (installed,) = (tmp_path / ".local").rglob("fmrgen")
    assert installed.read_text().strip() == bash("fmrgen --show-completion").strip()
    for words, completed in (
        ("fmrgen generate mnist-l", "mnist-lenet"),
        ("fmrgen ver", "verify"),
        ("fmrgen generate --log-f", "--log-file"),
    ):
        script = f'. {installed}; COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}; _fmrgen; echo "${{COMPREPLY[@]}}"'
        assert bash(script).split() == [completed]


def test_a_limit_counts_whatever_the_changes_say(capsys):
    arguments = ("mnist-lenet", "--limit", "3", "source={kind: mnist, limit: 7}", "--dry-run", "--json")
    assert run("generate", *arguments) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["recipe"]["source"]["limit"] == 3
