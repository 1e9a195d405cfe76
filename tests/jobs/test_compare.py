"""A split for each classifier, all on all, in one command that can be run again."""

import json

import pytest
from helpers import run

from fmrgen import compare, load_classifier, load_recipe
from fmrgen.errors import UserError

FEW = ["--limit", 12, "perturb.budget=3", "perturb.step_size=0.1"]
SMOOTH = "{kind: lenet, smooth: true, checkpoint: 'asset:mnist/lenet/model.safetensors'}"
COMMAND = ["compare", "mnist-lenet", "-c", "shipped=asset:mnist/lenet", "-c", f"soft-net={SMOOTH}", *FEW]


def test_each_classifier_has_its_split_and_its_place(tmp_path, capsys):
    folder = tmp_path / "out"
    assert run(*COMMAND, "--output", folder) == 0
    told = capsys.readouterr().out
    assert told.index("each on its own split") < told.index("FMR by other ways of counting")
    made = {path: path.read_bytes() for path in folder.glob("mnist/*.parquet")}
    assert {path.name.partition("-0")[0] for path in made} == {"shipped", "soft_net"}
    found = json.loads((folder / "comparison/evaluation.json").read_text())
    assert found["own"]["rows"] == 12
    assert {place["classifier"] for place in found["own"]["ranking"]} == {"shipped", "soft-net"}
    assert {(place["split"].partition(":")[2], place["classifier"]) for place in found["own"]["ranking"]} == {
        ("mnist/shipped", "shipped"),
        ("mnist/soft_net", "soft-net"),
    }
    assert (folder / "comparison/models.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "comparison/report.html").read_text()
    assert page.index("Each classifier on its own split") < page.index("<h2>Transfer</h2>")

    run(*COMMAND, "--output", folder, "--quiet")  # all of it is there
    assert {path: path.read_bytes() for path in folder.glob("mnist/*.parquet")} == made


def test_in_python_too(tmp_path):
    recipe = load_recipe("mnist-lenet", ["source.limit=8", "perturb.budget=1"])
    classifiers = {
        "a": load_classifier("asset:mnist/lenet")[1],
        "b": load_classifier("outside_components:SmallNetConfig")[1],
    }
    evaluation = compare(recipe, classifiers, tmp_path / "out")
    assert [split.split for split in evaluation.splits] == ["a", "b"]
    assert {place.best for place in evaluation.own.ranking} | {place.worst for place in evaluation.own.ranking} <= {
        1,
        2,
    }


def test_what_makes_no_comparison_is_refused(tmp_path):
    recipe = load_recipe("mnist-lenet")
    one = load_classifier("asset:mnist/lenet")[1]
    with pytest.raises(UserError, match="a comparison needs at least two"):
        compare(recipe, {"a": one}, tmp_path / "out")
    with pytest.raises(UserError, match=r"classifier a\.b: its split a_b is that of another; give it a name"):
        compare(recipe, {"a-b": one, "a.b": one}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
