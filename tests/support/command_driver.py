"""Runs commands at a Hub in processes of their own, forked here so that each begins with everything imported.

Reads jobs as JSON: a world of the test Hub, the arguments of `fmrgen`, and how a request of it fails; a job that is
`killed` dies there. Each job calls again, without a fault, for as long as the command ends badly, three times at most.
Prints for each job its calls: exit status, what was on stderr, and what was on stdout.
"""

import json
import os
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars

from fmrgen.cli import app, display  # noqa: F401

disable_progress_bars()
_forking = threading.Lock()  # filelock refuses a fork while another thread forks


def call(job, first):
    """One call of the command in a forked process; returns its exit status, negative for a signal, and its output."""
    with tempfile.TemporaryFile() as stderr, tempfile.TemporaryFile() as stdout:
        with _forking:
            child = os.fork()
        if child == 0:
            os.dup2(stderr.fileno(), 2)
            os.dup2(stdout.fileno(), 1)
            os.environ["HF_TOKEN"] = f"writer-{job['world']}"
            constants.HF_HUB_CACHE = f"{os.environ['HF_HOME']}/{job['world']}"  # as on a machine of its own
            if first and job.get("fault"):
                fault = {"world": job["world"], **job["fault"]}
                fault |= {"kill": os.getpid()} if fault.pop("killed", False) else {}
                httpx2.post(f"{os.environ['HF_ENDPOINT']}/control/fail", json=fault)
            status = 1
            try:
                app.main(job["arguments"])
            except SystemExit as end:
                status = int(end.code or 0)
            except BaseException as error:
                print(f"Traceback: {error!r}", file=sys.stderr)
            sys.stderr.flush()
            sys.stdout.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        stderr.seek(0)
        stdout.seek(0)
        return status, stderr.read().decode(), stdout.read().decode()


def run(job):
    calls = [call(job, first=True)]
    while calls[-1][0] != 0 and len(calls) < job.get("calls", 3):
        calls.append(call(job, first=False))
    return calls


def drive(path):
    jobs = json.loads(Path(path).read_text())
    with ThreadPoolExecutor(6) as pool:
        print(json.dumps(list(pool.map(run, jobs))))
