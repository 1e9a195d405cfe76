"""The shipped recipes as their users run them, with the Hub and other hosts on this machine (`rehearsal.py`)."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from commands import fmrgen
from rehearsal import CLIP, VQGAN, Internet, rehearse

from fmrgen.recipe.job import describe_recipes

RECIPE = "imagenet-resnet50"
# Minutes or gigabytes on a CPU: by hand, with REHEARSE_LARGE=1.
LARGE = ("imagenet-adm", "imagenet-sd-turbo", "imagenet-panel", "imagenet-siglip2")
OTHERS = [name for name in describe_recipes() if "/" not in name and not name.startswith("mnist-")]


@pytest.fixture(scope="module")
def internet(tmp_path_factory):
    internet = Internet(tmp_path_factory.mktemp("internet"), small=True)
    for name in (RECIPE, "imagenet-visformer"):
        internet.serve(name)
    yield internet
    internet.stop()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The caches of a user who has downloaded everything once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def user(internet, home):
    def run(*arguments, token="writer-0", home=home, **options):  # a typewriter is one of the classes
        return fmrgen(*arguments, **{**internet.environment(home, token), **options})

    return run


def job(folder, *more, limit=1):
    return ["generate", RECIPE, "--limit", limit, "perturb.budget=1", *more, "--output", folder / "out"]


@pytest.mark.slow
def test_the_first_recipe_downloads_what_it_needs_once(user, internet, tmp_path):
    planned = user(*job(tmp_path), "--dry-run")
    assert planned.returncode == 0, planned.stderr
    lines = [line for line in planned.stdout.splitlines() if "to download" in line]
    assert [line.split()[0] for line in lines] == ["source.path", "classifier.model", "generator.model", "oracle.model"]
    assert "ILSVRC/imagenet-1k" in lines[0]
    assert VQGAN in lines[2]
    assert not (tmp_path / "out").exists()
    first = user(*job(tmp_path), "--push", "you/imagenet")
    assert first.returncode == 0, first.stderr
    assert f"oracle.model: {CLIP}, " in first.stderr
    assert "1 process on cpu, 1 slots; 1 shard" in first.stderr
    downloaded = {line.split()[1] for line in internet.world.requests if line.startswith("GET") and "parquet" in line}
    assert {path.rpartition("/")[2] for path in downloaded} == {"validation-00000-of-00001.parquet"}  # no other split
    card = (tmp_path / "out/README.md").read_text()
    words = [line.split() for line in card.splitlines() if not line.startswith("**Caution:**")]
    assert sum(map(len, words)) < 580  # with its marks and bars
    assert "1000 classes" in card
    assert "goldfish" not in card
    sent = internet.sent
    again = user(*job(tmp_path / "again"))
    assert again.returncode == 0, again.stderr
    assert "is downloaded" not in again.stderr
    assert internet.sent - sent < 2_000_000  # what the libraries ask about their caches
    (table, other) = (sorted(folder.glob("*/*.parquet"))[0] for folder in (tmp_path / "out", tmp_path / "again/out"))
    assert table.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_terms_that_are_not_accepted(user, tmp_path):
    for token in (None, "reader"):
        home = tmp_path / str(token)
        refused = user(*job(tmp_path), token=token, home=home)
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1, refused.stderr
        assert "source.path: ILSVRC/imagenet-1k: accept its terms on http" in refused.stderr
        assert "log in with `hf auth login`" in refused.stderr
        assert not list(home.rglob("*.msgpack"))  # nothing large came before that


@pytest.mark.slow
def test_an_address_that_is_gone(user, tmp_path):
    address = "https://example.org/models/w.pth"
    gone = user(*job(tmp_path, f"classifier={{kind: timm, model: resnet18.tv_in1k, checkpoint: '{address}'}}"))
    assert gone.returncode == 2
    assert f"classifier.checkpoint: {address}: its host returned 404: there is no such file any more" in gone.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.nightly
def test_two_processes_a_kill_and_what_others_do_with_the_split(user, internet, home, tmp_path):
    """accelerate launches two processes; both are killed; the resumed split is that of one process."""
    work = ["output.shard_size=1", "perturb.budget=3"]
    environment = {**os.environ, **internet.environment(home), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["-m", "fmrgen", *map(str, job(tmp_path, *work, limit=6))]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True) as launch:
        while len(list(tmp_path.glob("out/*/*.parquet"))) < 2 and launch.poll() is None:
            time.sleep(0.05)
        os.killpg(launch.pid, signal.SIGKILL)
    assert 2 <= len(list(tmp_path.glob("out/*/*.parquet"))) < 6
    resumed = subprocess.run([*command, "--push", "you/imagenet2"], env=environment, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    alone = user(*job(tmp_path / "alone", *work, limit=6))
    assert alone.returncode == 0, alone.stderr
    loads = (
        "import json, sys; from datasets import load_dataset; rows = load_dataset(sys.argv[1], 'imagenet-vqgan-clip', "
        "split='resnet50').remove_columns(['image', 'original']); print(json.dumps(rows[:]))"
    )
    rows = []
    for place in ("you/imagenet2", tmp_path / "alone/out"):
        done = fmrgen(place, launcher=("-c", loads), **internet.environment(home))
        assert done.returncode == 0, done.stderr
        rows.append(json.loads(done.stdout))
    exact = ("id", "label", "valid", "iterations", "stop_reason", "prediction", "oracle_label")
    assert {name: rows[0][name] for name in exact} == {name: rows[1][name] for name in exact}
    assert len(rows[0]["id"]) == 6
    verified = user("verify", "you/imagenet2:imagenet-vqgan-clip/resnet50", "--trust")
    assert "6 of 6 rows match" in verified.stdout, verified.stderr
    other = ["-c", "timm:visformer_small.in1k", "-o", tmp_path / "evaluation", "-q"]
    evaluated = user("evaluate", "you/imagenet2:imagenet-vqgan-clip/resnet50", *other)
    assert evaluated.returncode == 0, evaluated.stderr


@pytest.mark.nightly
@pytest.mark.parametrize("name", OTHERS)
def test_every_recipe(name, internet, tmp_path):
    if name in LARGE and "REHEARSE_LARGE" not in os.environ:
        pytest.skip("minutes or gigabytes")
    plan, done = rehearse(internet, name, tmp_path)
    assert done.returncode == 0, done.stdout
    assert "to download" in plan or name == "gtsrb-cnn"
