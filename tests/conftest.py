"""Small models and real parts for all tests."""

import gc
import os
import shutil
import signal
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # both before the libraries read them
os.environ.setdefault("FMRGEN_CACHE_GB", "0")  # tests that keep encodings say where
if "FMRGEN_CACHE" not in os.environ:  # what a classifier said in another run is no evidence in this one
    os.environ["FMRGEN_CACHE"] = tempfile.mkdtemp(prefix="fmrgen-tests-")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # many tests share few cores
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait take the cores from others

import pytest
import warm
from filelock import FileLock
from hub_server import HubServer
from hypothesis import HealthCheck, settings
from notes import noted
from served import Handler, Server

LONGEST = [
    f"test_{name}.py"
    for name in (
        "nodes", "perturb", "kills", "generate", "diff", "push", "evaluate", "bucket", "resuming", "misbehaving", "hostile",
        "judge", "masking", "another_device", "results", "strangers", "report", "places",
    )
]  # fmt: skip

everyday = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("everyday", everyday, max_examples=10)
settings.register_profile("ci", everyday, max_examples=15)
settings.register_profile("thorough", everyday, max_examples=5000)
settings.load_profile("everyday")


def pytest_unconfigure(config):
    place = os.environ["FMRGEN_CACHE"]
    if not hasattr(config, "workerinput") and "fmrgen-tests-" in place:  # of all workers
        shutil.rmtree(place, ignore_errors=True)


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=1, help="SIGKILLs in test_killed_again_and_again")
    parser.addoption("--kill-seed", type=int, default=0, help="of their moments")


def pytest_configure(config):
    gc.set_threshold(20_000)  # the libraries are a million objects: an eighth of the time went into looking at them
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a shell's background jobs; tests press Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if getattr(config.option, "numprocesses", None):  # the workers' processes are forks of one parent
        warm.start_parent()


def pytest_collection_modifyitems(items):
    """The longest files first: else the last worker is alone with one of them."""
    names = [*LONGEST, *sorted({item.path.name for item in items} - {*LONGEST})]
    items.sort(key=lambda item: names.index(item.path.name))


def pytest_collection_finish():
    gc.freeze()  # what is imported by now stays


@pytest.fixture(scope="session")
def finished_split(tmp_path_factory, worker_id):
    """A folder with the split mnist/lenet, 120 rows, made once for all workers; to be read only."""
    from fmrgen.jobs.generate import make_split
    from fmrgen.recipe.job import load_recipe

    root = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    folder = root / "finished" / "out"
    overrides = ["source.limit=120", "output.shard_size=40", "perturb.budget=8", "perturb.step_size=0.1"]
    with FileLock(root / "finished.lock"):
        make_split(load_recipe("_mnist", overrides), folder)  # does nothing where it is done
    return folder


@pytest.fixture
def split(finished_split, tmp_path):
    """A copy of it, to be changed."""
    shutil.copytree(finished_split, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="session")
def hub_server(tmp_path_factory):
    """The Hub of a worker: its address is the same in all tests, which is read while importing."""
    with HubServer(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture
def hub(hub_server, tmp_path):
    """An empty Hub on this machine, and the environment in which the Hub's clients use it."""
    hub_server.begin(tmp_path / "hub")
    hub_server.environment = hub_server.variables(tmp_path / "home", "writer")
    return hub_server


@pytest.fixture
def double():
    """Everything that the test makes is float64."""
    import torch  # here, for a test of arithmetic needs none of it

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def notes():
    """What fmrgen notes during the test."""
    with noted() as lines:
        yield lines


@pytest.fixture
def listener():
    """A host that nobody has reason to ask: `requests` are the paths that somebody did ask for, at `port`."""

    class Listening(Handler):
        def respond(self):
            server.requests.append(self.path)
            self.reply(404)

    with Server(Listening) as server:
        server.requests, server.port = [], server.server_port
        yield server
