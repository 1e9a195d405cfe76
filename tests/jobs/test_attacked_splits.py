"""A split of several attacks: what its rows, its card and its report say, and that verify checks it."""

import shutil

import pytest
from commands import run
from datasets import load_dataset
from stored import alter

from fmrgen import evaluate, load_recipe, verify
from fmrgen.jobs.generate import make_split
from fmrgen.report.markdown import to_markdown
from fmrgen.report.outline import evaluation_report

ATTACKS = "[{update: sign}, {update: l2, noise: 4}, {objective: targeted, target: third, step: 2}]"
CHANGES = ["source.limit=24", "output.shard_size=12", "perturb.budget=12", "perturb.control=8"]


pytestmark = pytest.mark.slow  # one split for all of them


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacks")
    for config, attacks in (("three", ATTACKS), ("one", "one")):
        recipe = load_recipe("mnist-lenet", [*CHANGES, f"perturb.attacks={attacks}", f"output.config={config}"])
        make_split(recipe, folder)
    return folder


def test_its_rows_hold_every_attack(folder):
    rows = load_dataset(str(folder), "three", split="lenet")
    alone = {row["id"]: row for row in load_dataset(str(folder), "one", split="lenet")}
    assert "attacks" not in next(iter(alone.values()))
    for row in rows:
        first, made = row["attacks"][0], row["attacks"][row["attack"]]
        assert first["predictions"] == alone[row["id"]]["step_predictions"]
        assert row["control_predictions"] == alone[row["id"]]["control_predictions"]
        assert made["predictions"][: row["iterations"] + 1] == row["step_predictions"]
        fools = [any(answer != row["label"] for answer in record["predictions"][1:]) for record in row["attacks"]]
        assert not any(fools[:-1])
        assert fools[-1] == (row["valid"] and row["prediction"] != row["label"])
    assert max(len(row["attacks"]) for row in rows) == 3


def altered(folder, tmp_path, column, change):
    """A copy of the split of three attacks, with the values of a column of its first shard changed."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    alter(next((copy / "three").glob("lenet-00000-*.parquet")), column, change)
    return copy


def test_it_is_true_until_somebody_changes_it(folder, tmp_path):
    assert verify(f"{folder}:three/lenet").disagreements == []
    copy = altered(folder, tmp_path, "attack", lambda numbers: numbers.__setitem__(0, 7))
    (wrong,) = verify(f"{copy}:three/lenet").disagreements
    assert (wrong.column, wrong.stored) == ("attack", 7)


def test_a_missing_part_of_a_record_is_one_line(folder, tmp_path, capsys):
    copy = altered(folder, tmp_path, "attacks", lambda records: records[1][0].update(predictions=None))
    assert run("evaluate", f"{copy}:three/lenet", "-c", "asset:mnist/lenet", "-q") == 2
    assert "row 1: a part of attacks is missing; every row needs all" in capsys.readouterr().err
    assert [wrong.column for wrong in verify(f"{copy}:three/lenet").disagreements] == ["attacks"]


def test_card_and_report_say_how_tight_fmr_is(folder):
    card = (folder / "README.md").read_text()
    assert "FMR is an upper bound, not converged: each of the last two attacks lowered it by" in card
    assert "FMR is an upper bound (one attack)." in card
    assert "3 attacks: sign; l2, noise 4; sign targeted third, step 2" in card
    evaluation = evaluate(f"{folder}:three/lenet", {"lenet": "asset:mnist/lenet"})
    (split,) = evaluation.splits
    assert [after.attack for after in split.attacks] == ["sign", "l2, noise 4", "sign targeted third, step 2"]
    summary = evaluation.results[0].total
    assert split.attacks[-1].fmr.value == pytest.approx(summary.fmr.value)
    fooled = summary.valid_rows * (1 - summary.perturbed_accuracy.value / 100)
    assert sum(after.fooled for after in split.attacks) == round(fooled)
    text = to_markdown(evaluation_report(evaluation))
    assert "FMR after each attack" in text
    assert "| 2 | l2, noise 4 |" in text


def test_only_splits_of_the_same_attacks_are_ranked(folder):
    splits = [f"{folder}:{name}/lenet" for name in ("three", "one")]
    assert evaluate(splits, {"lenet": "asset:mnist/lenet"}).own is None


def test_a_mistake_in_the_list_is_one_line(tmp_path, capsys):
    for change, message in (
        ("perturb.attacks=strong", "perturb.attacks: must be 'one', 'standard' or 'thorough', not strong"),
        ("perturb.attacks=[{update: sign}, {updat: l2}]", "attacks: entry 2: unknown key updat, did you mean update?"),
        ("perturb.attacks=[{update: sign}, {noise: -1}]", "attacks: entry 2: noise must not be negative, it is -1"),
        ("perturb.attacks=[sign, l2]", "attacks: entry 1 is 'sign'; write {update: sign}"),
        ("perturb.attacks=[{update: sign}]", "a list of 2 to 100"),
    ):
        assert run("generate", "mnist-lenet", change, "-o", tmp_path / "out") == 2
        error = capsys.readouterr().err.strip()
        assert message in error
        assert len(error.splitlines()) == 1, error


def test_a_config_has_the_same_columns_in_all_its_splits(folder, capsys):
    changes = [*CHANGES, "output.split=other", "output.config=three"]
    assert run("generate", "mnist-lenet", *changes, "-o", folder) == 2
    error = capsys.readouterr().err.strip()
    assert "three/other would have other columns than three/lenet (attack, attacks)" in error
    assert error.endswith("choose another output.config")
