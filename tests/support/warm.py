"""Commands in processes that begin with everything imported: forks of one that has, for all workers of pytest.

Such a process is its own in every other way: arguments, environment, folder, output, signals, exit status. Only its
imports are done, which take seconds and are most of what a short command costs. Tests that are about imports, launchers
or the first moments of a process start new interpreters.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

ADDRESS = "FMRGEN_TEST_PARENT"  # variable of the environment: the socket of the process that is forked
_lock = threading.Lock()


class Process:
    """A fork, with what of `subprocess.Popen` tests use."""

    def __init__(self, arguments, env, cwd=None):
        """Starts `python ARGUMENTS`, for `-m fmrgen …` and `-c SCRIPT …`."""
        self.args = list(map(str, arguments))
        self.returncode = None
        self._files = tempfile.TemporaryDirectory()
        for name in ("stdout", "stderr"):
            Path(self._files.name, name).touch()
        told = {"arguments": self.args, "env": env, "cwd": str(cwd or os.getcwd()), "files": self._files.name}
        with _lock:
            if ADDRESS not in os.environ:
                start_parent()
        with _connected(os.environ[ADDRESS]) as parent:
            parent.sendall(json.dumps(told).encode() + b"\n")
            self.pid = int(parent.makefile().readline())

    def poll(self):
        if self.returncode is None and (status := Path(self._files.name, "status")).exists():
            self.returncode = int(status.read_text())
        return self.returncode

    def wait(self, timeout=None):
        deadline = time.monotonic() + (timeout or 1e9)
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout, *self.said())
            time.sleep(0.005)
        return self.returncode

    def communicate(self, timeout=None):
        self.wait(timeout)
        return self.said()

    def send_signal(self, number):
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def said(self):
        """What is on stdout and stderr so far."""
        return tuple(Path(self._files.name, name).read_text() for name in ("stdout", "stderr"))


def run(arguments, env, timeout, cwd=None):
    """Runs `python ARGUMENTS` for `-m fmrgen …` and `-c SCRIPT …`; returns it with stdout and stderr."""
    if env.get("OMP_NUM_THREADS") != os.environ.get("OMP_NUM_THREADS"):  # read once
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)
    return _ended(Process(arguments, env, cwd), timeout)


def start(count, arguments, env):
    """Starts `python ARGUMENTS` in `count` processes that know each other as a launcher's do; returns each, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    told = {**env, **{name: str(value) for name, value in told.items()}, "ACCELERATE_USE_CPU": "true"}
    return [Process(arguments, {**told, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)]


def launch(count, arguments, env, timeout):
    """The same, to their ends."""
    processes = start(count, arguments, env)
    try:
        return [_ended(process, timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()


def _ended(process, timeout):
    try:
        stdout, stderr = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def put_on_path(folder):
    """Writes a program `fmrgen` into the folder, for scripts that call it by its name."""
    with _lock:
        if ADDRESS not in os.environ:
            start_parent()
    program = Path(folder, "fmrgen")
    support = str(Path(__file__).parent)
    program.write_text(
        f"#!{sys.executable} -S\n"
        "import os, sys\n"
        f"sys.path.insert(0, {support!r})\n"
        "import warm\n"
        "process = warm.Process(['-m', 'fmrgen', *sys.argv[1:]], dict(os.environ))\n"
        "out, err = process.communicate()\n"
        "sys.stdout.write(out)\n"
        "sys.stderr.write(err)\n"
        "sys.exit(process.returncode)\n"
    )
    program.chmod(0o755)


def start_parent():
    """Starts the process that imports everything, for this process and those that inherit its environment; it ends with
    this one."""
    os.environ[ADDRESS] = os.path.join(tempfile.mkdtemp(), "socket")
    parent = subprocess.Popen([sys.executable, __file__, os.environ[ADDRESS]], stdin=subprocess.PIPE)
    atexit.register(parent.kill)


def _connected(address, seconds=300):
    """A connection to the parent, which may still be importing."""
    deadline = time.monotonic() + seconds
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(address)
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _serve(address):
    """The parent's work: imports, then a child for each connection, whose number it answers and whose end it writes
    down."""
    import datasets  # noqa: F401
    import diffusers.models.autoencoders
    import diffusers.pipelines  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import timm  # noqa: F401
    from transformers import CLIPModel, CLIPProcessor  # noqa: F401

    import fmrgen

    for module in pkgutil.walk_packages(fmrgen.__path__, "fmrgen."):
        if not module.name.endswith(".__main__"):
            with contextlib.suppress(ImportError):  # of a package that is not installed
                importlib.import_module(module.name)
    # What is there now is left out of each child's garbage collections: they would look at, and so copy, all of it.
    gc.collect()
    gc.freeze()

    ended, end = os.pipe()
    os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(end)
    children = {}
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    while True:
        ready, _, _ = select.select([0, ended, listening], [], [])
        if ended in ready:
            os.read(ended, 4096)
        for child in [*children]:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                files = children.pop(child)
                Path(files, "ending").write_text(str(os.waitstatus_to_exitcode(status)))
                Path(files, "ending").rename(Path(files, "status"))
        if 0 in ready:  # closed: who started this has ended
            return
        if listening in ready:
            with listening.accept()[0] as connection:
                told = json.loads(connection.makefile().readline())
                child = os.fork()
                if child == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.close(ended)
                    os.close(end)
                    listening.close()
                    connection.close()
                    _begin(told)
                children[child] = told["files"]
                connection.sendall(f"{child}\n".encode())


def _begin(told):
    """A child's life."""
    import numpy
    import torch

    os.environ.clear()
    os.environ.update(told["env"])
    os.chdir(told["cwd"])
    places = [os.devnull, *(os.path.join(told["files"], name) for name in ("stdout", "stderr"))]
    for descriptor, place in enumerate(places):
        os.dup2(os.open(place, os.O_RDWR), descriptor)
    sys.stdin = open(0)  # noqa: SIM115
    _read_environment_again()
    random.seed()  # no two processes draw alike
    numpy.random.seed()  # noqa: NPY002
    torch.seed()
    status = 1
    try:
        kind, what, *rest = told["arguments"]
        sys.argv = [kind if kind == "-c" else what, *rest]
        sys.path[0] = "" if kind == "-c" else told["cwd"]
        sys.path[1:1] = filter(None, told["env"].get("PYTHONPATH", "").split(os.pathsep))
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


def _read_environment_again():
    """As a new interpreter would read it: where the Hub and its caches are, in whatever module keeps a copy."""
    import datasets.config
    import diffusers.utils.constants
    import huggingface_hub
    import transformers.utils.hub

    readers = (huggingface_hub.constants, datasets.config, diffusers.utils.constants)
    before = [dict(vars(module)) for module in readers]
    changed = {}
    for module, old in zip(readers, before, strict=True):
        importlib.reload(module)
        changed |= {name: new for name, new in vars(module).items() if name.isupper() and old.get(name) != new}
    modules = os.environ.get("HF_MODULES_CACHE", os.path.join(huggingface_hub.constants.HF_HOME, "modules"))
    changed["HF_MODULES_CACHE"] = transformers.utils.hub.HF_MODULES_CACHE = modules
    for name, module in [*sys.modules.items()]:
        if name.partition(".")[0] in ("datasets", "diffusers", "huggingface_hub", "transformers"):
            vars(module).update({name: changed[name] for name in changed.keys() & vars(module).keys()})
    huggingface_hub.hf_api.api.endpoint = huggingface_hub.constants.ENDPOINT


if __name__ == "__main__":
    _serve(sys.argv[1])
