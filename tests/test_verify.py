"""Verification finds every sort of untruth; and anyone's own script finds what is stored."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import fmrgen

from fmrgen import verify
from fmrgen.errors import UserError
from fmrgen.generate import generate
from fmrgen.recipe import load_recipe
from fmrgen.split import parse_reference

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


@pytest.fixture
def split(tmp_path):
    overrides = ["source.limit=40", "output.shard_size=20", "perturb.budget=8", "perturb.step_size=0.1"]
    generate(load_recipe("mnist-lenet", overrides), tmp_path / "out")
    return tmp_path / "out"


def alter(split, column, change):
    path = next(split.glob("mnist/lenet-00001-*.parquet"))
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[3] = change(values[3], values)
    index = table.schema.get_field_index(column)
    pq.write_table(
        table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type)), path
    )


def test_a_fresh_split_is_true_and_anyone_finds_the_same(split):
    outcome = verify(f"{split}:mnist/lenet")
    assert (outcome.true_rows, outcome.rows, outcome.disagreements) == (40, 40, [])
    clip = Path(__file__).parent.parent / "fmrgen/assets/mnist/clip"
    result = subprocess.run([sys.executable, "-c", RECOMPUTE, split, clip], capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "40 of 40", result.stderr


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
        ("image", lambda v, values: values[5]),
        ("valid", lambda v, _: not v),
    ],
)
def test_an_altered_value_is_found_by_its_id(split, column, change):
    alter(split, column, change)
    outcome = verify(str(split))
    assert outcome.true_rows == 39
    assert {entry.id for entry in outcome.disagreements} == {23}
    if column != "image":
        assert column in {entry.column for entry in outcome.disagreements} | {"valid"}


def test_the_command_lists_what_is_not_true_and_exits_1(split):
    result = fmrgen("verify", f"{split}:mnist/lenet", "-q")
    assert (result.returncode, result.stdout.strip()) == (
        0,
        f"{split}:mnist/lenet: 40 of 40 rows are true of their stored images",
    )
    alter(split, "oracle_label", lambda v, _: (v + 1) % 10)
    result = fmrgen("verify", f"{split}:mnist/lenet", "-q")
    assert result.returncode == 1
    assert "39 of 40" in result.stdout
    assert "id 23: oracle_label is stored as" in result.stdout


@pytest.mark.parametrize(
    ("reference", "parsed"),
    [
        ("out", ("out", None, None, None)),
        ("out:mnist/lenet", ("out", None, "mnist", "lenet")),
        ("owner/name@v1:imagenet-vqgan-clip/resnet50", ("owner/name", "v1", "imagenet-vqgan-clip", "resnet50")),
        ("owner/name@refs/pr/3", ("owner/name", "refs/pr/3", None, None)),
    ],
)
def test_split_references(reference, parsed):
    assert tuple(parse_reference(reference)) == parsed


def test_a_split_that_is_not_there(split, tmp_path):
    with pytest.raises(UserError, match="no split mnist/other; there is mnist/lenet"):
        verify(f"{split}:mnist/other")
    with pytest.raises(UserError, match="neither a folder here nor a dataset repo"):
        verify(f"{tmp_path}/nowhere:mnist/lenet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no perturbed split"):
        verify(str(tmp_path / "empty"))
