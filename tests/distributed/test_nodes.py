"""Two machines: network namespaces with a wire between them, under accelerate's own launcher over gloo."""

import os
import shutil
import subprocess
import sys
import time

import pytest
from commands import run, wait_for
from stored import parts, rows

from fmrgen.jobs.verify_files import verify_files
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import read_provenance

SHARDS = 12
SHORT_JOB = ["generate", "mnist-lenet", "--limit", "48", "output.shard_size=4", "perturb.budget=8", "-q"]
LONG_JOB = ["generate", "mnist-lenet", "--limit", "72", "output.shard_size=6", "perturb.budget=20", "-q"]
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
    first, second = (("name", f"wire{place}", "netns", name) for place, (name, _) in enumerate(MACHINES))
    ip("link", "add", *first, "type", "veth", "peer", *second)
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


@pytest.mark.slow
def test_two_machines_that_share_nothing_and_their_folders_copied_together(tmp_path, capsys):
    folders = [tmp_path / "a", tmp_path / "b"]
    for number, folder in enumerate(folders, 1):
        assert run(*SHORT_JOB, "--part", f"{number}/2", "-o", folder) == 0
        assert f"{folder}: holds a part of mnist/lenet; when all parts are there, copy" in capsys.readouterr().err
        assert verify_files(str(folder)).intact == SHARDS // 2
    for folder in folders:
        shutil.copytree(folder, tmp_path / "whole", dirs_exist_ok=True)
    damaged = next((tmp_path / "whole/mnist").glob("lenet-00000-of-*"))
    damaged.write_bytes(damaged.read_bytes()[:-1])  # generated again
    assert run(*SHORT_JOB, "-o", tmp_path / "whole") == 0
    assert verify_files(str(tmp_path / "whole")).finished
    assert run(*SHORT_JOB, "-o", tmp_path / "alone") == 0
    for path in (tmp_path / "alone/mnist").glob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "whole/mnist" / path.name).read_bytes()


@pytest.mark.nightly
def test_two_machines_with_one_folder_of_which_one_comes_late_and_is_lost_for_good(machines, tmp_path):
    out = tmp_path / "out"
    first = start(0, LONG_JOB, out, 29612)
    time.sleep(4)
    start(1, LONG_JOB, out, 29612)
    wait_for(lambda: len(parts(out)) >= 2)
    kill(1)
    # The launcher itself waits some minutes for the other machine's; the split does not.
    wait_for(lambda: read_provenance(SplitPaths(out, "mnist", "lenet")).is_finished, seconds=240)
    kill(0)
    first.communicate(timeout=60)
    assert sorted(rows(out)) == list(range(72))
    assert verify_files(str(out)).finished
