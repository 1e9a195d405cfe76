"""Two machines: network namespaces with a wire between them, under accelerate's own launcher over gloo."""

import os
import subprocess
import sys
import time

import pytest
from helpers import assert_same_rows, fmrgen, parts, rows, wait_for

from fmrgen.jobs.verify_files import verify_files

SHARDS = 12
SHORT_JOB = [
    "generate",
    "mnist-lenet",
    "source.limit=48",
    f"output.shard_size={48 // SHARDS}",
    "perturb.budget=8",
    "-q",
]
LONG_JOB = [
    "generate",
    "mnist-lenet",
    "source.limit=120",
    f"output.shard_size={120 // SHARDS}",
    "perturb.budget=30",
    "-q",
]
MACHINES = (("fmrgen-a", "10.83.0.1"), ("fmrgen-b", "10.83.0.2"))


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=check)


@pytest.fixture(scope="module")
def machines():
    """Two namespaces, each with one end of a wire; skips where they may not be made."""
    try:
        for name, _ in MACHINES:
            ip("netns", "del", name, check=False)  # of a run that was killed
        if ip("netns", "add", MACHINES[0][0], check=False).returncode != 0:
            pytest.skip("may not make network namespaces here")
    except FileNotFoundError:
        pytest.skip("network namespaces need the program ip")
    ip("netns", "add", MACHINES[1][0])
    ends = [
        word
        for place, (name, _) in enumerate(MACHINES)
        for word in (("peer",) * place + ("name", f"wire{place}", "netns", name))
    ]
    ip("link", "add", *ends[:4], "type", "veth", *ends[4:])
    for place, (name, address) in enumerate(MACHINES):
        ip("-n", name, "addr", "add", f"{address}/24", "dev", f"wire{place}")
        for device in ("lo", f"wire{place}"):
            ip("-n", name, "link", "set", device, "up")
    yield
    for name, _ in MACHINES:
        subprocess.run(f"ip netns pids {name} | xargs --no-run-if-empty kill -9", shell=True, check=False)
        ip("netns", "del", name)


def start(machine, job, output, port):
    """`accelerate launch` of one process on a machine, of a job on both."""
    name, _ = MACHINES[machine]
    launch = ["--multi_gpu", "--num_machines", "2", "--num_processes", "2", "--machine_rank", str(machine)]
    launch += ["--main_process_ip", MACHINES[0][1], "--main_process_port", str(port)]
    command = [sys.executable, "-m", "accelerate.commands.launch", *launch, "-m", "fmrgen", *job, "-o", str(output)]
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": f"wire{machine}"}
    return subprocess.Popen(["ip", "netns", "exec", name, *command], env=env, stderr=subprocess.PIPE, text=True)


def kill(machine):
    """All processes of a machine at once, launcher and all."""
    subprocess.run(f"ip netns pids {MACHINES[machine][0]} | xargs kill -9", shell=True, check=True)


@pytest.mark.job
def test_two_machines_with_a_folder_each_and_their_parts_merged(machines, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    jobs = [start(machine, SHORT_JOB, folder, 29611) for machine, folder in enumerate(folders)]
    said = [job.communicate(timeout=240)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    for folder, text in zip(folders, said, strict=True):
        assert f"{folder}: holds a part of mnist/lenet, the others are on other machines; bring their folders" in text
        assert verify_files(str(folder)).intact == SHARDS // 2
    short = fmrgen("merge", folders[0], "-o", tmp_path / "short", "-q")
    assert short.returncode == 2
    assert (
        f"short:mnist/lenet: {SHARDS // 2} of {SHARDS} shards are in none of the parts; their generate" in short.stderr
    )
    merged = fmrgen("merge", *folders, "-o", tmp_path / "short")
    assert (merged.returncode, merged.stderr) == (0, "")
    assert "FMR = PA / SA" in merged.stdout
    assert verify_files(str(tmp_path / "short")).finished
    alone = fmrgen(*SHORT_JOB, "-o", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    assert_same_rows(rows(tmp_path / "short"), rows(tmp_path / "alone"))


@pytest.mark.job
def test_two_machines_with_one_folder_of_which_one_comes_late_and_is_lost_for_good(machines, tmp_path):
    out = tmp_path / "out"
    first = start(0, LONG_JOB, out, 29612)
    time.sleep(4)
    start(1, LONG_JOB, out, 29612)
    wait_for(lambda: len(parts(out)) >= 2)
    kill(1)
    lost = time.monotonic()
    said = first.communicate(timeout=120)[1]
    assert time.monotonic() - lost < 60
    assert first.returncode != 0
    assert "fmrgen: process 1 on " in said
    there = len(parts(out))
    assert 2 <= there < SHARDS
    rest = fmrgen(*LONG_JOB, "-o", out)
    assert rest.returncode == 0, rest.stderr
    assert len(rows(out)) == 120
    assert verify_files(str(out)).finished
