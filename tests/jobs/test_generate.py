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
from commands import fmrgen
from datasets import ClassLabel, Dataset, Features, Image, List, Value, load_dataset
from PIL import Image as PILImage
from places import ROOT
from stored import assert_same_rows, parts, rows, unfinish

from fmrgen.distributed.launch import start_processes
from fmrgen.errors import UserError
from fmrgen.jobs.generate import make_split
from fmrgen.jobs.verify import verify
from fmrgen.recipe.job import load_recipe
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
    integers = ("oracle_label", "original_oracle_label", "reconstruction_oracle_label")
    integers += ("prediction", "original_prediction", "reconstruction_prediction", "iterations", "queries")
    integers += ("rejected_prediction", "rejected_oracle_label")
    floats = ("clip_score", "oracle_probability", "loss", "latent_shift", "pixel_shift")
    assert dict(dataset.features) == {
        "image": Image(),
        "original": Image(),
        "label": ClassLabel(names=[str(digit) for digit in range(10)]),
        "stop_reason": ClassLabel(names=["budget", "oracle", "rejected", "nonfinite", "stuck", "reached"]),
        "id": Value("int64"),
        "valid": Value("bool"),
        **{name: Value("int32") for name in integers},
        **{name: Value("float32") for name in floats},
        "step_predictions": List(Value("int32")),
        "control_predictions": List(Value("int32")),
        "step_objectives": List(Value("float32")),
        "control_objectives": List(Value("float32")),
        "step_losses": List(Value("float32")),
        "step_oracle_probabilities": List(Value("float32")),
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


def test_a_finished_split_is_left_alone(split):
    before = {path: (split / path).stat().st_mtime_ns for path in parts(split, "**/*.*")}
    overrides = ["source.limit=120", "output.shard_size=40", "perturb.budget=8", "perturb.step_size=0.1"]
    result = fmrgen("generate", "_mnist", *overrides, "--output", split)
    assert result.returncode == 0
    assert "120" in result.stdout
    assert "FMR = PA / SA" in result.stdout
    assert "is complete; there is nothing to do" in result.stderr
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
    """A quick job on six broken or whole pictures, with a random LeNet as classifier and oracle."""

    def make(pictures, *overrides, **sections):
        features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
        columns = {
            "image": [{"bytes": p, "path": None} for p in pictures],
            "label": [i % 2 for i in range(len(pictures))],
        }
        Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "data" / "test.parquet")
        tree = {
            "source": {"kind": "datasets", "path": str(tmp_path / "data")},
            "classifier": {"kind": "lenet", "num_classes": 2},
            "generator": {"kind": "transform", "image_size": 32},
            "oracle": {"kind": "classifier", "classifier": {"kind": "lenet", "num_classes": 2}},
            "perturb": {"budget": 3, "step_size": 0.05, "oracle_rule": "consistent"},
            "output": {"config": "mnist", "split": "lenet", "shard_size": 2},
            **sections,
        }
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(tree))
        torch.manual_seed(0)
        return load_recipe(tmp_path / "r.yaml", overrides)

    return make


def picture(seed, size=40):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    PILImage.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def test_skipped_images_are_listed_and_have_no_row(recipe, tmp_path):
    pictures = [picture(0), b"broken", picture(2), picture(3), b"broken", b"broken"]
    summary = make_split(recipe(pictures, "source.on_error=skip"), tmp_path / "out")
    assert summary.rows == 3
    assert sorted(rows(tmp_path / "out")) == [0, 2, 3]
    assert [entry["id"] for entry in provenance(tmp_path / "out")["skipped"]] == [1, 4, 5]
    assert all(entry["reason"] for entry in provenance(tmp_path / "out")["skipped"])
    assert len(load_dataset(str(tmp_path / "out"), "mnist", split="lenet")) == 3  # though one shard has no rows
    assert sum(1 for _ in open_split(str(tmp_path / "out")).dataset) == 3


def test_every_shard_before_an_unreadable_image_is_kept_and_skipping_goes_on(recipe, tmp_path):
    pictures = [picture(0), picture(1), picture(2), picture(3), picture(4), b"broken"]
    with pytest.raises(UserError, match="image of id 5 is unreadable .* set source.on_error=skip"):
        make_split(recipe(pictures), tmp_path / "out")
    assert len(parts(tmp_path / "out")) == 2
    assert make_split(recipe(pictures, "source.on_error=skip"), tmp_path / "out").rows == 5
    assert len(provenance(tmp_path / "out")["runs"]) == 2


def test_leftovers_are_removed_and_those_of_another_split_are_not(recipe, tmp_path):
    job = recipe([picture(0), picture(1)])
    (tmp_path / "out/mnist").mkdir(parents=True)
    own, other = (tmp_path / f"out/mnist/.{name}-00000-of-00001.parquet.7.tmp" for name in ("lenet", "lenet2"))
    for path in (own, other):
        path.touch()
    make_split(job, tmp_path / "out")
    assert not own.exists()
    assert other.exists()


def test_a_card_that_a_killed_run_did_not_write_is_written_by_the_next(recipe, tmp_path):
    make_split(recipe([picture(0), picture(1)]), tmp_path / "out")
    (tmp_path / "out/README.md").unlink()
    make_split(recipe([picture(0), picture(1)]), tmp_path / "out")
    assert len(load_dataset(str(tmp_path / "out"), "mnist", split="lenet")) == 2


def test_what_an_earlier_version_did_not_tell_is_told_by_the_next_run(recipe, tmp_path):
    make_split(recipe([picture(0), picture(1)]), tmp_path / "out")
    path = tmp_path / "out/provenance/mnist/lenet.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({name: told[name] for name in told if name not in ("summary", "num_bytes", "files")}))
    make_split(recipe([picture(0), picture(1)]), tmp_path / "out")
    again = json.loads(path.read_text())
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
    with pytest.raises(
        UserError, match="--mixed_precision fp16: not precise enough for these gradients; launch with bf16"
    ):
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
    make_split(recipe([picture(0), picture(1)], "perturb.slots=auto"), tmp_path / "out")
    assert provenance(tmp_path / "out")["runs"][0]["slots"] in {2**power for power in range(11)}


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_told(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "/nowhere/c++")}),
        pytest.raises(UserError, match="compile: torch can't compile here; leave it out: "),
    ):
        make_split(recipe([picture(0), picture(1)], "perturb.compile=true"), tmp_path / "out")


def test_memory_too_small_for_one_image_is_told(recipe, tmp_path, monkeypatch):
    def run_out(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("fmrgen.generators.transform.Transform.encode", run_out)
    monkeypatch.setattr("fmrgen.recipe.build._try_chain", lambda *arguments: None)
    with pytest.raises(UserError, match="a single image does not fit in GPU memory; precision=bf16"):
        make_split(recipe([picture(0), picture(1)]), tmp_path / "out")


def cut(shard, other):
    shard.write_bytes(shard.read_bytes()[:500])


def flip_a_bit(shard, other):
    content = bytearray(shard.read_bytes())
    content[content.index(b"\x89PNG") + 60] ^= 1
    shard.write_bytes(content)


def swap(shard, other):
    shard.write_bytes(other.read_bytes())


def drop_a_row(shard, other):
    table = pq.read_table(shard)
    pq.write_table(table.slice(1), shard)


def drop_a_column(shard, other):
    pq.write_table(pq.read_table(shard).drop_columns(["loss"]), shard)


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.slow
def test_a_shard_that_was_harmed_is_made_anew(recipe, tmp_path, finished, notes):
    pictures = [picture(i) for i in range(4)]
    make_split(recipe(pictures), tmp_path / "whole")
    for harm in (cut, flip_a_bit, swap, drop_a_row, drop_a_column):
        out = shutil.copytree(tmp_path / "whole", tmp_path / harm.__name__)
        folder = SplitFolder(SplitPaths(out, "mnist", "lenet"), 4, 2)
        if not finished:
            unfinish(folder.paths)
        harm(folder.shard_path(1), folder.shard_path(0))
        notes.clear()
        make_split(recipe(pictures), out)
        assert rows(out) == rows(tmp_path / "whole"), harm
        (note,) = [line for line in notes if ".parquet" in line]
        assert re.search(
            r"lenet-00001-of-00002.parquet: (is|holds|has) .*; it is regenerated, and the old file kept as \.", note
        )
        assert len(list((out / "mnist").glob(".*.damaged"))) == 1
        assert provenance(out)["runs"][-1]["images"] == 2


def test_a_shard_that_can_not_be_read_now_is_not_taken_for_a_damaged_one(recipe, tmp_path, monkeypatch):
    pictures = [picture(i) for i in range(4)]
    make_split(recipe(pictures), tmp_path / "out")
    folder = SplitFolder(SplitPaths(tmp_path / "out", "mnist", "lenet"), 4, 2)
    unfinish(folder.paths, files={})
    before = rows(tmp_path / "out")

    def fails(*arguments, **options):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("fmrgen.storage.shards.pq.ParquetFile", fails)
        with pytest.raises(UserError, match=r"lenet-0000\d-of-00002.parquet: can't be read: .*Input/output error"):
            make_split(recipe(pictures), tmp_path / "out")
    assert rows(tmp_path / "out") == before


def test_a_repair_that_was_killed_forgets_no_digest(recipe, tmp_path, notes):
    pictures = [picture(i) for i in range(4)]
    make_split(recipe(pictures), tmp_path / "out")
    folder = SplitFolder(SplitPaths(tmp_path / "out", "mnist", "lenet"), 4, 2)
    unfinish(folder.paths)
    table = pq.read_table(folder.shard_path(0))
    pq.write_table(table.set_column(1, "label", [[1, 1]]).cast(table.schema), folder.shard_path(0))  # well formed
    make_split(recipe(pictures), tmp_path / "out")
    assert any("lenet-00000-of-00002.parquet: is not the file whose sha256 is on record" in note for note in notes)


def test_a_run_that_stored_nothing_has_claimed_nothing(recipe, tmp_path):
    with pytest.raises(UserError, match="image of id 0 is unreadable"):
        make_split(recipe([b"broken", picture(1)]), tmp_path / "out")
    assert make_split(recipe([picture(0), picture(1)], "perturb.budget=2"), tmp_path / "out").rows == 2


def test_a_source_of_which_nothing_can_be_read_is_an_error(recipe, tmp_path):
    with pytest.raises(UserError, match="source: all 3 images were unreadable and skipped"):
        make_split(recipe([b"a", b"b", b"c"], "source.on_error=skip"), tmp_path / "out")


def test_two_numberings_of_the_same_classes_are_two_recipes(recipe, tmp_path):
    pictures = [picture(i) for i in range(4)]
    one = recipe(pictures, "source.classes={x: 0, y: 1}")
    other = recipe(pictures, "source.classes={y: 1, x: 0}")
    assert one.fingerprint != other.fingerprint


def test_a_folder_of_another_recipe_is_refused(recipe, tmp_path):
    pictures = [picture(0), picture(1)]
    make_split(recipe(pictures), tmp_path / "out")
    before = rows(tmp_path / "out")
    with pytest.raises(
        UserError, match=r"was generated by another recipe: perturb.budget was 3, is 2; choose another output="
    ):
        make_split(recipe(pictures, "perturb.budget=2"), tmp_path / "out")
    with pytest.raises(UserError, match="has another generator.image_size in its split .*: choose another config="):
        make_split(recipe(pictures, "output.split=other", "generator.image_size=48"), tmp_path / "out")
    with pytest.raises(UserError, match="has another source.limit in its split"):
        make_split(recipe(pictures, "output.split=other", "source.limit=1"), tmp_path / "out")
    assert rows(tmp_path / "out") == before


def test_a_second_classifier_is_a_second_split_of_the_config(recipe, tmp_path):
    pictures = [picture(i) for i in range(3)]
    make_split(recipe(pictures), tmp_path / "out")
    make_split(recipe(pictures, "output.split=other", "perturb.budget=1"), tmp_path / "out")
    loaded = load_dataset(str(tmp_path / "out"), "mnist")
    assert {name: len(split) for name, split in loaded.items()} == {"lenet": 3, "other": 3}


def test_progress_counts_every_row(recipe, tmp_path):
    seen = []
    make_split(
        recipe([picture(i) for i in range(5)]), tmp_path / "out", on_progress=lambda p: seen.append((p.done, p.total))
    )
    assert seen[0] == (0, 5)
    assert seen[-1] == (5, 5)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.slow
def test_the_command_starts_its_own_processes_and_says_what_it_runs_on(tmp_path):
    """From any folder; accelerate's own launcher, asked for two on a CPU, starts one, and that is told."""
    job = ["generate", "mnist-lenet", "--limit", "30", "perturb.budget=1", "-o", "out"]

    def run(*command):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stderr

    told = run("-m", "fmrgen", *job, "--num-processes", "2")  # one may have made all before the first one comes
    assert "2 processes on cpu, 30 slots each; " in told or "there is nothing to do" in told
    runs = json.loads((tmp_path / "out/provenance/mnist/lenet.json").read_text())["runs"]
    assert {entry["processes"] for entry in runs} == {2}  # the second may come when nothing is left to do
    next((tmp_path / "out/mnist").glob("lenet-00001*")).unlink()
    launch = ("-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1", "-m", "fmrgen")
    told = run(*launch, *job)
    assert "asked for 2 processes but started one, as it does on CPUs; use fmrgen's own --num-processes 2" in told
    assert "1 process on cpu, 30 slots; resuming: 1 of 2 shards are finished" in told


def test_more_processes_launched_than_accelerate_sees(monkeypatch):
    start_processes()  # accelerate has made up its mind: one process
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="launched as 2 processes but accelerate sees 1"):
        start_processes()


def test_stuck_rows_are_counted_and_told(tmp_path, monkeypatch, notes):
    """Where the classifier's gradient is zero nothing was tested, and nothing counts as robust."""
    (tmp_path / "flat.py").write_text(
        "import torch\n"
        "from fmrgen import load_classifier\n"
        "class Flat(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.inner = load_classifier('asset:mnist/lenet')\n"
        "    def forward(self, images):\n"
        "        return self.inner(images).detach() + 0 * images.mean()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    changes = ["source.limit=4", "classifier={kind: module, target: 'flat:Flat'}", "perturb.slots=4"]
    summary = make_split(load_recipe("mnist-lenet", changes), tmp_path / "out")
    assert summary.stuck.value == 100
    assert summary.perturbed_accuracy is None
    assert any(note.startswith("100.0 % of the rows are stuck: no gradient reaches the latent") for note in notes)
    assert load_dataset(str(tmp_path / "out"), "mnist", split="lenet").features["stop_reason"].int2str(4) == "stuck"
