"""A split of randomly moved images: the same for every classifier, true, resumed, and never called FMR."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run
from datasets import Value, load_dataset
from installed import of_installed_commands

from fmrgen import UserError, evaluate, load_recipe, verify
from fmrgen.jobs.generate import make_split
from fmrgen.recipe.job import changes_to_moves
from fmrgen.report.markdown import to_markdown
from fmrgen.report.outline import evaluation_report

CHANGES = ["source.limit=30", "output.shard_size=20"]
OTHER = "classifier={kind: lenet, num_classes: 10, checkpoint: null}"
LENET, UNTRAINED = "asset:mnist/lenet", "{kind: lenet, num_classes: 10}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moves")
    for changes in ([], [OTHER, "output.split=other"]):
        make_split(load_recipe("mnist-moves", [*CHANGES, *changes]), folder)
    return folder


@pytest.fixture(scope="module")
def evaluation(folder):
    return evaluate(f"{folder}:mnist-moves/geometric", {"lenet": LENET, "untrained": UNTRAINED})


def test_its_images_are_the_same_for_every_classifier(folder):
    ours, others = (load_dataset(str(folder), "mnist-moves", split=name) for name in ("geometric", "other"))
    assert len(ours) == 120
    assert ours["id"] == list(range(120))
    assert ours["original_id"] == [number // 4 for number in range(120)]
    for row, other in zip(ours, others, strict=True):
        for name in ("id", "move", "amount", "valid", "oracle_label", "oracle_probability"):
            assert row[name] == other[name]
        assert np.array_equal(row["image"], other["image"])
        assert np.array_equal(row["image"], row["original"]) <= (not row["valid"] or abs(row["amount"]) < 0.5)
    assert ours["prediction"] != others["prediction"]
    assert {"turn", "zoom", "slant", "shift"} == set(ours["move"])


def test_it_is_true_until_somebody_changes_it(folder, tmp_path):
    assert verify(f"{folder}:mnist-moves/geometric").disagreements == []
    for column, value in (("move", "shift"), ("amount", 0.5), ("original_id", 7), ("image", None)):
        copy = tmp_path / column
        shutil.copytree(folder, copy)
        path = sorted((copy / "mnist-moves").glob("geometric-00000-*.parquet"))[0]
        table = pq.read_table(path)
        values = table[column].to_pylist()
        row = next(row for row in range(20) if table["valid"][row].as_py() and values[row] != value)
        values[row] = values[row + 4] if value is None else value
        place, field = table.schema.get_field_index(column), table.schema.field(column)
        pq.write_table(table.set_column(place, field, pa.array(values, field.type)), path)
        wrong = verify(f"{copy}:mnist-moves/geometric").disagreements
        assert {entry.id for entry in wrong} == {row}
        assert column in {entry.column for entry in wrong}


def test_nothing_calls_its_figures_fmr(folder, evaluation):
    card = (folder / "README.md").read_text()
    assert "mnist-moves/geometric: test images moved at random" in card
    assert "it is not FMR" in card
    assert "| MA / SA" in card
    assert "**FMR**" not in card
    assert "PA / SA" not in card
    for result in evaluation.results:
        assert (result.conditioned, result.masked, result.total.fmr) == (False, False, None)
    text = to_markdown(evaluation_report(evaluation))
    shown = text.partition("What the figures are")[0]
    assert "MA / SA" in shown
    assert "FMR" not in shown.replace("paired bootstrap's over examples for FMR", "")
    assert "its images were made to fool another" not in text
    assert "Accuracy by move" in text
    assert "accepted" in text


def test_classifiers_are_ranked_by_it(evaluation):
    (comparison,) = evaluation.comparisons
    assert comparison.measure == "relative_moved_accuracy"
    assert [place.classifier for place in comparison.ranking] == ["lenet"]  # the other one is at chance
    lenet, untrained = evaluation.results
    assert lenet.total.relative_moved_accuracy.value > 90
    assert untrained.at_chance
    assert [after.move for after in lenet.moves] == ["shift", "slant", "turn", "zoom"]
    assert sum(after.rows for after in lenet.moves) == 120
    assert evaluation.own is None
    assert evaluation.worst == []
    frame = evaluation.to_frame()
    assert frame["relative_moved_accuracy"].notna().all()
    assert frame["fmr"].isna().all()
    assert evaluation.of_perturbed().splits == []
    evaluation.figure("moved")


def test_it_goes_on_where_a_job_ended(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder / "mnist-moves", tmp_path / "whole")
    recipe = load_recipe("mnist-moves", CHANGES)
    make_split(recipe, copy, part=(1, 3))
    make_split(recipe, copy)
    for path in sorted((copy / "mnist-moves").glob("geometric-*.parquet")):
        assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()


def test_any_recipe_has_moves(tmp_path, capsys):
    changes = ["--limit", "10", "--moves", "occluding", "-o", tmp_path / "out"]
    assert run("generate", "mnist-transform", *changes) == 0
    printed = capsys.readouterr().out.replace("\n", "")
    assert "mnist-transform-moves/occluding" in printed
    assert "MA / SA, moved accuracy relative to SA" in printed
    assert "FMR" not in printed
    rows = load_dataset(str(tmp_path / "out"), "mnist-transform-moves", split="occluding")
    assert set(rows["move"]) == {"patch", "stripe"}
    assert run("generate", "mnist-lenet", "--moves", "sideways", "-o", tmp_path / "out") == 2
    assert "geometric" in capsys.readouterr().err


def test_commands_that_compare_own_images_refuse_them(folder, tmp_path, capsys):
    two = ("--baseline", LENET, "--candidate", UNTRAINED, "--max-drop", 2)
    cases = [
        (("compare", "mnist-moves", "-c", LENET, "-c", UNTRAINED, "-o", tmp_path), "make one split (fmrgen generate)"),
        (("diff", "mnist-moves", "--old", LENET, "--new", UNTRAINED, "-o", tmp_path), "images are the same for every"),
        (("gate", f"{folder}:mnist-moves/geometric", *two), "a diff counts rows as independent"),
        (("explain", f"{folder}:mnist-moves/geometric"), "explain a split of perturbed images"),
        (("leaderboard", folder, "-o", tmp_path), "contains no finished split of perturbed images"),
        (("evaluate", f"{folder}:mnist-moves/geometric", "-c", LENET, "--attack", "fgsm@0.1"), "another split"),
    ]
    for arguments, words in of_installed_commands(cases):
        assert run(*arguments) == 2
        assert words in capsys.readouterr().err.replace("\n", " ")


def test_a_split_that_the_oracle_rejects_is_still_one_of_moved_images(tmp_path, capsys):
    changes = ["perturb.min_probability=0.9999999", "--limit", 8, "-o", tmp_path]
    assert run("generate", "mnist-lenet", "--moves", "geometric", *changes) == 0
    printed = capsys.readouterr()
    assert "FMR" not in printed.out + (tmp_path / "README.md").read_text().replace("it is not FMR", "")
    assert "the oracle accepts only 0.0 % of the moved images" in printed.err


def test_its_images_are_the_same_in_half_precision(folder, tmp_path):
    make_split(load_recipe("mnist-moves", ["source.limit=4", "perturb.precision=bf16"]), tmp_path)
    half = load_dataset(str(tmp_path), "mnist-moves", split="geometric")
    whole = load_dataset(str(folder), "mnist-moves", split="geometric")
    for row in range(16):
        assert np.array_equal(half[row]["image"], whole[row]["image"])
    assert verify(f"{tmp_path}:mnist-moves/geometric").disagreements == []


def test_any_base_and_several_families_fit_into_a_folder(tmp_path):
    for base, change in (("mnist-lenet", "perturb.keep=first"), ("mnist-moves", "perturb.seed=0")):
        changes = changes_to_moves(load_recipe(base, [change]), "photometric")
        recipe = load_recipe(base, [change, *changes, "source.limit=2"])
        assert (recipe.output.config, recipe.output.split) == ("mnist-moves", "photometric")
    make_split(recipe, tmp_path)
    make_split(load_recipe("mnist-moves", ["source.limit=2"]), tmp_path)


def test_columns_of_moved_images_that_say_nothing_are_refused(folder, tmp_path):
    rows = load_dataset(str(folder), "mnist-moves", split="geometric")
    words = "has a column move, as moved images have, and no usable original_id"
    with pytest.raises(UserError, match=words):
        evaluate(rows.remove_columns("original_id"), {"lenet": LENET}, progress=False)
    with pytest.raises(UserError, match=words):
        evaluate(rows.cast_column("original_id", Value("float32")), {"lenet": LENET}, progress=False)


def test_its_source_can_be_named(folder):
    found = evaluate(f"{folder}:mnist-moves/geometric", {"lenet": LENET}, source="mnist-lenet", progress=False)
    assert found.results[0].total.native_accuracy is not None


def test_moves_keep_the_source_and_the_oracle_of_a_recipe():
    base = load_recipe("mnist-lenet", ["perturb.min_probability=0.7"])
    recipe = load_recipe("mnist-lenet", [*changes_to_moves(base, "photometric"), "perturb.min_probability=0.7"])
    assert (recipe.source.copies, recipe.generator.kind, recipe.generator.family) == (4, "moves", "photometric")
    assert recipe.oracle == base.oracle
    assert recipe.perturb.min_probability == 0.7
    assert recipe.output.split == "photometric"


def test_without_the_oracle_every_image_counts(tmp_path):
    changes = ["perturb.oracle_rule=none", "perturb.min_probability=0"]
    summary = make_split(load_recipe("mnist-moves", [*CHANGES, *changes]), tmp_path)
    assert summary.valid_rows == summary.rows == 120
