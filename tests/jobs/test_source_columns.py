"""Columns of the source that go along into splits: stored, resumed, verified, merged, copied, and bad ones."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import run
from datasets import ClassLabel, Dataset, Features, Image, Value, load_dataset

from fmrgen import UserError, diff_classifiers, evaluate, load_recipe, open_split, read_figures, verify, write_report
from fmrgen.image_files import png_bytes
from fmrgen.jobs.generate import make_split
from fmrgen.recipe.build import build_source

FEW = ["perturb.budget=2", "perturb.control=0", "output.shard_size=8"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Twenty digits with the width of each, a camera and a mark that the third lacks."""
    source = build_source(load_recipe("mnist-lenet", ["source.limit=20"]).source)
    rows = [
        {
            "image": {"bytes": png_bytes(example.image), "path": None},
            "label": example.label,
            "width": 10 + example.id,
            "camera": "front" if example.id % 2 else "rear",
            "mark": None if example.id == 2 else example.id / 2,
        }
        for example in source.load(0, 20, 32)
    ]
    types = {"width": Value("int16"), "camera": Value("string"), "mark": Value("float32")}
    features = Features({"image": Image(), "label": ClassLabel(names=list("0123456789"))} | types)
    path = tmp_path_factory.mktemp("file") / "digits.parquet"
    Dataset.from_list(rows, features=features).to_parquet(path)
    return path


def recipe(file, *changes, columns="[width, camera, mark]"):
    return load_recipe("mnist-lenet", [f"source={{kind: datasets, path: {file}, columns: {columns}}}", *FEW, *changes])


@pytest.fixture(scope="module")
def folder(file, tmp_path_factory):
    output = tmp_path_factory.mktemp("split") / "out"
    make_split(recipe(file), output, part=(1, 2))
    make_split(recipe(file), output)  # the rest
    return output


def test_each_row_keeps_what_the_source_knows(folder):
    rows = load_dataset(str(folder), "mnist", split="lenet")
    assert rows["width"] == [10 + number for number in range(20)]
    assert rows["camera"] == ["rear", "front"] * 10
    assert rows["mark"][:4] == [0.0, 0.5, None, 1.5]
    assert (rows.features["width"].dtype, rows.features["mark"].dtype) == ("int64", "float64")
    recorded = json.loads((folder / "provenance/mnist/lenet.json").read_text())["source_columns"]
    assert recorded == {"width": "int64", "camera": "string", "mark": "float64"}
    assert verify(f"{folder}:mnist/lenet").disagreements == []


def test_the_other_columns_are_those_of_a_split_without(file, folder, tmp_path):
    make_split(recipe(file, columns="[]"), tmp_path / "out")
    plain = tmp_path / "out/provenance/mnist/lenet.json"
    assert "source_columns" not in json.loads(plain.read_text())
    for shard in sorted((tmp_path / "out/mnist").glob("*.parquet")):
        ours = pq.read_table(sorted((folder / "mnist").glob(shard.name[:11] + "*"))[0])
        theirs = pq.read_table(shard)
        assert ours.select(theirs.column_names).equals(theirs)


def test_a_diff_groups_by_them(file, folder):
    networks = "asset:mnist/lenet", "outside_components:HalfTrained"
    found = diff_classifiers(*networks, images=f"{folder}:mnist/lenet", by=["camera"])
    assert {group.name for group in found.flips.groups["camera"]} == {"front", "rear"}
    assert open_split(f"{folder}:mnist/lenet").features["camera"].dtype == "string"
    section = f"{{kind: datasets, path: {file}, columns: [width]}}"  # of real images
    found = diff_classifiers(*networks, images=section, by=["width:20"])
    assert sum(group.images for group in found.flips.groups["width"]) == 20


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("[nothing]", "source.columns: no column 'nothing'; choose from image, label"),
        ("[image]", "source.columns: image is a column of every split; rename it in the dataset"),
        ("[label]", "source.columns: label is a column of every split; rename it in the dataset"),
    ],
)
def test_columns_that_cannot_be_kept(file, tmp_path, columns, words):
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        make_split(recipe(file, columns=columns), tmp_path / "out")


@pytest.mark.slow
def test_figures_by_group(folder, tmp_path, capsys):
    split = f"{folder}:mnist/lenet"
    evaluation = evaluate([split], ["asset:mnist/lenet"], by=["width:15,25", "camera"], progress=False)
    (result,) = evaluation.results
    rows = load_dataset(str(folder), "mnist", split="lenet")
    widths = {name: summary.rows for name, summary in result.groups["width"].items()}
    assert widths == {"below 15": 5, "15 to 25": 10, "25 and more": 5}
    front = result.groups["camera"]["front"]
    of_front = rows.filter(lambda row: row["camera"] == "front")
    valid = of_front.filter(lambda row: row["valid"])
    right = np.mean(np.array(valid["prediction"]) == np.array(valid["label"]))
    assert front.perturbed_accuracy.value == pytest.approx(100 * right)
    assert front.valid_rows == len(valid)
    frame = evaluation.per_group()
    assert frame["by"].tolist() == ["width"] * 3 + ["camera"] * 2
    write_report(evaluation, tmp_path / "report")
    assert "By width" in (tmp_path / "report/evaluation.md").read_text()
    assert read_figures(tmp_path / "report/evaluation.json").results[0].groups == result.groups
    assert run("evaluate", split, "-c", "asset:mnist/lenet", "--by", "camera", "-o", tmp_path / "again") == 0
    assert "By camera" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (["height"], r".*mnist/lenet has no column height \(it has: .*width"),
        (["camera:3"], "the column camera holds 'rear', which has no bounds"),
        *[([f"width:{bounds}"], f"the bounds of width:{bounds} must be") for bounds in ("30,15", "nan", "15,inf")],
        (["width", "width:15"], "the column width is named twice"),
    ],
)
def test_groups_that_cannot_be(folder, by, message):
    with pytest.raises(UserError, match=f"by: {message}"):
        evaluate([f"{folder}:mnist/lenet"], ["asset:mnist/lenet"], by=by, progress=False)
