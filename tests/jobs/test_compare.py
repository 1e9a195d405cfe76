"""A split for each classifier, all on all, in one command that can be run again."""

import json

import pytest
from commands import run
from outside_components import SmallNet

from fmrgen import compare, evaluate, generate, load_recipe
from fmrgen.errors import UserError

FEW = ["--limit", 12, "perturb.budget=3", "perturb.step_size=0.1"]
SMOOTH = "{kind: lenet, smooth: true, checkpoint: 'asset:mnist/lenet/model.safetensors'}"
COMMAND = ["compare", "mnist-lenet", "-c", "shipped=asset:mnist/lenet", "-c", f"soft-net={SMOOTH}", *FEW]


@pytest.mark.slow
def test_each_classifier_has_its_split_and_its_place(tmp_path, capsys):
    folder = tmp_path / "out"
    assert run(*COMMAND, "--output", folder) == 0
    capsys.readouterr()
    made = {path: path.read_bytes() for path in folder.glob("mnist/*.parquet")}
    assert {path.name.partition("-0")[0] for path in made} == {"shipped", "soft_net"}
    found = json.loads((folder / "comparison/evaluation.json").read_text())
    assert found["own"]["rows"] == 12
    assert {(place["split"].partition(":")[2], place["classifier"]) for place in found["own"]["ranking"]} == {
        ("mnist/shipped", "shipped"),
        ("mnist/soft_net", "soft-net"),
    }
    page = (folder / "comparison/report.html").read_text()
    assert page.index("Each classifier on its own split") < page.index("<h2>Transfer</h2>")

    run(*COMMAND, "--output", folder, "--quiet")  # all of it is there
    assert {path: path.read_bytes() for path in folder.glob("mnist/*.parquet")} == made


def test_a_split_knows_its_own_network_without_the_recipes_wrapper(tmp_path):
    target = "{kind: module, target: 'outside_components:SmallNet', args: {width: 4}}"
    recipe = load_recipe("mnist-lenet", ["source.limit=8", "perturb.budget=1", f"classifier={target}"])
    generate(recipe, output=tmp_path / "out")
    found = evaluate([f"{tmp_path / 'out'}:mnist/lenet"], {"mine": SmallNet(width=4), "other": SmallNet(width=8)})
    assert [result.conditioned for result in found.results] == [True, False]


def test_what_makes_no_comparison_is_refused(tmp_path):
    recipe = load_recipe("mnist-lenet")
    one = "asset:mnist/lenet"
    for few in ([one, one], {"a": one}):
        with pytest.raises(UserError, match="classifiers: a comparison needs at least two, by their names: {'a': net"):
            compare(recipe, few, tmp_path / "out")
    with pytest.raises(UserError, match=r"classifier a\.b: its split would be a_b, like another's; rename it"):
        compare(recipe, {"a-b": one, "a.b": one}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
