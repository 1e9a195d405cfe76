"""Whole jobs in processes of their own: every way to launch, kills, resumption, and what a folder refuses."""

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from broken_networks import Broken
from commands import fmrgen, run
from datasets import ClassLabel, Dataset, Features, Image, List, Value, load_dataset
from photos import RECIPE as RECIPE_ON_PHOTOS
from PIL import Image as PILImage
from places import ROOT
from stored import alter, assert_same_rows, parts, rows, unfinish

from fmrgen.distributed.launch import start_processes
from fmrgen.errors import UserError
from fmrgen.jobs.generate import make_split
from fmrgen.jobs.verify import verify
from fmrgen.recipe.job import load_recipe
from fmrgen.sources.base import Source
from fmrgen.split.open import open_split
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.shards import SplitFolder

RECIPE = ("mnist-lenet", "--limit", "30", "output.shard_size=5", "perturb.budget=12")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run of one process."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    cores = str(len(os.sched_getaffinity(0)))  # as many threads as launchers give it: kernels may round otherwise
    result = fmrgen("generate", *RECIPE, "--output", folder, OMP_NUM_THREADS=cores)
    assert result.returncode == 0, result.stderr
    assert "FMR = PA / SA" in result.stdout
    return folder


def provenance(folder):
    return json.loads((folder / "provenance/mnist/lenet.json").read_text())


def test_the_schema_is_the_documented_one(finished_split):
    dataset = load_dataset(str(finished_split), "mnist", split="lenet")
    integers = [
        f"{of}{name}"
        for of in ("", "original_", "reconstruction_", "rejected_")
        for name in ("prediction", "oracle_label")
    ]
    floats = ("clip_score", "oracle_probability", "loss", "latent_shift", "pixel_shift")
    lists = ("step_objectives", "control_objectives", "step_losses", "step_oracle_probabilities")
    assert dict(dataset.features) == {
        "image": Image(),
        "original": Image(),
        "label": ClassLabel(names=[str(digit) for digit in range(10)]),
        "stop_reason": ClassLabel(names=["budget", "oracle", "rejected", "nonfinite", "stuck", "reached"]),
        "id": Value("int64"),
        "valid": Value("bool"),
        **{name: Value("int32") for name in [*integers, "iterations", "queries"]},
        **{name: Value("float32") for name in floats},
        **{f"{of}_predictions": List(Value("int32")) for of in ("step", "control")},
        **{name: List(Value("float32")) for name in lists},
    }
    assert dataset["id"][:] == list(range(120))
    assert dataset[0]["image"].size == (32, 32)
    assert dataset[0]["image"].mode == "RGB"


def test_the_provenance_tells_all(finished_split):
    told = provenance(finished_split)
    assert told["finished"]
    assert told["recipe"]["source"]["limit"] == 120
    assert all(len(digest) == 64 for digest in told["weights_sha256"].values())
    assert len(told["files"]) == 3
    (run,) = told["runs"]
    assert run["images"] == 120
    assert run["seconds"] > 0
    assert run["versions"].keys() >= {"torch", "fmrgen", "transformers"}


def test_a_finished_split_is_left_alone(split, capsys):
    before = {path: (split / path).stat().st_mtime_ns for path in parts(split, "**/*.*")}
    overrides = ["source.limit=120", "output.shard_size=40", "perturb.budget=8", "perturb.step_size=0.1"]
    assert run("generate", "_mnist", *overrides, "--output", split) == 0
    told = capsys.readouterr()
    assert "of 120" in told.out
    assert "FMR = PA / SA" in told.out
    assert "is complete; there is nothing to do" in told.err
    assert before == {path: (split / path).stat().st_mtime_ns for path in parts(split, "**/*.*")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "processes"),
    [(("-m", "accelerate.commands.launch", "fmrgen"), 1), ((*TORCHRUN, "-m", "fmrgen"), 2)],
    ids=["accelerate", "two by torchrun"],  # two by accelerate: test_nodes.py
)
def test_every_launcher_makes_the_same_rows_once(whole, tmp_path, launcher, processes):
    out = tmp_path / "out"
    result = fmrgen("generate", *RECIPE, "--output", out, launcher=launcher, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    if processes == 1:  # to the last bit
        assert rows(out) == rows(whole)
    assert_same_rows(rows(out), rows(whole))
    runs = provenance(out)["runs"]
    assert {run["processes"] for run in runs} == {processes}
    assert 1 <= len(runs) <= processes  # beside a busy neighbour one may begin when nothing is left
    assert sum(run["images"] for run in runs) == 30
    assert result.stdout.count("FMR = PA / SA") == 1


# --- in this process, on models without weights ---------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path):
    """A quick job on whole pictures, and one that is broken for each None; its models are random."""

    def make(pictures, *overrides):
        features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
        files = [{"bytes": b"broken" if seed is None else picture(seed), "path": None} for seed in pictures]
        columns = {"image": files, "label": [i % 2 for i in range(len(files))]}
        Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "data" / "test.parquet")
        tree = RECIPE_ON_PHOTOS | {
            "source": {"kind": "datasets", "path": str(tmp_path / "data")},
            "output": {"config": "mnist", "split": "lenet", "shard_size": 2},
        }
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(tree))
        torch.manual_seed(0)
        return load_recipe(tmp_path / "r.yaml", ["perturb.budget=3", *overrides])

    return make


def picture(seed):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    PILImage.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def test_skipped_images_are_listed_and_have_no_row(recipe, tmp_path):
    summary = make_split(recipe([0, None, 2, 3, None, None], "source.on_error=skip"), tmp_path / "out")
    assert summary.rows == 3
    assert sorted(rows(tmp_path / "out")) == [0, 2, 3]
    assert [entry["id"] for entry in provenance(tmp_path / "out")["skipped"]] == [1, 4, 5]
    assert all(entry["reason"] for entry in provenance(tmp_path / "out")["skipped"])
    assert len(load_dataset(str(tmp_path / "out"), "mnist", split="lenet")) == 3  # though one shard has no rows
    assert sum(1 for _ in open_split(str(tmp_path / "out")).dataset) == 3


def test_every_shard_before_an_unreadable_image_is_kept_and_skipping_goes_on(recipe, tmp_path):
    with pytest.raises(UserError, match="image of id 5 is unreadable .* set source.on_error=skip"):
        make_split(recipe([*range(5), None]), tmp_path / "out")
    assert len(parts(tmp_path / "out")) == 2
    assert make_split(recipe([*range(5), None], "source.on_error=skip"), tmp_path / "out").rows == 5
    assert len(provenance(tmp_path / "out")["runs"]) == 2


def test_leftovers_are_removed_and_those_of_another_split_are_not(recipe, tmp_path):
    job = recipe(range(2))
    (tmp_path / "out/mnist").mkdir(parents=True)
    own, other = (tmp_path / f"out/mnist/.{name}-00000-of-00001.parquet.7.tmp" for name in ("lenet", "lenet2"))
    for path in (own, other):
        path.touch()
    make_split(job, tmp_path / "out")
    assert not own.exists()
    assert other.exists()


def test_a_card_that_a_killed_run_did_not_write_is_written_by_the_next(recipe, tmp_path):
    """And what an earlier version did not tell is told."""
    make_split(recipe(range(2)), tmp_path / "out")
    (tmp_path / "out/README.md").unlink()
    path, told = tmp_path / "out/provenance/mnist/lenet.json", provenance(tmp_path / "out")
    path.write_text(json.dumps({name: told[name] for name in told if name not in ("summary", "num_bytes", "files")}))
    make_split(recipe(range(2)), tmp_path / "out")
    assert len(load_dataset(str(tmp_path / "out"), "mnist", split="lenet")) == 2
    again = provenance(tmp_path / "out")
    assert (again["summary"], again["files"], again["finished"]) == (told["summary"], told["files"], True)


@pytest.mark.slow
def test_bf16_by_launcher_is_bf16_by_recipe_and_true(tmp_path, monkeypatch):
    overrides = ["source.limit=8", "perturb.budget=3", "perturb.slots=8"]
    job = ["generate", "mnist-lenet", *overrides, "-o", tmp_path / "out", "-q"]
    done = fmrgen(*job, ACCELERATE_MIXED_PRECISION="bf16")
    assert done.returncode == 0, done.stderr
    told = provenance(tmp_path / "out")
    assert told["recipe"]["perturb"]["precision"] == "bf16"
    assert told["fingerprint"] == load_recipe("mnist-lenet", [*overrides, "perturb.precision=bf16"]).fingerprint
    assert verify(str(tmp_path / "out")).true_rows == 8
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    imprecise = "--mixed_precision fp16: not precise enough for these gradients; launch with bf16"
    with pytest.raises(UserError, match=imprecise):
        make_split(load_recipe("mnist-lenet", overrides), tmp_path / "out")


def test_threads_are_the_callers_unless_a_launcher_took_them(monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        start_processes()
        assert torch.get_num_threads() == 3
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # as accelerate launch does, with OMP_NUM_THREADS=1
        start_processes()
        assert torch.get_num_threads() == len(os.sched_getaffinity(0))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
        start_processes()
        assert torch.get_num_threads() == max(1, len(os.sched_getaffinity(0)) // 64)
    finally:
        torch.set_num_threads(before)


def test_slots_found_by_timing_are_told(recipe, tmp_path):
    make_split(recipe(range(2), "perturb.slots=auto"), tmp_path / "out")
    assert provenance(tmp_path / "out")["runs"][0]["slots"] in {2**power for power in range(11)}


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_told(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "/nowhere/c++")}),
        pytest.raises(UserError, match="compile: torch can't compile here; leave it out: "),
    ):
        make_split(recipe(range(2), "perturb.compile=true"), tmp_path / "out")


def test_memory_too_small_for_one_image_is_told(recipe, tmp_path, monkeypatch):
    def run_out(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("fmrgen.generators.transform.Transform.encode", run_out)
    monkeypatch.setattr("fmrgen.recipe.build._try_chain", lambda *arguments: None)
    with pytest.raises(UserError, match="a single image does not fit in GPU memory; precision=bf16"):
        make_split(recipe(range(2)), tmp_path / "out")


def flip_a_bit(shard, other):
    content = bytearray(shard.read_bytes())
    content[content.index(b"\x89PNG") + 60] ^= 1
    shard.write_bytes(content)


HARMS = {
    "cut": lambda shard, other: shard.write_bytes(shard.read_bytes()[:500]),
    "a bit": flip_a_bit,
    "another": lambda shard, other: shard.write_bytes(other.read_bytes()),
    "a row less": lambda shard, other: pq.write_table(pq.read_table(shard).slice(1), shard),
    "another label": lambda shard, other: alter(shard, "label", list.reverse),  # its sha256 alone tells
    "a column less": lambda shard, other: pq.write_table(pq.read_table(shard).drop_columns(["loss"]), shard),
}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.slow
def test_a_shard_that_was_harmed_is_made_anew(recipe, tmp_path, finished, notes):
    make_split(recipe(range(4)), tmp_path / "whole")
    for name, harm in HARMS.items():
        out = shutil.copytree(tmp_path / "whole", tmp_path / name)
        folder = SplitFolder(SplitPaths(out, "mnist", "lenet"), 4, 2)
        if not finished:
            unfinish(folder.paths)
        harm(folder.shard_path(1), folder.shard_path(0))
        notes.clear()
        make_split(recipe(range(4)), out)
        assert rows(out) == rows(tmp_path / "whole"), name
        (note,) = [line for line in notes if ".parquet" in line]
        told = r"lenet-00001-of-00002.parquet: (is|holds|has) .*; it is regenerated, and the old file kept as \."
        assert re.search(told, note)
        assert len(list((out / "mnist").glob(".*.damaged"))) == 1
        assert provenance(out)["runs"][-1]["images"] == 2


def test_a_shard_that_can_not_be_read_now_is_not_taken_for_a_damaged_one(recipe, tmp_path, monkeypatch):
    make_split(recipe(range(4)), tmp_path / "out")
    unfinish(SplitPaths(tmp_path / "out", "mnist", "lenet"), files={})
    before = rows(tmp_path / "out")

    def fails(*arguments, **options):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("fmrgen.storage.shards.pq.ParquetFile", fails)
        with pytest.raises(UserError, match=r"lenet-0000\d-of-00002.parquet: can't be read: .*Input/output error"):
            make_split(recipe(range(4)), tmp_path / "out")
    assert rows(tmp_path / "out") == before


def test_a_run_that_stored_nothing_has_claimed_nothing(recipe, tmp_path):
    with pytest.raises(UserError, match="image of id 0 is unreadable"):
        make_split(recipe([None, 1]), tmp_path / "out")
    assert make_split(recipe(range(2), "perturb.budget=2"), tmp_path / "out").rows == 2


def test_a_source_of_which_nothing_can_be_read_is_an_error(recipe, tmp_path):
    with pytest.raises(UserError, match="source: all 3 images were unreadable and skipped"):
        make_split(recipe([None] * 3, "source.on_error=skip"), tmp_path / "out")


def test_an_id_that_a_source_gives_twice_is_told(recipe, tmp_path, monkeypatch):
    load = Source.load
    monkeypatch.setattr(Source, "load", lambda *arguments: (entry._replace(id=7) for entry in load(*arguments)))
    with pytest.raises(UserError, match="source: gives id 7 twice; every example needs an id of its own"):
        make_split(recipe(range(2)), tmp_path / "out")


def test_two_numberings_of_the_same_classes_are_two_recipes(recipe):
    one, other = (recipe(range(4), f"source.classes={classes}") for classes in ("{x: 0, y: 1}", "{y: 1, x: 0}"))
    assert one.fingerprint != other.fingerprint


def test_a_folder_of_another_recipe_is_refused_and_takes_another_split_of_the_same_config(recipe, tmp_path):
    make_split(recipe(range(3)), tmp_path / "out")
    before = rows(tmp_path / "out")
    other, config = "was generated by another recipe", "in its split .*: choose another config="
    for message, changes in {
        f"{other}: perturb.budget was 3, is 2; choose another output=": ["perturb.budget=2"],
        f"has another generator.image_size {config}": ["output.split=other", "generator.image_size=48"],
        f"has another source.limit {config}": ["output.split=other", "source.limit=1"],
    }.items():
        with pytest.raises(UserError, match=message):
            make_split(recipe(range(3), *changes), tmp_path / "out")
    assert rows(tmp_path / "out") == before
    make_split(recipe(range(3), "output.split=other", "perturb.budget=1"), tmp_path / "out")  # of another classifier
    loaded = load_dataset(str(tmp_path / "out"), "mnist")
    assert {name: len(split) for name, split in loaded.items()} == {"lenet": 3, "other": 3}


def test_progress_counts_every_row(recipe, tmp_path):
    seen = []
    make_split(recipe(range(5)), tmp_path / "out", on_progress=lambda now: seen.append((now.done, now.total)))
    assert seen[0] == (0, 5)
    assert seen[-1] == (5, 5)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.slow
def test_the_command_starts_its_own_processes_and_says_what_it_runs_on(tmp_path):
    """From any folder; accelerate's own launcher, asked for two on a CPU, starts one, and that is told."""
    job = ["generate", "mnist-lenet", "--limit", "30", "perturb.budget=1", "-o", "out"]

    def told_by(*command):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stderr

    told = told_by("-m", "fmrgen", *job, "--num-processes", "2")  # one may have made all before the first one comes
    assert "2 processes on cpu, 30 slots each; " in told or "there is nothing to do" in told
    runs = provenance(tmp_path / "out")["runs"]
    assert {entry["processes"] for entry in runs} == {2}  # the second may come when nothing is left to do
    next((tmp_path / "out/mnist").glob("lenet-00001*")).unlink()
    launch = ("-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1", "-m", "fmrgen")
    told = told_by(*launch, *job)
    assert "asked for 2 processes but started one, as it does on CPUs; use fmrgen's own --num-processes 2" in told
    assert "1 process on cpu, 30 slots; resuming: 1 of 2 shards are finished" in told


def test_more_processes_launched_than_accelerate_sees(monkeypatch):
    start_processes()  # accelerate has made up its mind: one process
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="launched as 2 processes but accelerate sees 1"):
        start_processes()


class Flat(Broken):
    def forward(self, images):
        return super().forward(images).detach() + 0 * images.mean()


def test_stuck_rows_are_counted_and_told(tmp_path, notes):
    """Where the classifier's gradient is zero nothing was tested, and nothing counts as robust."""
    section = "classifier={kind: module, target: 'test_generate:Flat', args: {fault: none}}"
    changes = ["source.limit=4", section, "perturb.slots=4"]
    summary = make_split(load_recipe("mnist-lenet", changes), tmp_path / "out")
    assert summary.stuck.value == 100
    assert summary.perturbed_accuracy is None
    assert any(note.startswith("100.0 % of the rows are stuck: no gradient reaches the latent") for note in notes)
    assert load_dataset(str(tmp_path / "out"), "mnist", split="lenet").features["stop_reason"].int2str(4) == "stuck"
