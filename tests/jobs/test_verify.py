"""Verification finds every sort of untruth; and anyone's own script finds what is stored."""

import importlib
import io
import json
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import warm
from commands import run
from PIL import Image
from places import ROOT

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


def alter(split, column, change):
    path = next(split.glob("mnist/lenet-00001-*.parquet"))
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[3] = change(values[3], values)
    index = table.schema.get_field_index(column)
    pq.write_table(
        table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type)), path
    )


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
        ("oracle_label", lambda v, _: (v + 1) % 10),
        ("original_oracle_label", lambda v, _: (v + 1) % 10),
        ("prediction", lambda v, _: (v + 1) % 10),
        ("original_prediction", lambda v, _: (v + 1) % 10),
        ("clip_score", lambda v, _: v + 0.001),
        ("oracle_probability", lambda v, _: v * 0.99),
        ("loss", lambda v, _: v + 0.01),
        ("pixel_shift", lambda v, _: v + 0.01),
        ("image", lambda v, values: values[5]),
        ("valid", lambda v, _: not v),
    ],
)
def test_an_altered_value_is_found_by_its_id(split, column, change):
    alter(split, column, change)
    outcome = verify(str(split))
    assert outcome.true_rows == 119
    assert {entry.id for entry in outcome.disagreements} == {43}
    if column != "image":
        assert column in {entry.column for entry in outcome.disagreements} | {"valid"}


def test_the_command_lists_what_is_not_true_and_exits_1(split, capsys):
    assert run("verify", f"{split}:mnist/lenet", "-q") == 0
    assert capsys.readouterr().out == f"{split}:mnist/lenet: 120 of 120 rows match their stored images\n"
    alter(split, "oracle_label", lambda v, _: (v + 1) % 10)
    assert run("verify", f"{split}:mnist/lenet", "-q") == 1
    told = capsys.readouterr().out
    assert "119 of 120" in told
    assert "id 43: oracle_label is stored as" in told


def png(*size):
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows[3].update(image={"bytes": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"}),
            r"id 43: its image is unreadable \(an EPS is a program, and is not run; convert it\)",
        ),
        (
            lambda rows: rows[3].update(image={"bytes": None, "path": "/etc/secret.png"}),
            r"id 43: its image is unreadable \(its file is not in the split: /etc/secret.png\)",
        ),
        (
            lambda rows: rows[3].update(image={"bytes": b"", "path": None}),
            r"id 43: its image is unreadable \(no bytes\)",
        ),
        (
            lambda rows: rows[3].update(original={"bytes": png(5, 7)}),
            r"id 43: its original is unreadable \(it has 5×7 pixels, not 32×32\)",
        ),
        (lambda rows: rows[3].update(label=99), "id 43: label 99 is not one of the 10 classes"),
        (lambda rows: rows[3].update(prediction=None), "id 43: has no prediction; every row needs one"),
        (lambda rows: rows.__setitem__(3, rows[2]), "its files contain id 42 twice; fmrgen verify --files shows which"),
        (lambda rows: rows.pop(), "its files have 119 rows and its provenance says 120; fmrgen verify --files shows"),
    ],
)
def test_what_no_run_can_have_written_is_told_and_of_no_use(split, change, message):
    path = next(split.glob("mnist/lenet-00001-*.parquet"))
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    with pytest.raises(UserError, match=message):
        verify(str(split))
    if "original has" not in message:  # another size is no matter to a classifier
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


def test_neither_source_nor_generator_is_needed(split):
    path = split / "provenance/mnist/lenet.json"
    told = json.loads(path.read_text())
    gone = {
        "source": {"kind": "datasets", "path": "no/where"},
        "generator": {"kind": "vqgan", "checkpoint": "gone", "config": "gone"},
    }
    path.write_text(json.dumps({**told, "recipe": {**told["recipe"], **gone}}))
    assert verify(str(split)).true_rows == 120


def test_other_weights_and_broken_files_are_one_line(split):
    path = split / "provenance/mnist/lenet.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "weights_sha256": {**told["weights_sha256"], "oracle": "0" * 64}}))
    with pytest.raises(UserError, match="the recipe now loads other oracle weights"):
        verify(str(split))
    path.write_text(json.dumps(told))
    shard = next(split.glob("mnist/lenet-00001-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(UserError, match="a file of it can't be read"):
        verify(str(split))


@pytest.mark.slow
def test_code_that_has_changed_is_told(tmp_path, monkeypatch, capsys):
    """Weights in plain tensors and code of one's own: another PCA does not go on with a split without a word."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would be taken for that of a file of one size and second
    code = (
        "import torch\n"
        "from fmrgen import Generator, GeneratorConfig, Latents\n"
        "class Shift(Generator):\n"
        "    image_size = 32\n"
        "    def __init__(self): self.mean = torch.full((3, 1, 1), {mean})\n"
        "    def encode(self, images, labels): return Latents(images - self.mean)\n"
        "    def decode(self, latents): return (latents.free + self.mean).clamp(0, 1)\n"
        "class Config(GeneratorConfig):\n"
        "    kind: str = 'shifting:Config'\n"
        "    def build(self, device='cpu'): return Shift()\n"
    )

    def write(mean, more=""):
        (tmp_path / "shifting.py").write_text("import beside\n" + code.replace("{mean}", str(mean)) + more)
        importlib.invalidate_caches()
        sys.modules.pop("shifting", None)

    (tmp_path / "beside.py").write_text("from beside_that import ONE\n")
    (tmp_path / "beside_that.py").write_text("ONE = 1\n")
    job = ["generate", "mnist-lenet", "generator={kind: 'shifting:Config', image_size: 32}", "perturb.budget=1", "-q"]
    job += ["--limit", "30", "-o", "out"]
    write(0.25)
    assert run(*job) == 0
    told = json.loads((tmp_path / "out/provenance/mnist/lenet.json").read_text())
    assert len(told["weights_sha256"]["generator"]) == 64
    assert list(told["code_sha256"]) == ["beside", "beside_that", "shifting"]
    shard = next((tmp_path / "out/mnist").glob("lenet-00001*"))
    shard.unlink()
    write(0.75)
    capsys.readouterr()
    assert run(*job) == 2
    assert "was started with other generator weights" in capsys.readouterr().err
    write(0.25, "# another line\n")
    assert run(*job) == 2
    assert "was started with other code in shifting; put it back, or choose another --output" in capsys.readouterr().err
    write(0.25)
    (tmp_path / "beside_that.py").write_text("ONE = 2\n")
    assert run(*job) == 2
    assert "was started with other code in beside_that" in capsys.readouterr().err
    (tmp_path / "beside_that.py").write_text("ONE = 1\n")
    assert run(*job) == 0  # it is whole now
    (tmp_path / "beside_that.py").write_text("ONE = 2\n")
    assert run(*job) == 0
    assert "was generated by other code in beside_that; its figures are of that" in capsys.readouterr().err
