"""Commands in processes that begin with everything imported: forks of one that has.

Such a process is its own in every other way: arguments, environment, output, exit status. Only its imports are done,
which take seconds and are most of what a short command costs. A new interpreter it is wherever imports may differ: in
another folder, under a launcher, and for the first command of an environment that is read while importing.
"""

import atexit
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter

_READ_AT_RUN_TIME = ("HF_TOKEN", "HF_HOME")
_READ_IN_IMPORTS = ("OMP_NUM_THREADS", "PYTHONPATH")

_calls = Counter()
_parents = {}
_lock = threading.Lock()


def run(arguments, env, timeout):
    """Runs `python ARGUMENTS` for `-m fmrgen …` and `-c SCRIPT …`; returns it with stdout and stderr."""
    key = _key(env)
    _calls[key] += 1
    if _calls[key] > 1 and _lock.acquire(blocking=False):
        try:
            return _parent(env).run([(arguments, env)], timeout)[0]
        finally:
            _lock.release()
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=timeout)


def launch(count, arguments, env, timeout):
    """Runs `-m fmrgen …` in `count` processes that know each other as a launcher's do; returns each, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    told = {**env, **{name: str(value) for name, value in told.items()}, "ACCELERATE_USE_CPU": "true"}
    with _lock:
        jobs = [(arguments, {**told, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)]
        return _parent(env).run(jobs, timeout)


def _key(env):
    """What of an environment is read while importing."""
    read = [name for name in env if name.startswith("HF_") and name not in _READ_AT_RUN_TIME]
    read += [name for name in _READ_IN_IMPORTS if name in env]
    return tuple(sorted((name, env[name]) for name in read))


def _parent(env):
    key = _key(env)
    if key not in _parents:
        _parents[key] = _Parent(env)
    return _parents[key]


class _Parent:
    """The process that has imported everything."""

    def __init__(self, env):
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(self._process.kill)

    def run(self, jobs, timeout):
        """Runs (arguments, environment) each, all at once; returns them when all have ended."""
        with contextlib.ExitStack() as stack:
            files = [[stack.enter_context(tempfile.NamedTemporaryFile()) for _ in range(2)] for _ in jobs]
            told = [
                {"arguments": arguments, "env": env, "cwd": os.getcwd(), "files": [file.name for file in own]}
                for (arguments, env), own in zip(jobs, files, strict=True)
            ]
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
            children = json.loads(self._process.stdout.readline())
            alarm = threading.Timer(timeout, _kill, [children])
            alarm.start()
            statuses = json.loads(self._process.stdout.readline())
            in_time = alarm.is_alive()
            alarm.cancel()
            outputs = [[file.read().decode() for file in own] for own in files]
        if not in_time:
            raise subprocess.TimeoutExpired(jobs[0][0], timeout, *outputs[0])
        return [
            subprocess.CompletedProcess(arguments, status, *output)
            for (arguments, _), status, output in zip(jobs, statuses, outputs, strict=True)
        ]


def _kill(children):
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def _serve():
    """The parent's work: imports, then the children of each line, whose numbers and exit statuses it prints."""
    import diffusers.models.autoencoders
    import diffusers.pipelines  # noqa: F401
    import timm  # noqa: F401
    from transformers import CLIPModel, CLIPProcessor  # noqa: F401

    import fmrgen.cli.progress
    import fmrgen.hub.push
    import fmrgen.jobs.evaluate
    import fmrgen.jobs.generate
    import fmrgen.jobs.verify
    import fmrgen.report.write  # noqa: F401

    for line in sys.stdin:
        children = []
        for told in json.loads(line):
            children.append(os.fork())
            if children[-1] == 0:
                _begin(told)
        print(json.dumps(children), flush=True)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(statuses), flush=True)


def _begin(told):
    """A child's life."""
    import numpy
    import torch

    os.environ.clear()
    os.environ.update(told["env"])
    os.chdir(told["cwd"])
    for descriptor, place in enumerate([os.devnull, *told["files"]]):
        os.dup2(os.open(place, os.O_RDWR), descriptor)
    sys.stdin = open(0)  # noqa: SIM115
    _move_home(told["env"].get("HF_HOME"))
    random.seed()  # no two processes draw alike
    numpy.random.seed()  # noqa: NPY002
    torch.seed()
    status = 1
    try:
        kind, what, *rest = told["arguments"]
        sys.argv = [kind if kind == "-c" else what, *rest]
        if kind == "-c":
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
        else:
            from fmrgen.cli.app import main

            main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(Exception):
        threading._shutdown()
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _move_home(home):
    """Caches go where a new interpreter would have them under that HF_HOME."""
    if home is None:
        return
    from pathlib import Path

    import datasets.config
    from huggingface_hub import constants

    constants.HF_HOME, constants.HF_HUB_CACHE = home, f"{home}/hub"
    constants.HF_TOKEN_PATH, constants.HF_XET_CACHE = f"{home}/token", f"{home}/xet"
    datasets.config.HF_DATASETS_CACHE = Path(home) / "datasets"
    datasets.config.DOWNLOADED_DATASETS_PATH = Path(home) / "datasets/downloads"
    datasets.config.EXTRACTED_DATASETS_PATH = Path(home) / "datasets/downloads/extracted"


if __name__ == "__main__":
    _serve()
