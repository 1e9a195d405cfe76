"""Verification finds every sort of untruth; and anyone's own script finds what is stored."""

import importlib
import io
import json
import os
import shutil
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import warm
from commands import run
from PIL import Image
from places import ROOT
from stored import alter

from fmrgen import evaluate, verify
from fmrgen.errors import UserError
from fmrgen.jobs.generate import make_split
from fmrgen.jobs.verify_files import verify_files
from fmrgen.recipe.job import load_recipe
from fmrgen.split.reference import parse_reference

# What a reader of the split would write; it knows nothing of fmrgen.
RECOMPUTE = """
import sys
import torch
from datasets import load_dataset
from transformers import CLIPModel, CLIPProcessor

folder, clip = sys.argv[1:]
rows = load_dataset(folder, "mnist", split="lenet")
model, processor = CLIPModel.from_pretrained(clip), CLIPProcessor.from_pretrained(clip)
prompts = [f"an image of {name}" for name in rows.features["label"].names]
agreed = 0
for row in rows:
    inputs = processor(text=prompts, images=row["image"], return_tensors="pt", padding=True)
    with torch.no_grad():
        cosine = (model(**inputs).logits_per_image / model.logit_scale.exp())[0]
    assert abs(cosine[row["label"]].item() - row["clip_score"]) < 1e-4, row["id"]
    agreed += cosine.argmax().item() == row["oracle_label"]
print(f"{agreed} of {len(rows)}")
"""


def changed(split, column, change):
    """Changes the value of the row with id 43; `change` gets all values of its shard, and its place there."""
    alter(next(split.glob("mnist/lenet-00001-*.parquet")), column, lambda values: change(values, 3))


def next_class(values, i):
    values[i] = (values[i] + 1) % 10


def more(values, i):
    values[i] += 0.01


@pytest.mark.slow
def test_a_fresh_split_is_true_and_anyone_finds_the_same(split):
    outcome = verify(f"{split}:mnist/lenet")
    assert (outcome.true_rows, outcome.rows, outcome.disagreements) == (120, 120, [])
    clip = ROOT / "fmrgen/weights/assets/mnist/clip"
    result = warm.run(["-c", RECOMPUTE, split, clip], {**os.environ}, timeout=120)
    assert result.stdout.strip() == "120 of 120", result.stderr


@pytest.mark.parametrize(
    ("column", "change"),
    [
        *[(f"{name}{of}", next_class) for name in ("", "original_") for of in ("oracle_label", "prediction")],
        *[(name, more) for name in ("clip_score", "oracle_probability", "loss", "pixel_shift")],
        ("image", lambda values, i: values.__setitem__(i, values[5])),
        ("valid", lambda values, i: values.__setitem__(i, not values[i])),
    ],
)
def test_an_altered_value_is_found_by_its_id(split, column, change):
    changed(split, column, change)
    outcome = verify(str(split))
    assert outcome.true_rows == 119
    assert {entry.id for entry in outcome.disagreements} == {43}
    if column != "image":
        assert column in {entry.column for entry in outcome.disagreements} | {"valid"}


def test_the_command_lists_what_is_not_true_and_exits_1(split, capsys):
    assert run("verify", f"{split}:mnist/lenet", "-q") == 0
    assert capsys.readouterr().out == f"{split}:mnist/lenet: 120 of 120 rows match their stored images\n"
    changed(split, "oracle_label", next_class)
    assert run("verify", f"{split}:mnist/lenet", "-q") == 1
    told = capsys.readouterr().out
    assert "119 of 120" in told
    assert "id 43: oracle_label is stored as" in told


def png(*size):
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    return {"bytes": buffer.getvalue()}


EPS = {"bytes": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image": EPS}, r"its image is unreadable \(an EPS is a program, and is not run; convert it\)"),
        (
            {"image": {"path": "/etc/secret.png"}},
            r"its image is unreadable \(its file is not in the split: /etc/secret.png\)",
        ),
        ({"image": {"bytes": b""}}, r"its image is unreadable \(no bytes\)"),
        ({"original": png(5, 7)}, r"its original is unreadable \(it has 5×7 pixels, not 32×32\)"),
        ({"label": 99}, "label 99 is not one of the 10 classes"),
        ({"prediction": None}, "has no prediction; every row needs one"),
    ],
)
def test_what_no_run_can_have_written_is_told_and_of_no_use(split, values, message):
    check_of_no_use(split, lambda rows: rows[3].update(values), f"id 43: {message}")


def test_rows_that_are_twice_there_or_missing_are_told_and_of_no_use(split):
    whole = shutil.copytree(split, split.parent / "copy")
    check_of_no_use(split, lambda rows: rows.__setitem__(3, rows[2]), "its files contain id 42 twice; fmrgen verify")
    check_of_no_use(whole, list.pop, "its files have 119 rows and its provenance says 120; fmrgen verify --files shows")


def check_of_no_use(split, change, message):
    path = next(split.glob("mnist/lenet-00001-*.parquet"))
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    with pytest.raises(UserError, match=message):
        verify(str(split))
    with pytest.raises(UserError):
        evaluate([str(split)], ["asset:mnist/lenet"])
    assert verify_files(str(split)).intact == 2


def test_columns_that_are_not_the_provenances_are_told(split):
    for path in split.glob("mnist/*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["loss"]), path)
    with pytest.raises(UserError, match="its columns are not those that its provenance says; fmrgen verify --files"):
        verify(str(split))


@pytest.mark.parametrize(
    ("reference", "parsed"),
    [
        ("out", ("out", None, None, None)),
        ("out:mnist/lenet", ("out", None, "mnist", "lenet")),
        ("owner/name@v1:imagenet-vqgan-clip/resnet50", ("owner/name", "v1", "imagenet-vqgan-clip", "resnet50")),
        ("owner/name@refs/pr/3", ("owner/name", "refs/pr/3", None, None)),
        ("/some@where/out:mnist/lenet", ("/some", "where/out", "mnist", "lenet")),  # unless that folder is there
    ],
)
def test_split_references(reference, parsed):
    assert tuple(parse_reference(reference)) == parsed


def test_a_folder_that_is_there_goes_before_a_revision(tmp_path):
    (tmp_path / "a@b").mkdir()
    assert tuple(parse_reference(f"{tmp_path}/a@b:mnist/lenet")) == (f"{tmp_path}/a@b", None, "mnist", "lenet")


def test_trusted_code_is_run(tmp_path):
    overrides = ["source.limit=10", "perturb.budget=2", "classifier.kind=outside_components:SmallNetConfig"]
    make_split(load_recipe("mnist-lenet", overrides), tmp_path / "out")
    outcome = verify(str(tmp_path / "out"), trust=True)
    assert outcome.true_rows == outcome.rows == 10


def test_other_weights_and_broken_files_are_one_line(split):
    """A source and a generator that are gone are no matter."""
    path = split / "provenance/mnist/lenet.json"
    told = json.loads(path.read_text())
    gone = {"source": {"kind": "datasets", "path": "no/where"}}
    gone["generator"] = {"kind": "vqgan", "checkpoint": "gone", "config": "gone"}
    told["recipe"] |= gone
    path.write_text(json.dumps(told))
    assert verify(str(split)).true_rows == 120
    path.write_text(json.dumps({**told, "weights_sha256": {**told["weights_sha256"], "oracle": "0" * 64}}))
    with pytest.raises(UserError, match="the recipe now loads other oracle weights"):
        verify(str(split))
    path.write_text(json.dumps(told))
    shard = next(split.glob("mnist/lenet-00001-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(UserError, match="a file of it can't be read"):
        verify(str(split))


SHIFTING = """
import beside
import torch
from fmrgen import Generator, GeneratorConfig, Latents

class Shift(Generator):
    image_size = 32
    def __init__(self): self.mean = torch.full((3, 1, 1), MEAN)
    def encode(self, images, labels): return Latents(images - self.mean)
    def decode(self, latents): return (latents.free + self.mean).clamp(0, 1)

class Config(GeneratorConfig):
    kind: str = "shifting:Config"
    def build(self, device="cpu"): return Shift()
"""


@pytest.mark.slow
def test_code_that_has_changed_is_told(tmp_path, monkeypatch, capsys):
    """Weights in plain tensors and code of one's own: another PCA does not go on with a split without a word."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would be taken for that of a file of one size and second
    job = ["generate", "mnist-lenet", "generator={kind: 'shifting:Config', image_size: 32}", "perturb.budget=1", "-q"]
    (tmp_path / "beside.py").write_text("from beside_that import ONE\n")

    def run_with(status, mean=0.25, more="", one=1):
        (tmp_path / "shifting.py").write_text(SHIFTING.replace("MEAN", str(mean)) + more)
        (tmp_path / "beside_that.py").write_text(f"ONE = {one}\n")
        importlib.invalidate_caches()
        sys.modules.pop("shifting", None)
        assert run(*job, "--limit", "30", "-o", "out") == status
        return capsys.readouterr().err

    run_with(0)
    told = json.loads((tmp_path / "out/provenance/mnist/lenet.json").read_text())
    assert len(told["weights_sha256"]["generator"]) == 64
    assert list(told["code_sha256"]) == ["beside", "beside_that", "shifting"]
    next((tmp_path / "out/mnist").glob("lenet-00001*")).unlink()
    assert "was started with other generator weights" in run_with(2, mean=0.75)
    other = "was started with other code in"
    assert f"{other} shifting; put it back, or choose another --output" in run_with(2, more="# another line\n")
    assert f"{other} beside_that" in run_with(2, one=2)
    run_with(0)  # it is whole now
    assert "was generated by other code in beside_that; its figures are of that" in run_with(0, one=2)
