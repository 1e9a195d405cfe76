"""Which images people see, controls among them, and what a sheet of them stores."""

import csv

import numpy as np
import pytest
from commands import run
from PIL import Image
from sheets import fill
from stored import rows

from fmrgen import UserError
from fmrgen.apps.judging.sheet import draw, read_sheet


def columns(rows=1000, fooled=0.3, valid=0.9, seed=0):
    random = np.random.default_rng(seed)
    label = random.integers(0, 10, rows)
    return {
        "id": np.arange(rows) * 3,
        "label": label,
        "valid": random.random(rows) < valid,
        "prediction": np.where(random.random(rows) < fooled, (label + 1) % 10, label),
    }


def test_a_sample_is_random_among_valid_rows_with_controls():
    rows = columns()
    sample = draw(rows, 300, 0)
    assert sample == draw(rows, 300, 0) != draw(rows, 300, 1)
    first = [shown.id for shown in sample if shown.which == "image"]
    assert len(first) == len(set(first)) == 300
    places = np.array(first) // 3
    assert rows["valid"][places].all()
    fooled = rows["prediction"] != rows["label"]
    assert fooled[places].mean() == pytest.approx(fooled[rows["valid"]].mean(), abs=0.08)
    assert sum(shown.which == "original" for shown in sample) == 30
    small = columns(rows=40)
    assert sum(shown.which == "image" for shown in draw(small, 300, 0)) == small["valid"].sum()
    with pytest.raises(UserError, match="no row of the split is valid"):
        draw(columns(valid=0), 300, 0)


@pytest.mark.slow
def test_a_sheet_from_the_split_to_its_figures(split, tmp_path, capsys):
    assert run("judge", split, "--sheet", tmp_path / "sheet", "--n", "40") == 0
    assert "sheet.csv: 70 images to name, by the classes in classes.txt" in capsys.readouterr().out
    with (tmp_path / "sheet/sheet.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert [row["file"] for row in listed] == sorted(row["file"] for row in listed)
    assert all(row["label"] == "" for row in listed)
    image = Image.open(tmp_path / "sheet" / listed[0]["file"])
    assert image.size == (128, 128)
    stored = rows(split)
    fill(split, tmp_path / "sheet", tmp_path / "ann.csv", lambda shown: str(stored[shown.id]["label"]))
    assert run("judge", split, "--people", f"ann={tmp_path / 'ann.csv'}") == 0
    assert capsys.readouterr().out.strip().endswith("judgements/mnist/lenet/ann.parquet")
    assert run("evaluate", split, "-c", "asset:mnist/lenet", "-o", tmp_path / "report", "-q") == 0
    assert "| ann |" in (tmp_path / "report/evaluation.md").read_text()
    assert "ann" in (split / "README.md").read_text()


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (["file,label", "images/x.png,7"], "x.png is no image of"),
        (["file,label", "images/x.png,eleven"], "line 2: 'eleven' is no class; see classes.txt"),
        (["file,label", "images/x.png,"], "has no label; fill its column label"),
        (["image,class", "a,b"], "needs columns file and label"),
    ],
)
def test_a_sheet_that_can_not_be_used(split, tmp_path, lines, error):
    (tmp_path / "ann.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=error):
        read_sheet(str(split), "ann", tmp_path / "ann.csv", output=tmp_path)


def test_mistakes_of_the_command(split, tmp_path, capsys):
    for arguments, error in (
        ([], "name a judge with --oracle"),
        (["--people", "ann.csv"], "--people ann.csv: must be NAME=FILE"),
        (["--people", f"people={tmp_path / 'gone.csv'}"], ""),
    ):
        assert run("judge", split, *arguments) == 2
        told = capsys.readouterr().err
        assert error in told
        assert told.count("\n") == 1
