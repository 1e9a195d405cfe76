"""Small models, images and processes for all tests."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import warm
from diffusers import VQModel
from torch import nn

from fmrgen.cli.app import main
from fmrgen.engine.options import PerturbOptions
from fmrgen.engine.perturb import perturb as run_engine
from fmrgen.generators.vqgan import Vqgan

SUPPORT = Path(__file__).parent  # on the path of processes that need modules of a test
TESTS = SUPPORT.parent
ROOT = TESTS.parent
SIZE = 16
LABELS = 4


def perturb(examples, classifier, generator, oracle, **settings):
    """The engine, its options given one by one."""
    own = {name: settings.pop(name) for name in ("device", "keep_latents", "on_pass", "on_slots") if name in settings}
    return run_engine(examples, classifier.eval(), generator, oracle, PerturbOptions(**settings), **own)


def tiny_network(seed, labels=LABELS):
    """A smooth random network over 16 px images."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.Tanh(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(72, labels),
    )
    return network.eval().requires_grad_(False)


def tiny_vqgan():
    torch.manual_seed(0)
    model = VQModel(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=3,
        num_vq_embeddings=32,
        norm_num_groups=4,
    )
    model.quantize.embedding.weight.data.normal_(0, 0.5)
    return Vqgan(model.eval().requires_grad_(False), SIZE)


def smooth_images(count, seed=3):
    """Random smooth images [count, 3, 16, 16] on the 8-bit grid."""
    noise = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    images = nn.functional.interpolate(noise, (SIZE, SIZE), mode="bilinear")
    return (images * 255).round() / 255


def fmrgen(*arguments, launcher=("-m", "fmrgen"), cwd=None, fresh=False, **environment):
    """Runs the command in a process of its own; returns it with stdout and stderr.

    It is a new interpreter under a launcher, and where it has to be `fresh`: what is imported may differ.
    """
    env = {**os.environ, "COLUMNS": "120", **environment}
    command = [*launcher, *map(str, arguments)]
    if not fresh and (launcher[0] == "-c" or launcher == ("-m", "fmrgen")):
        return warm.run(command, env, timeout=300, cwd=cwd)
    return subprocess.run([sys.executable, *command], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def launched(count, *arguments, **environment):
    """Runs the command in `count` processes of one launch, started without a launcher; returns each, by rank."""
    env = {**os.environ, "COLUMNS": "120", **environment}
    return warm.launch(count, ["-m", "fmrgen", *map(str, arguments)], env, timeout=300)


def python(hub, script, *arguments, **environment):
    """Runs a script that asks the Hub, in a process of its own; returns what it printed."""
    done = warm.run(["-c", script, *map(str, arguments)], {**os.environ, **hub.environment, **environment}, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run(*arguments):
    """Runs the command in this process; returns its exit status."""
    try:
        main(list(map(str, arguments)))
    except SystemExit as end:
        return end.code


def rows(folder, split="lenet"):
    """Every stored value of a split of the config mnist by id, images as their bytes."""
    found = {}
    for path in sorted(Path(folder).glob(f"mnist/{split}-*.parquet")):
        for row in pq.read_table(path).to_pylist():
            assert row["id"] not in found, "doubled"
            found[row["id"]] = row
    return found


@contextmanager
def no_trespass(place, reads=True):
    """Fails where a process is started, a host is asked, a module of the folder is imported, or a secret is opened;
    without `reads` also where any file of the folder is."""
    seen = []
    watched = {"on": True}

    def hook(event, arguments):
        if not watched["on"]:
            return
        if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"):
            seen.append((event, arguments[:1]))
        elif event in ("socket.connect", "socket.getaddrinfo") and "AF_UNIX" not in str(arguments[0]):
            seen.append((event, str(arguments)))
        elif (
            event == "open"
            and isinstance(arguments[0], str)
            and ("secret" in arguments[0] or (not reads and str(place) in os.path.abspath(arguments[0])))
        ):
            seen.append((event, arguments[0]))
        elif event == "exec" and str(place) in str(getattr(arguments[0], "co_filename", "")):
            seen.append((event, arguments[0].co_filename))
        elif event == "import" and arguments[0].partition(".")[0] in ("evil_code", "evil", "somebody"):
            seen.append((event, arguments[0]))

    sys.addaudithook(hook)
    try:
        yield
    finally:
        watched["on"] = False
    assert seen == []


# What may happen to a request, as `hub_server.Fault` has it.
FAULTS = {
    "500": {"status": 500},
    "429": {"status": 429, "headers": {"Retry-After": "1"}},
    "dropped": {"drop": "before"},
    "cut": {"drop": "middle"},
    "unanswered": {"drop": "after"},
    "killed": {"drop": "before", "killed": True},
    "killed after": {"drop": "after", "killed": True},
}


def run_jobs(hub, tmp_path, jobs):
    """Runs the jobs of `command_driver`; returns the calls of each."""
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    drive = "import sys, command_driver; command_driver.drive(sys.argv[1])"
    return json.loads(python(hub, drive, tmp_path / "jobs.json", PYTHONPATH=str(SUPPORT)))


@contextmanager
def browser(width=1200, height=900):
    """A page of a real headless Chromium; leaving it fails where the page complained or asked the network."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    complaints, asked = [], []
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": width, "height": height})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        yield page
        opened.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def assert_same_rows(found, expected):
    """The same rows: integers and images equal, floats within float noise.

    On a processor whose kernels round differently for other numbers of threads, a gradient within that noise of zero
    may tip its sign step, and the image with it: one row in thirty may.
    """
    assert found.keys() == expected.keys()
    tipped = []
    for i, row in found.items():
        floats = {name for name, value in row.items() if isinstance(value, float)}
        exact = all(row[name] == expected[i][name] for name in row.keys() - floats)
        if not exact or any(row[name] != pytest.approx(expected[i][name], abs=1e-4) for name in floats):
            tipped.append(i)
    assert len(tipped) <= len(found) // 30, tipped


def upload(hub, folder, repo, **environment):
    """Uploads a folder as it is with the Hub's own client; returns the commit."""
    script = (
        "import sys; from huggingface_hub import HfApi; api = HfApi();"
        "api.create_repo(sys.argv[2], repo_type='dataset', exist_ok=True);"
        "print(api.upload_folder(repo_id=sys.argv[2], repo_type='dataset', folder_path=sys.argv[1]).oid)"
    )
    return python(hub, script, folder, repo, **environment)


def parts(folder, pattern="**/*.parquet"):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).glob(pattern))
