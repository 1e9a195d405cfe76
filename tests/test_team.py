"""What the processes of a job hear of each other, over torch's real store; the processes are threads of this one."""

import itertools
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from helpers import wait_for
from torch.distributed import TCPStore

from fmrgen.distributed import group as team_module
from fmrgen.distributed.group import Team
from fmrgen.distributed.launch import refuse_unlike_processes
from fmrgen.errors import Terminated, UserError


@pytest.fixture
def teams(monkeypatch):
    """Makes the teams of so many processes of one job, all under one launcher unless `places` says otherwise."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setattr(team_module, "_teams", itertools.repeat(0))  # all of one job
    monkeypatch.setattr(team_module, "_BEAT", 0.05)

    def make(size, places=None):
        made = []
        for number in range(size):
            accelerator = SimpleNamespace(
                process_index=number,
                num_processes=size,
                is_main_process=number == 0,
                is_local_main_process=number == 0,
            )
            made.append(Team(accelerator, again="; the same command again goes on"))
            if places:
                made[-1]._own["place"] = places[number]
        return made

    yield make
    del store


def together(*works):
    """Runs each in a thread of its own; returns what they returned or raised."""
    outcomes = [None] * len(works)

    def run(number):
        try:
            outcomes[number] = works[number]()
        except BaseException as error:
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return outcomes


def fall_silent_after_the_beginning(team):
    try:
        team.__enter__()
        team.exchange("begun", 1)
    finally:
        team._over.set()


def wait(team, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        team.check()
        time.sleep(0.01)
    raise AssertionError("heard of nothing")


def test_everyone_hears_what_everyone_tells(teams):
    def work(team):
        with team:
            first = team.exchange("first", {"n": team.number})
            team.tell("now and then", team.number)
            return first, team.exchange("second", None), team.heard("now and then"), team.job

    found = together(*[lambda team=team: work(team) for team in teams(3)])
    assert [told[:3] for told in found] == [([{"n": 0}, {"n": 1}, {"n": 2}], [None] * 3, [0, 1, 2])] * 3
    assert len({job for *_, job in found}) == 1


def test_one_process_needs_no_store(teams, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR")
    (alone,) = teams(1)
    with alone:
        assert alone.exchange("what", 5) == [5]
        alone.check()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UserError("source: image of id 3 is unreadable"), "stopped: source: image of id 3 is unreadable"),
        (Terminated(), "was terminated"),
        (KeyboardInterrupt(), "was interrupted"),
        (ZeroDivisionError(), "failed: ZeroDivisionError"),
    ],
)
def test_others_are_told_why_a_process_ends(teams, error, told):
    first, second, third = teams(3)

    def fail():
        with second:
            second.exchange("begun", 1)
            raise error

    def stay(team):
        with team:
            team.exchange("begun", 1)
            team.exchange("never", 1)

    outcomes = together(lambda: stay(first), fail, lambda: stay(third))
    assert outcomes[1] is error
    for number in (0, 2):
        assert isinstance(outcomes[number], UserError)
        assert outcomes[number].args[0].startswith("process 1 on ")
        assert outcomes[number].args[0].endswith(f"{told}; the same command again goes on")


def test_a_process_of_this_machine_that_died_is_missed_and_told_by_one_of_the_others(teams):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    first, second, third = teams(3)

    def die():
        first.__enter__()
        first.exchange("begun", 1)
        first._own["pid"] = dead.pid
        wait_for(lambda: all(team._entries[0]["pid"] == dead.pid for team in (second, third)))
        first._over.set()

    def stay(team):
        with team:
            team.exchange("begun", 1)
            wait(team)

    outcomes = together(die, lambda: stay(second), lambda: stay(third))
    assert outcomes[1].args[0].startswith("process 0 on ")
    assert "has died; the same command again goes on" in outcomes[1].args[0]
    assert [error.of_one_process for error in outcomes[1:]] == [True, False]


def test_a_silent_process_of_another_machine_is_given_up(teams, monkeypatch):
    monkeypatch.setattr(team_module, "_SILENCE", 1.0)
    here, there = teams(2, places=[["a", 1, "0"], ["b", 1, "1"]])

    def stay():
        with here:
            here.exchange("begun", 1)
            wait(here)

    outcomes = together(stay, lambda: fall_silent_after_the_beginning(there))
    assert outcomes[0].args[0] == "process 1 on b has not answered for 1 seconds; the same command again goes on"


def test_a_stuck_process_is_ended_when_another_is_gone(tmp_path):
    script = """
import itertools, os, sys, time, threading
from types import SimpleNamespace
from torch.distributed import TCPStore
from fmrgen.distributed import group as m
store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
m._teams = itertools.repeat(0)
m._BEAT, m._GRACE = 0.05, 0.5
make = lambda n: m.Team(SimpleNamespace(process_index=n, num_processes=2, is_main_process=n == 0, is_local_main_process=n == 0))
stuck, other, both_begun = make(0), make(1), threading.Event()
def leave():
    with other:
        other.exchange("begun", 1)
        both_begun.wait()
        raise KeyboardInterrupt
threading.Thread(target=leave).start()
with stuck:
    stuck.exchange("begun", 1)
    both_begun.set()
    time.sleep(100)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.endswith(" was interrupted\n")


def test_processes_that_loaded_other_things_are_refused():
    same = {"fingerprint": "f", "weights_sha256": {"classifier": "w"}}
    refuse_unlike_processes([same, same])
    with pytest.raises(UserError, match="process 2 has other weights_sha256 than process 0; give every node the same"):
        refuse_unlike_processes([same, same, same | {"weights_sha256": {"classifier": "x"}}])
