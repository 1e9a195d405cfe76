"""`--num-processes`: one line and the exit status of the processes, whatever ends them."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from commands import wait_for
from places import ROOT

LONG = ["generate", "mnist-lenet", "perturb.step_size=0.001", "output.shard_size=20", "--num-processes", "2"]


def start(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "fmrgen", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def at_work(folder):
    return list((folder / "out/mnist").glob(".lenet-*.claim.*"))


@pytest.mark.slow
def test_a_mistake_of_all_processes_is_one_line_and_exit_2(tmp_path):
    job = start(tmp_path, "generate", "mnist-lenet", "classifier.checkpoint=gone.pth", "--num-processes", "2")
    _, told = job.communicate(timeout=300)
    assert job.returncode == 2
    assert told == "fmrgen: classifier.checkpoint: no such file as gone.pth\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_ends_all_with_one_line(tmp_path, number, status, word):
    job = start(tmp_path, *LONG)
    wait_for(lambda: at_work(tmp_path))
    job.send_signal(number)
    _, told = job.communicate(timeout=120)
    assert job.returncode == status, told
    assert told.splitlines()[-1] == f"fmrgen: {word}; run the same command again to continue"
    assert "Traceback" not in told


@pytest.mark.slow
def test_a_killed_launcher_takes_its_processes_with_it(tmp_path):
    job = start(tmp_path, *LONG)
    wait_for(lambda: len(at_work(tmp_path)) >= 2)
    processes = psutil.Process(job.pid).children(recursive=True)
    assert len(processes) >= 2
    job.kill()
    job.wait()
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == []


@pytest.mark.slow
def test_a_killed_process_is_told(tmp_path):
    job = start(tmp_path, *LONG)
    wait_for(lambda: len(at_work(tmp_path)) >= 2)
    psutil.Process(job.pid).children()[0].kill()
    _, told = job.communicate(timeout=120)
    assert job.returncode == 2
    assert told.splitlines()[-1].endswith("was killed (SIGKILL); run the same command again to continue")
