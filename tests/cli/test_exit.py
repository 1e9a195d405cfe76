"""How commands end: on a signal at any moment, before a Hub that keeps them waiting, and what a terminal gets to see."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import fmrgen, run, upload
from datasets import ClassLabel
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from photos import lay_out

from fmrgen.errors import UserError, one_line, printable
from fmrgen.hub import timeouts as hub_timeouts
from fmrgen.hub.timeouts import UnreachableError, _send
from fmrgen.recipe.job import parse_oracle
from fmrgen.report.console import _stacked

LENET = "{kind: lenet, num_classes: 2}"
EVIL = "\x1b]0;PWNED\x07\x1b[2J\x9b31m\u202edesrever\r[red]x[/b]"
# The time-outs of fmrgen.hub.timeouts cut short, and no pauses, so that a test does not take what it tests for.
HURRY = """
import sys, time
import fmrgen.hub.timeouts as waits
waits._CONNECT_TIMEOUT = waits._READ_TIMEOUT = waits._SEND_TIMEOUT = 0.3
time.sleep = lambda seconds: None
from fmrgen.cli.app import main
main(sys.argv[1:])
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_sigterm_is_143_at_every_moment(tmp_path):
    """From the first instruction over imports, models that load, and work, to the end."""
    command = [sys.executable, "-m", "fmrgen", "generate", "mnist-lenet", "--limit", "60", "-q"]
    ends = set()
    for number in range(8):
        process = subprocess.Popen([*command, "-o", str(tmp_path / str(number))], stderr=subprocess.PIPE, text=True)
        time.sleep(0.05 + 0.5 * number)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        # -15: before Python or after the last line of ours, where the signal itself ends it; a shell says 143 too.
        assert process.returncode in (143, -signal.SIGTERM, 0), (number, process.returncode, errors)
        told = [line for line in errors.splitlines() if line.startswith("fmrgen: ")]
        assert told in ([], ["fmrgen: terminated; run the same command again to continue"]), (number, errors)
        assert "Traceback" not in errors
        ends.add(process.returncode)
    assert 143 in ends


LOST = """
import os, signal, sys
from fmrgen.cli.exit import install_signal_handlers, exit_status_of

class Drops:
    def __del__(self):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        sum(range(100_000))

def run():
    Drops()
    for _ in range(20_000):
        sum(range(100_000))

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests in the background ignores it
install_signal_handlers()
sys.exit(exit_status_of(run, ""))
"""


TURNED = LOST.replace(
    "    Drops()\n",
    "    try:\n        Drops.__del__(None)\n    except BaseException as error:\n        raise ValueError from error\n",
)
IMPORTING = LOST.replace(
    "    Drops()\n", "    sys.modules.pop('torch', None)\n    sys.path.insert(0, sys.argv[2])\n    import torch\n"
)
TORCH = """
import os, signal, sys
try:
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    sum(range(100_000))
except BaseException:
    os.abort()  # as C++ does with an exception that it can't hand on
"""


@pytest.mark.parametrize(("name", "status", "told"), [("SIGTERM", 143, "terminated"), ("SIGINT", 130, "interrupted")])
@pytest.mark.parametrize("code", [LOST, TURNED, IMPORTING], ids=["dropped by python", "made another error", "in torch"])
def test_a_signal_ends_a_command_whatever_became_of_it(tmp_path, code, name, status, told):
    (tmp_path / "torch.py").write_text(TORCH)
    done = fmrgen(name, tmp_path, launcher=("-c", code))
    assert (done.returncode, done.stderr) == (status, f"fmrgen: {told}\n")


def test_what_is_printable():
    assert printable("plain, ärger, 数字, हिन्दी, 👩\u200d🔬") == "plain, ärger, 数字, हिन्दी, 👩\u200d🔬"
    assert "\x1b" not in _stacked("\x1b[2J name without an interval").plain
    assert printable("\x1b[2J\x07\x9b\u202e\u2066\ud800\n\r") == r"\x1b[2J\x07\x9b\u202e\u2066\ud800\n\r"


def seen(capsys):
    """What a command has printed; nothing in it may steer a terminal, but for what rich draws with."""
    output = capsys.readouterr()
    text = output.out + output.err
    for steering in ("\x1b]", "\x07", "\x9b", "\x1b[2J", "\u202e", "\r[red]"):
        assert steering not in text, repr(text)
    return text


@pytest.mark.slow
def test_nothing_in_data_steers_the_terminal(place, capsys):
    classes = json.dumps([EVIL, "b"])
    assert run("generate", "r.yaml", f"source.classes={classes}", "-o", "out") == 0
    seen(capsys)
    named = json.dumps({"kind": "lenet", "num_classes": 2, "class_names": [EVIL, "c"]})
    assert run("evaluate", "out", "-c", f"{EVIL}={LENET}".replace("\x1b", ""), "-c", f"x={named}") == 2
    assert "desrever" in seen(capsys)
    assert run("evaluate", "out", "-c", LENET) == 0
    seen(capsys)

    path = place / "out/provenance/c/s.json"
    told = json.loads(path.read_text())
    for altered in (
        {"classifier": {"kind": f"{EVIL}:x"}},
        {"classifier": {"kind": EVIL}},
        {"classifier": {"kind": "lenet", "checkpoint": EVIL}},
        {"classifier": {"kind": "module", "target": "a:b", EVIL: 1}},
    ):
        path.write_text(json.dumps({**told, "recipe": {**told["recipe"], **altered}}))
        assert run("verify", "out") == 2
        assert "PWNED" in seen(capsys)
    path.write_text(json.dumps(told))

    table = pq.read_table("out/c/s-00000-of-00001.parquet").select(["image", "label"])
    image = table.schema.field("image")
    images = pa.array([{"bytes": None, "path": f"/{EVIL}"}] * len(table), image.type)
    pq.write_table(table.set_column(0, image, images), "paths.parquet")
    assert run("evaluate", "paths.parquet", "-c", LENET) == 2
    assert "PWNED" in seen(capsys)


def test_a_split_without_a_valid_row_is_evaluated(place, capsys):
    assert run("generate", "r.yaml", "perturb.min_probability=0.999", "-o", "none", "-q") == 0, capsys.readouterr().err
    assert run("evaluate", "none", "-c", LENET, "-o", "report", "--plots", "png") == 0, capsys.readouterr().err
    assert "0 valid" in capsys.readouterr().out
    assert not (place / "report/plots").exists()  # nothing to draw


def test_labels_of_a_dataset_are_text(place, capsys):
    from datasets import Dataset, Features, Image

    rows = {"image": [{"bytes": (place / "photos/a/0.png").read_bytes(), "path": None}] * 2, "label": [0, 1]}
    names = ClassLabel(names=[EVIL.replace("\r", ""), "b"])
    Dataset.from_dict(rows, features=Features({"image": Image(), "label": names})).to_parquet("x.parquet")
    named = json.dumps({"kind": "lenet", "num_classes": 2, "class_names": ["c", "d"]})
    assert run("evaluate", "x.parquet", "-c", named) == 2
    assert "PWNED" in seen(capsys)


@pytest.fixture
def mute():
    """A server that every connection reaches and that never answers, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(120)
        yield server, f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["verify --files", "verify", "evaluate", "push"])
def test_a_hub_that_never_answers_is_given_up(place, mute, command):
    arguments = {
        "verify --files": ["verify", "someone/digits:c/s", "--files"],
        "verify": ["verify", "someone/digits:c/s"],
        "evaluate": ["evaluate", "someone/digits:c/s", "-c", LENET, "-q"],
        "push": ["push", "out", "someone/digits", "-q"],
    }[command]
    if command == "push":
        assert run("generate", "r.yaml", "-o", "out", "-q") == 0
    environment = {"HF_ENDPOINT": mute[1], "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "x"}
    done = fmrgen(*arguments, launcher=("-c", HURRY), cwd=place, **environment)
    assert done.returncode == 2, done.stderr
    *waits, last = done.stderr.splitlines()
    assert last.startswith("fmrgen: "), done.stderr
    assert "Traceback" not in done.stderr
    if command in ("push", "verify --files"):
        assert len(waits) == 5
        assert all(line.startswith("the Hub can't be reached (") and "trying again in" in line for line in waits)
        assert "the Hub can't be reached; run the same command again to continue" in last


def test_every_request_has_time_outs():
    from huggingface_hub.utils import get_session

    from fmrgen.hub.timeouts import bound_requests

    bound_requests()
    bound_requests()
    ours = {"connect": 10.0, "pool": 60.0, "read": 60.0, "write": 60.0}
    for asked, bounds in ((None, ours), (3.0, dict.fromkeys(ours, 3.0))):
        request = get_session().build_request("GET", "http://127.0.0.1", timeout=asked)
        get_session().event_hooks["request"][-1](request)
        assert request.extensions["timeout"] == bounds
    assert len(get_session().event_hooks["response"]) == 1


def test_a_network_that_is_lost_in_between_is_waited_for(monkeypatch):
    monkeypatch.setattr(hub_timeouts, "_answered", set())
    monkeypatch.setattr(hub_timeouts, "_unreachable", {})
    asked, there = [], False
    request, other = (httpx2.Request("GET", f"https://{host}.test/api") for host in ("hub", "other"))

    def send(request):
        asked.append(request)
        if request.url.host == "hub.test" and not there:
            raise httpx2.ConnectError("[Errno -2] Name or service not known")
        return "answer"

    for _ in range(3):
        with pytest.raises(UnreachableError, match="Name or service not known"):
            _send(send, request)
    assert asked == [request]  # nobody is asked again for a while
    assert _send(send, other) == "answer"
    hub_timeouts._unreachable.clear()
    there = True
    assert _send(send, request) == "answer"
    there = False
    with pytest.raises(httpx2.ConnectError):
        _send(send, request)


def test_what_is_not_here_is_told_without_advice():
    def error(cause, text):
        try:
            raise OSError(text) from cause
        except OSError as found:
            return found

    refused = error(httpx2.ConnectError("[Errno 111] Connection refused"), "x")
    advice = "We couldn't connect to 'https://huggingface.co' to load the files; check your internet connection"
    for found, why in (
        (error(error(UnreachableError("no such host"), "x"), advice), "the Hub can't be reached (no such host)"),
        (error(LocalEntryNotFoundError("offline"), advice), "HF_HUB_OFFLINE is set; unset it"),
        (error(OfflineModeIsEnabled("offline"), advice), "HF_HUB_OFFLINE is set; unset it"),
        (ConnectionError("Couldn't reach 'a/b' on the Hub (LocalEntryNotFoundError)"), "the Hub can't be reached"),
    ):
        assert one_line(found) == f"it is not on this machine, and {why}"
    assert one_line(refused) == "x"
    for text in ("zero_shot:a/b", "open_clip:a/b"):
        with pytest.raises(UserError, match="it is not on this machine, and HF_HUB_OFFLINE is set"):
            parse_oracle(text)[1].build()


def test_pauses_are_cut_and_told(place, hub):
    assert run("generate", "r.yaml", "-o", "out", "-q") == 0
    upload(hub, place / "out", "someone/digits")
    asked = {"Retry-After": str(10**9), "RateLimit": '"api";r=0;t=1000000000'}
    hub.fail(at=0, match="/api/datasets/someone/digits", status=429, headers=asked)
    hub.fail(at=0, match="/resolve/", status=429, headers=asked)
    command = ["verify", "someone/digits:c/s", "--files"]
    done = fmrgen(*command, launcher=("-c", HURRY), cwd=place, **hub.environment)
    assert done.returncode == 0, done.stderr
    assert "the Hub returned 429; trying again in 300 s (1 of 5)" in done.stderr
    assert "the Hub asks for a pause of 300 s" in done.stderr


BROKEN = {
    "no id": ("/api/datasets/someone/digits", {"status": 200, "body": "{}"}),
    "no JSON": ("/api/datasets/someone/digits", {"status": 200, "body": "<html>"}),
    "a list": ("/api/datasets/someone/digits", {"status": 200, "body": "[]"}),
    "cut file": ("GET /datasets/someone/digits/resolve/", {"status": 200, "body": "{"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BROKEN)
def test_broken_answers_are_one_line(place, hub, case):
    assert run("generate", "r.yaml", "-o", "out", "-q") == 0
    upload(hub, place / "out", "someone/digits")
    match, fault = BROKEN[case]
    for command in (
        ["verify", "someone/digits:c/s", "--files"],
        ["evaluate", "someone/digits:c/s", "-c", LENET, "-q"],
        ["push", "out", "someone/digits", "-q"],
    ):
        if (command[0] == "push" and case == "cut file") or (command[0] == "evaluate" and case != "cut file"):
            continue  # which reads nothing that it has in its cache, or asks no more than the others
        for number in range(40):
            hub.fail(at=number, match=match, **fault)
        environment = {**hub.environment, "HF_HOME": str(place / f"home-{command[0]}")}
        done = fmrgen(*command, launcher=("-c", HURRY), cwd=place, **environment)
        hub.world().faults.clear()
        assert done.returncode == 2, (command, done.stderr)
        assert "Traceback" not in done.stderr
        *others, last = done.stderr.splitlines()
        assert last.startswith("fmrgen: ")
        waits = ("the Hub returned a broken response (", "the Hub can't be reached (")
        assert all(line.startswith(waits) for line in others)


@pytest.mark.slow
def test_a_signal_that_comes_while_the_hub_keeps_one_waiting(place, mute):
    server, address = mute
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "x"}
    command = [sys.executable, "-m", "fmrgen", "verify", "someone/digits:c/s", "--files"]
    process = subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True)
    connection, _ = server.accept()
    with connection:
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert errors.splitlines()[-1] == "fmrgen: terminated"
