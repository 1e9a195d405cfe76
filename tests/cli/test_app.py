"""The command line: help without torch, mistakes in one line with exit status 2."""

import functools
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
from commands import fmrgen, run
from installed import of_installed_commands


def test_help_and_recipe_mistakes_import_no_torch():
    code = (
        "import sys; from fmrgen.cli.app import main\ntry: main({!r})\nexcept SystemExit: print('torch' in sys.modules)"
    )
    for arguments in (
        ["--help"],
        ["recipes"],
        ["generate", "mnist-lenet", "generator.image_sise=3"],
        ["generate", "mnist-lenet", "source={kind: imagefolder, path: gone}"],
        ["evaluate", "gone", "-c", "asset:mnist/lenet"],
        ["verify", "gone.parquet"],
        ["evaluate", "gone", "-c", "{kind: lenet, checkpoint: gone.pth}"],
    ):
        result = subprocess.run(
            [sys.executable, "-c", code.format(arguments)], capture_output=True, text=True, timeout=60
        )
        assert result.stdout.strip().endswith("False"), result
        assert "gone" not in arguments or "gone" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    of_installed_commands([
        (["generate", "mnist-lenat"], "mnist-lenat: no such file, and not a shipped recipe; did you mean mnist-lenet?"),
        (["generate", "mnist-lenet", "perturb.step_sise=1"], "mnist-lenet: perturb.step_sise: unknown key, did you mean step_size?"),
        (["generate", "mnist-lenet", "step_size=1"], "step_size=1: step_size is a key of a section; say perturb.step_size=1"),
        (["generate", "mnist-lenet", "--limit", "0"], "--limit: must be >= 1, not 0"),
        (["generate", "mnist-lenet", "--limit", "some"], "--limit: must be a whole number, not some"),
        (["generate", "mnist-lenet", "--ouput", "x"], "--ouput: unknown option, did you mean --output; see fmrgen generate --help"),
        (["generate"], "name a recipe, which `fmrgen recipes` lists; there is no fmrgen.yaml in this folder"),
        (["generate", "mnist-lenet", "--limit", "2.5"], "--limit: must be a whole number, not 2.5"),
        (["generate", "mnist-lenet", "-o"], "-o: its value is missing"),
        (["generate", "mnist-lenet", "--json=perhaps"], "--json: must be true or false, not perhaps"),
        (["genrate"], "genrate: unknown command, did you mean generate; see fmrgen --help"),
        (["transfer", "out"], "transfer: unknown command, did you mean evaluate; see fmrgen --help"),
        (["verify", "no/where:a/b"], "no/where: neither a folder nor a dataset repo"),
        (["train", "train/mnist-lent"], "did you mean train/mnist-lenet?"),
        (["generate", "train/mnist-lenet"], "train/mnist-lenet: is a file for `fmrgen train`; `fmrgen recipes` lists others"),
        (["generate", "mnist-lenet", "classifier.checkpoint=gone.pth"], "classifier.checkpoint: no such file as gone.pth"),
    ]),
)  # fmt: skip
def test_mistakes_are_one_line_and_exit_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    out, told = capsys.readouterr()
    assert message in told
    assert told.startswith("fmrgen: ")
    assert told.count("\n") == 1
    assert not out
    assert not list(tmp_path.iterdir())


def test_help_without_arguments_and_the_version(capsys):
    assert run() == run("--help") == 0
    help_twice = capsys.readouterr().out
    half = len(help_twice) // 2
    assert "  verify " in help_twice
    assert help_twice[:half] == help_twice[half:]
    assert run("--version") == 0
    assert capsys.readouterr().out == f"fmrgen {version('fmrgen')}\n"


@pytest.mark.parametrize(("rank", "local_rank", "told"), [("8", "0", True), ("1", "1", False), ("0", "0", True)])
def test_the_first_process_of_each_machine_tells_a_mistake(rank, local_rank, told):
    result = fmrgen("generate", "mnist-lenat", RANK=rank, LOCAL_RANK=local_rank)
    assert result.returncode == 2
    assert ("did you mean mnist-lenet?" in result.stderr) == told


# A shell's background jobs ignore Ctrl-C, and what they start inherits that.
listening = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_in_the_middle_of_an_import_is_one_line(tmp_path):
    (tmp_path / "cyclopts.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command, env = [sys.executable, "-m", "fmrgen", "recipes"], {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, preexec_fn=listening)
    assert (done.returncode, done.stderr) == (130, "fmrgen: interrupted\n")


@pytest.mark.slow
def test_ctrl_c_is_one_line_however_often(tmp_path):
    command = [
        sys.executable,
        "-m",
        "fmrgen",
        "generate",
        "mnist-lenet",
        "output.shard_size=4",
        "--output",
        str(tmp_path / "out"),
        "-q",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=listening) as job:
        try:
            deadline = time.monotonic() + 150
            while not list(tmp_path.glob("out/mnist/*.parquet")):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            for _ in range(3):
                job.send_signal(signal.SIGINT)
                time.sleep(0.1)
            assert job.communicate(timeout=60)[1] == "fmrgen: interrupted; run the same command again to continue\n"
            assert job.returncode == 130
        finally:
            job.kill()


def test_an_end_after_a_mistake_waits_for_no_library():
    code = "import atexit, sys, time; from fmrgen.cli import app, exit; exit._GRACE = 0.5; sys.argv[1:] = ['genrate']; atexit.register(time.sleep, 100); app.main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result


@pytest.mark.parametrize("command", ["recipes", "--help"])
def test_output_that_can_not_be_written_is_a_line(command):
    with open("/dev/full", "w") as full:
        script = [sys.executable, "-m", "fmrgen", command]
        result = subprocess.run(script, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 2
    assert result.stderr == "fmrgen: the output can't be written: No space left on device\n"


def test_recipes_lists_what_can_be_run(capsys):
    assert run("recipes") == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert "mnist-lenet" in names
    assert not [name for name in names if name.startswith("_")]


def test_q_silences_the_hubs_client_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "")  # to be as before afterwards
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS")
    assert run("show", tmp_path / "gone", "-o", tmp_path) == 2
    assert "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ
    assert run("show", tmp_path / "gone", "-o", tmp_path, "-q") == 2
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
