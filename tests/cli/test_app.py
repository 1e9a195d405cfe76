"""The command line: help without torch, mistakes in one line with exit status 2."""

import functools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
from commands import fmrgen, run, wait_for

from fmrgen.cli.app import COMMANDS, app


def test_help_without_arguments_and_the_version(capsys):
    assert run() == run("--help") == 0
    help_twice = capsys.readouterr().out
    half = len(help_twice) // 2
    assert "  verify " in help_twice
    assert help_twice[:half] == help_twice[half:]
    assert run("--version") == 0
    assert capsys.readouterr().out == f"fmrgen {version('fmrgen')}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_an_example_and_at_most_ten_options_of_its_own(capsys, name):
    assert run(name, "--help") == 0
    page = capsys.readouterr().out
    (example,) = [line for line in page.splitlines() if line.startswith("  Example: fmrgen ")]
    words = shlex.split(example)[2:]
    assert words[0] == name
    app.parse_args(words, exit_on_error=False, print_error=False)
    own = re.findall(r"^  (?:-\w, )?(--[\w-]+)", page.partition("\nOptions:\n")[2].partition("\n\n")[0], re.MULTILINE)
    of_several = {"--classifier", "--as", "--output", "--limit", "--by", "--trust"}
    assert len(set(own) - of_several) <= 10


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
    job = ["generate", "mnist-lenet", "output.shard_size=4", "--output", str(tmp_path / "out"), "-q"]
    command = [sys.executable, "-m", "fmrgen", *job]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=listening) as job:
        try:
            wait_for(lambda: list(tmp_path.glob("out/mnist/*.parquet")))
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
