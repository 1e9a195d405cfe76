"""Evaluation of splits: ours to the last digit, anyone's correctly or not at all, by any number of processes."""

import io
import json
import shutil
import threading
import time
from datetime import datetime

import numpy as np
import outside_components
import pyarrow.parquet as pq
import pytest
import torch
from commands import fmrgen, launched, run
from datasets import ClassLabel, Dataset, Features, Image, Value, load_dataset
from PIL import Image as PILImage
from torch import nn

from fmrgen import UserError, evaluate, write_report
from fmrgen.classifiers.base import Classifier
from fmrgen.classifiers.lenet import Config as LenetConfig
from fmrgen.engine.images import to_batch
from fmrgen.jobs.generate import make_split
from fmrgen.metrics.summary import SUMMARY_COLUMNS, summarise
from fmrgen.recipe.job import load_recipe, parse_classifier
from fmrgen.report.markdown import to_markdown
from fmrgen.report.outline import evaluation_report
from fmrgen.report.tables import all_notes, warning_lines
from fmrgen.results.evaluation import read_figures

LENET = "asset:mnist/lenet"
DIGITS = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def rows(finished_split):
    """The finished split as an ordinary dataset in memory, as somebody else would load it."""
    return load_dataset("parquet", data_files=str(finished_split / "mnist/lenet-*.parquet"), split="train")


def stored_columns(rows):
    table = rows.data.table
    return {name: table[name].to_numpy() for name in SUMMARY_COLUMNS if name in table.column_names}


def one(split, classifier=LENET):
    return evaluate([split] if isinstance(split, str) else {"split": split}, [classifier]).results[0]


@pytest.fixture(scope="module")
def plain(rows):
    """The figures of the rows as they are."""
    return one(rows).total


def remade(rows, features, **changed):
    """The rows with some columns made anew, of these features."""
    columns = {name: rows[name] for name in rows.column_names} | changed
    return Dataset.from_dict(columns, features=Features({**rows.features, **features}))


def labelled(feature, change=list):
    """Makes the labels of rows anew."""
    return lambda rows: remade(rows, {"label": feature}, label=change(rows["label"]))


def test_it_gives_what_the_stored_columns_give(finished_split, rows):
    result = one(f"{finished_split}:mnist/lenet")
    assert result.total == summarise(stored_columns(rows))
    assert result.conditioned
    assert result.notes == []
    assert [summary.rows for summary in result.classes] == [12] * 10


@pytest.mark.slow
def test_a_classifier_is_known_by_its_weights_and_answers_not_by_its_name(finished_split, tmp_path):
    shutil.copytree("fmrgen/weights/assets/mnist/lenet", tmp_path / "copy")
    unnormalised = "shifted={kind: module, target: 'test_evaluate:shifted'}"
    named = [f"another={tmp_path / 'copy'}", "lenet={kind: lenet}", unnormalised]
    evaluation = evaluate([str(finished_split)], named)
    assert [result.conditioned for result in evaluation.results] == [True, False, False]
    assert "has the weights of the classifier that the split was generated against" in evaluation.results[2].notes[-1]


def shifted():
    """The shipped LeNet without its normalisation."""
    return parse_classifier(LENET)[1].build().network


def test_modules_sections_and_names_of_ones_own(finished_split):
    module = parse_classifier(LENET)[1].build()
    section = LenetConfig(checkpoint="asset:mnist/lenet/model.safetensors")
    evaluation = evaluate({"mine": str(finished_split)}, {"a": module, "b": section, "c": LENET})
    a, b, c = evaluation.results
    assert a.total == b.total == c.total
    assert evaluation.splits[0].name == "mine"
    assert evaluation.result("mine", "b") is b
    assert b.notes == [
        "it does not name its classes: its outputs are assumed to be in the order of the labels",
        "it gives the same predictions as a on every image: they are one network, or copies of it",
    ]
    assert a.notes == []
    assert evaluation.comparisons[0].ranking == []  # all are the split's own classifier
    assert {pair.fmr.value for pair in evaluation.comparisons[0].differences} == {0}
    assert evaluation.own is None


def test_one_split_and_one_classifier_need_no_list(finished_split):
    """As one types it: an opened dataset, a module."""
    opened = load_dataset(str(finished_split), "mnist", split="lenet").select(range(8))
    module = LenetConfig(checkpoint="asset:mnist/lenet/model.safetensors").build()
    found = evaluate(opened, module)
    assert [(result.split, result.classifier) for result in found.results] == [("split", "classifier")]
    by_names = evaluate(str(finished_split), LENET)
    assert [result.classifier for result in by_names.results] == ["mnist/lenet"]


def test_the_figures_as_frames_and_in_short(finished_split):
    evaluation = evaluate({"lenet": str(finished_split)}, {"mine": LENET, "tiny": "outside_components:SmallNetConfig"})
    frame = evaluation.to_frame()
    assert frame[["split", "classifier", "own"]].values.tolist() == [["lenet", "mine", True], ["lenet", "tiny", False]]
    total = evaluation.results[0].total
    told = frame.iloc[0]
    assert (told.fmr, told.fmr_low, told.fmr_high) == (total.fmr.value, total.fmr.low, total.fmr.high)
    assert (told.rows, told.valid_rows) == (total.rows, total.valid_rows)
    classes = evaluation.per_class()
    assert len(classes) == 20
    assert classes.groupby("classifier")["rows"].sum().to_dict() == {"mine": 120, "tiny": 120}
    steps = evaluation.per_step()
    assert steps["budget"].tolist() == [at.budget for at in evaluation.splits[0].steps.budgets]
    assert steps.iloc[-1].perturbed_accuracy == pytest.approx(total.perturbed_accuracy.value)
    short, page = repr(evaluation), evaluation._repr_html_()
    assert len(short) < 600
    assert str(total.fmr) in short
    assert short.index("FMR") < short.index("SA")
    assert page.startswith("<table")
    assert "mine ◆" in page
    assert short.index("mine ◆") < short.index("tiny")
    own, other = (line.split() for line in short.splitlines()[1:3])
    assert len(own) == len(other) + 1 - len(evaluation.comparisons[0].ranking)  # a mark and no rank; a rank, or none


def test_classifiers_are_compared_each_on_its_own_split(finished_split, tmp_path):
    half = "{kind: module, target: 'outside_components:HalfTrained'}"
    overrides = ["source.limit=40", "perturb.budget=2", f"classifier={half}", "output.split=small"]
    make_split(load_recipe("mnist-lenet", overrides), tmp_path / "out")
    splits = {"lenet": str(finished_split), "small": str(tmp_path / "out"), "again": str(finished_split)}
    evaluation = evaluate(splits, {"small": "outside_components:HalfTrained", "lenet": LENET})
    own = evaluation.own
    assert {(place.split, place.classifier) for place in own.ranking} == {("lenet", "lenet"), ("small", "small")}
    assert own.rows == 40
    assert len(own.differences) == 1
    rankings = {comparison.split: comparison.ranking for comparison in evaluation.comparisons}
    assert [place.classifier for place in rankings["lenet"]] == ["small"]  # its own classifier is not ranked
    text = to_markdown(evaluation_report(evaluation))
    assert text.index("images generated against each of them") < text.index("## Each classifier on its own split")
    assert text.index("| lenet ◆ |") > text.index("paired over the 40 rows")
    (tmp_path / "evaluation.json").write_text(evaluation.to_json())
    assert read_figures(tmp_path / "evaluation.json").own == own


def test_who_is_at_chance_is_ranked_nowhere_and_named_once(finished_split, tmp_path):
    half = "outside_components:HalfTrained"
    weak = {f"weak{seed}": outside_components.SmallNet(width) for seed, width in enumerate((4, 8, 16))}
    evaluation = evaluate({"a": str(finished_split), "b": str(finished_split)}, {"half": half, "lenet": LENET, **weak})
    assert {result.classifier for result in evaluation.results if result.total.at_chance} == {*weak}
    assert [[place.classifier for place in one.ranking] for one in evaluation.comparisons] == [["half"], ["half"]]
    line = "hardly better than chance on the originals of a, b, so not ranked: weak0, weak1, weak2; are the weights"
    assert [one[: len(line)] for one in warning_lines(evaluation)] == [line]
    assert not any("chance" in note for note in all_notes(evaluation))
    assert to_markdown(evaluation_report(evaluation)).index(f"**Warning:** {line}") < 200
    assert "weak1" in to_markdown(evaluation_report(evaluation)).partition("## a")[2]  # with its figures all the same


def test_the_same_rows_from_everywhere(finished_split, rows, tmp_path):
    rows.to_parquet(tmp_path / "one.parquet")
    ways = [
        str(finished_split),
        f"{finished_split}/mnist/lenet-*.parquet",
        str(tmp_path / "one.parquet"),
        rows,
        rows.to_iterable_dataset(),
    ]
    expected = summarise(stored_columns(rows))
    for way in ways:
        total = one(way).total
        for name in ("standard_accuracy", "perturbed_accuracy", "validation_rate", "fmr", "mean_iterations"):
            assert getattr(total, name) == getattr(expected, name), way


def test_a_folder_of_somebody_elses(rows, tmp_path):
    (tmp_path / "theirs").mkdir()
    rows.to_parquet(tmp_path / "theirs" / "test-00000-of-00001.parquet")
    result = one(str(tmp_path / "theirs"))
    assert result.total.perturbed_accuracy == summarise(stored_columns(rows)).perturbed_accuracy
    assert not result.conditioned
    assert result.total.oracle_accuracy is None  # whose numbers are these? nobody says


def as_jpeg(images):
    encoded = []
    for image in images:
        buffer = io.BytesIO()
        image.convert("L").save(buffer, "JPEG", quality=90)
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    return encoded


def by_hand(images, labels, valid):
    """PA as anyone would compute it, image by image."""
    network = parse_classifier(LENET)[1].build()
    hits = []
    for image, label in zip(images, labels, strict=True):
        pixels = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            hits.append(network(pixels).argmax().item() == label)
    return 100 * np.mean(np.array(hits)[np.array(valid)])


def test_jpeg_other_column_order_and_extra_columns(rows, plain):
    jpeg = as_jpeg(rows["image"])
    features = {"image": Image(), "remark": Value("string"), "numbers": [Value("int32")]}
    theirs = remade(rows, features, image=jpeg, remark=["<b>x"] * 120, numbers=[[1, 2]] * 120)
    theirs = theirs.select_columns(["numbers", "valid", "remark", "original", "label", "image"])
    result = one(theirs)
    decoded = [PILImage.open(io.BytesIO(image["bytes"])) for image in jpeg]
    assert result.total.perturbed_accuracy.value == pytest.approx(by_hand(decoded, rows["label"], rows["valid"]))
    assert result.total.perturbed_accuracy.value != plain.perturbed_accuracy.value  # JPEG is not lossless
    assert result.total.mean_iterations is None


TURNED = labelled(ClassLabel(names=DIGITS[::-1]), lambda labels: [9 - label for label in labels])
NAMELESS = "{kind: lenet, checkpoint: 'asset:mnist/lenet/model.safetensors'}"
GERMAN = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]


@pytest.mark.parametrize(
    ("change", "classifier", "note"),
    [
        (TURNED, LENET, ""),
        (TURNED, f"{NAMELESS[:-1]}, class_names: {DIGITS}}}", ""),
        (labelled(Value("int64")), LENET, "not all of its classes match by name"),
        (labelled(Value("string"), lambda labels: [DIGITS[label] for label in labels]), LENET, ""),
    ],
    ids=["names in another order", "names that are told", "numbers", "words"],
)
def test_labels_in_any_form(rows, plain, change, classifier, note):
    result = one(change(rows), classifier)
    assert result.total.perturbed_accuracy == plain.perturbed_accuracy
    assert note in "".join(result.notes)
    if change is TURNED:
        expected = [summary.standard_accuracy for summary in one(rows).classes]
        assert [summary.standard_accuracy for summary in result.classes] == expected[::-1]


def test_grey_and_differently_sized_images(rows):
    def resized(image, size):
        return image.convert("L").resize((size, size), PILImage.Resampling.BICUBIC)

    images = [resized(image, 32 if i % 3 else 40) for i, image in enumerate(rows["image"])]
    theirs = remade(rows, {"image": Image()}, image=images)
    expected = by_hand(images, rows["label"], rows["valid"])
    assert one(theirs).total.perturbed_accuracy.value == pytest.approx(expected)


def test_without_valid_all_rows_count(rows):
    result = evaluate({"split": rows.remove_columns("valid")}, [LENET])
    assert result.results[0].total.valid_rows == len(rows)
    assert result.results[0].total.validation_rate is None
    assert result.splits[0].notes == ["there is no column valid: all rows count in PA, and VR is not known"]


@pytest.mark.parametrize(
    ("change", "classifier", "message"),
    [
        (labelled(Value("float64"), lambda labels: [0.5] * 120), LENET, "column label holds no class indices"),
        (labelled(Value("int64"), lambda labels: [0, None, *labels[2:]]), LENET, "row 1 has no label"),
        (labelled(Value("int64"), lambda labels: [0, 1, -1, *labels[3:]]), LENET, "row 2: label -1 matches none"),
        (labelled(Value("string"), lambda labels: ["seven"] * 120), LENET, r"row 0: label 'seven' matches none, or several, of the 10 classes \(0, 1,"),
        (labelled(Value("string"), lambda labels: list(map(str, labels))), "{kind: lenet}", "its labels are strings, and no classifier names its classes"),
        (labelled(Value("int32"), lambda labels: [(label + 3) % 10 for label in labels]), LENET, "and give the split's label column its names"),
        (TURNED, NAMELESS, "match the labels only if its classes are put in another order; list its classes"),
        (labelled(ClassLabel(names=GERMAN)), LENET, r"its classes \(0, 1, 2, …\) don't match the labels \(null, eins, zwei, …\)"),
        (labelled(ClassLabel(names=GERMAN)), "{kind: lenet, num_classes: 4}", "has 4 outputs for 10 labels"),
        (lambda rows: remade(rows, {"image": Value("string")}, image=["x"] * 120), LENET, "column image holds string, no images"),
        (lambda rows: remade(rows, {"valid": Value("bool")}, valid=[None] * 120), LENET, "row 0 has no valid"),
        (lambda rows: remade(rows, {"valid": Value("int32")}, valid=[1, 2] * 60), LENET, "row 1: valid is 2, neither true nor false"),
        (lambda rows: rows.select([]), LENET, "contains no rows"),
    ],
)  # fmt: skip
def test_rows_that_can_not_be_used(rows, change, classifier, message):
    with pytest.raises(UserError, match=message):
        one(change(rows), classifier)


@pytest.mark.parametrize(
    ("splits", "classifiers", "message"),
    [
        ([], [LENET], "splits: give at least one"),
        (["out"], ["asset:mnist/vgg"], "no such asset; shipped are"),
        (["out"], ["asset:mnist/clip"], "not the folder of a trained classifier, it has no classifier.yaml"),
        (["out"], ["os:nothing"], "the module defines no nothing"),
        (["out"], {"a": {"b"}}, "is a set, not a reference"),
    ],
)  # fmt: skip
def test_what_is_no_split_or_no_classifier(finished_split, splits, classifiers, message):
    with pytest.raises(UserError, match=message):
        evaluate([str(finished_split)] if splits else [], classifiers)


def test_a_trained_folder_that_names_code_is_refused(finished_split, tmp_path):
    (tmp_path / "classifier.yaml").write_text("kind: module\ntarget: os:system\nargs: {command: touch ran}\n")
    with pytest.raises(UserError, match=r"classifier.yaml: runs os:system; if you know it, write the section yourself"):
        evaluate([str(finished_split)], [str(tmp_path)])
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_grouped_split_whose_classifier_has_another_order(tmp_path):
    groups = ["source.classes={low: 0-4, high: 5-9}", "source.limit=60", "perturb.budget=2", "output.split=grouped"]
    make_split(load_recipe("mnist-lenet", groups), tmp_path / "grouped")
    own = one(str(tmp_path / "grouped"))
    assert own.conditioned
    assert own.total.standard_accuracy.value > 95

    network = parse_classifier(LENET)[1].build()
    turned = nn.Sequential(network, Reversed())
    named = Classifier(turned, lambda images: images, list(reversed(DIGITS)))
    found = evaluate([str(tmp_path / "grouped")], {"named": named}).results[0]
    assert found.total.standard_accuracy == own.total.standard_accuracy
    nameless = Classifier(turned, lambda images: images)
    with pytest.raises(UserError, match="match the labels only if its classes are put in another order"):
        evaluate([str(tmp_path / "grouped")], {"nameless": nameless})


class Reversed(nn.Module):
    def forward(self, logits):
        return logits.flip(1)


def test_columns_of_other_types_are_not_used_and_told_of(rows, plain):
    strange = {
        "iterations": (Value("string"), ["3"] * 120),
        "clip_score": (Value("string"), ["high"] * 120),
        "stop_reason": (Value("int64"), [1] * 120),
        "id": (Value("timestamp[s]"), [datetime(2026, 1, 1)] * 120),
    }
    theirs = remade(rows, {n: f for n, (f, _) in strange.items()}, **{n: values for n, (_, values) in strange.items()})
    evaluation = evaluate({"split": theirs}, [LENET])
    told = [note.split(" is not used")[0] for note in evaluation.splits[0].notes]
    assert told == [f"the column {name}" for name in ("id", "iterations", "stop_reason", "clip_score")]
    assert evaluation.results[0].total.mean_iterations is None
    assert evaluation.results[0].total.perturbed_accuracy == plain.perturbed_accuracy


@pytest.mark.parametrize(
    ("kind", "ids", "found"),
    [("uint32", range(1000, 1120), range(1000, 1120)), ("int64", [7] * 120, range(120))],
    ids=["unsigned", "that repeat are row numbers instead"],
)
def test_ids_of_other_kinds_and_valid_as_numbers(rows, plain, kind, ids, found):
    features = {"id": Value(kind), "valid": Value("int8")}
    theirs = remade(rows, features, id=list(ids), valid=[int(valid) for valid in rows["valid"]])
    evaluation = evaluate({"split": theirs}, [LENET])
    assert evaluation.predictions["id"].to_pylist() == list(found)
    assert evaluation.results[0].total.validation_rate == plain.validation_rate


def test_a_folder_of_images_is_read(rows, tmp_path):
    for row in range(20):
        folder = tmp_path / "photos" / "test" / DIGITS[rows[row]["label"]]
        folder.mkdir(parents=True, exist_ok=True)
        rows[row]["image"].save(folder / f"{row}.png")
    result = one(str(tmp_path / "photos"))
    assert result.total.rows == 20
    expected = by_hand(rows[:20]["image"], rows[:20]["label"], [True] * 20)
    assert result.total.perturbed_accuracy.value == pytest.approx(expected)


@pytest.fixture(scope="module")
def without_originals(tmp_path_factory):
    overrides = ["source.limit=60", "perturb.budget=3", "output.keep_original=false", "perturb.step_size=0.1"]
    folder = tmp_path_factory.mktemp("without")
    make_split(load_recipe("mnist-lenet", overrides), folder)
    return folder


def test_originals_come_from_the_source_in_the_provenance(without_originals):
    result = one(str(without_originals))
    stored = Dataset.from_parquet(str(without_originals / "mnist/lenet-*.parquet"))
    assert result.total == summarise(stored_columns(stored))
    assert result.conditioned


def test_one_that_is_never_right_is_compared_by_fmr_too(rows):
    class Five(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.eye(10)[5])

        def forward(self, images):
            return self.logits + 0 * images.mean((1, 2, 3)).unsqueeze(1)

    evaluation = evaluate({"threes": rows.filter(lambda row: row["label"] == 3)}, {"lenet": LENET, "five": Five()})
    assert evaluation.result("threes", "five").total.fmr is None
    assert evaluation.comparisons[0].measure == "fmr"


@pytest.mark.slow
def test_originals_from_a_source_that_is_given(without_originals, finished_split):
    stored = Dataset.from_parquet(str(without_originals / "mnist/lenet-*.parquet"))
    nobodys = {"theirs": stored}
    bare = evaluate(nobodys, [LENET])
    assert bare.results[0].total.standard_accuracy is None
    assert bare.results[0].total.fmr is None
    assert bare.comparisons[0].measure == "perturbed_accuracy"
    assert "no column original and no provenance; pass source=" in bare.splits[0].notes[0]
    given = evaluate(nobodys, [LENET], source="mnist-lenet").results[0]
    assert given.total.fmr == one(str(without_originals)).total.fmr
    ones = labelled(ClassLabel(names=DIGITS), lambda labels: [1] * 60)(stored)
    for split, source, message in (
        (ones, "mnist-lenet", "id 0 is a '0' there and a '1' in theirs; it is another source"),
        (stored, "{kind: mnist, limit: 3}", "source: id 3 and 56 more ids of theirs are not in it"),
        (str(finished_split), "mnist-lenet", "source=: every split has its originals; leave it out"),
        (stored.remove_columns("id"), "mnist-lenet", "has no column of distinct ids"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate({"theirs": split}, [LENET], source=source)


def test_a_source_that_is_gone_or_names_code_is_a_note(without_originals, tmp_path):
    folder = shutil.copytree(without_originals, tmp_path / "copy")
    path = folder / "provenance/mnist/lenet.json"
    told = json.loads(path.read_text())
    gone = {"kind": "imagefolder", "path": "no/where"}
    for source, trust, message in (
        (gone, True, "no/where is not a folder of class folders, and has no metadata.csv; pass another source="),
        (gone, False, "reads no/where; if you trust it, pass trust=True"),
        ({"kind": "somebody.elses:Source"}, False, "runs somebody.elses:Source; if you trust it"),
    ):
        path.write_text(json.dumps({**told, "recipe": {**told["recipe"], "source": source}}))
        evaluation = evaluate([str(folder)], [LENET], trust=trust)
        assert evaluation.results[0].total.standard_accuracy is None
        assert message in evaluation.splits[0].notes[0]


class Silent(nn.Module):
    """Has no answer to bright images."""

    def forward(self, images):
        logits = torch.zeros(len(images), 10)
        logits[images.mean((1, 2, 3)) > 0.1] = torch.nan
        return logits


class Broken(nn.Module):
    def __init__(self, at_once):
        super().__init__()
        self.at_once = at_once

    def forward(self, images):
        if len(images) > 1 or self.at_once:
            raise ValueError("out of ideas")
        return torch.zeros(1, 10)


class Masked(nn.Module):
    """Never says 9."""

    def __init__(self):
        super().__init__()
        self.network = parse_classifier(LENET)[1].build()

    def forward(self, images):
        logits = self.network(images)
        logits[:, 9] = -torch.inf
        return logits


def test_logits_that_are_not_finite_are_wrong_and_told_of(rows):
    evaluation = evaluate({"split": rows}, {"silent": Silent()})
    bright = sum(np.asarray(image, np.float32).mean() > 0.1 * 255 for image in rows["image"])
    assert 0 < bright < 120
    note = f"its highest logit is not finite on {bright} of the column image; these count as wrong"
    assert note in evaluation.results[0].notes
    assert evaluation.predictions["prediction"].to_pylist().count(-1) == bright


def test_classes_may_be_left_out_by_infinite_logits(rows):
    result = evaluate({"split": rows}, {"masked": Masked()}).results[0]
    assert 80 < result.total.standard_accuracy.value <= 90
    assert not any("finite" in note for note in result.notes)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_classifier_that_throws_is_one_line_and_leaves_no_threads(rows, at_once):
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(UserError, match="classifier broken: fails on .*image.*: ValueError: out of ideas"):
            evaluate({"split": rows}, {"broken": Broken(at_once)}, batch_size=8)
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert threading.active_count() <= before


def test_the_files_hold_what_was_found(finished_split, tmp_path):
    evaluation = evaluate([str(finished_split)], ["a=asset:mnist/lenet", "b={kind: lenet}"])
    write_report(evaluation, tmp_path)
    read = read_figures(tmp_path / "evaluation.json")
    assert read.results == evaluation.results
    assert read.comparisons == evaluation.comparisons
    assert read.splits == evaluation.splits
    table = pq.read_table(tmp_path / "predictions.parquet").to_pandas()
    assert len(table) == 240
    own = table[(table.classifier == "a") & table.valid]
    accuracy = read.results[0].total.perturbed_accuracy.value
    assert 100 * (own.prediction == own.label).mean() == pytest.approx(accuracy)
    (tmp_path / "evaluation.json").write_text('{"schema": "fmrgen-evaluation/9"}')
    with pytest.raises(UserError, match="has schema 'fmrgen-evaluation/9', this fmrgen reads fmrgen-evaluation/2"):
        read_figures(tmp_path / "evaluation.json")


@pytest.mark.slow
def test_mistakes_in_several_processes_are_told_once(finished_split, tmp_path):
    random_weights = ("evaluate", finished_split, "-c", "{kind: lenet}", "-q", "-o", tmp_path / "unlike")
    result, _ = launched(2, *random_weights)
    assert "process 1 loaded other weights of classifier lenet than process 0" in result.stderr
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m", "fmrgen")
    result = fmrgen("evaluate", "no.parquet", "-c", LENET, launcher=launcher, ACCELERATE_USE_CPU="true")
    told = result.stderr[: result.stderr.index("Traceback")]  # the launcher's own, below ours
    assert told.count("fmrgen: no.parquet: no such file") == 1
    assert "gloo" not in result.stderr


@pytest.mark.slow
def test_accuracy_under_attack_is_that_of_the_attack_with_the_labels(finished_split, tmp_path, capsys):
    from fmrgen.engine.attacks import attack_of_short_form

    split = f"{finished_split}:mnist/lenet"
    found = evaluate(split, [LENET], attack="fgsm@0.2", batch_size=50)
    stored = load_dataset(str(finished_split), "mnist", split="lenet")
    images = torch.stack([to_batch(np.asarray(image)[None])[0] for image in stored["original"]])
    labels = torch.tensor(stored["label"])
    network = parse_classifier(LENET)[1].build()
    attacked = attack_of_short_form("fgsm@0.2")(network, images, labels)
    right = (network(images).argmax(1) == labels) & (network(attacked).argmax(1) == labels)
    total = found.results[0].total
    assert total.attacked_accuracy.value == pytest.approx(100 * float(right.float().mean()))
    assert total.attacked_accuracy.value < total.standard_accuracy.value
    assert found.attack == "fgsm@0.2"
    random = [evaluate(split, [LENET], attack="pgd-3@0.1", batch_size=size).results[0].total for size in (7, 120)]
    assert random[0].attacked_accuracy == random[1].attacked_accuracy
    assert run("evaluate", split, "-c", LENET, "--attack", "fgsm@0.1", "-o", tmp_path / "report") == 0
    assert "attacked" in capsys.readouterr().out
    assert run("evaluate", split, "-c", LENET, "--attack", "cw@0.1", "-o", tmp_path / "report") == 2
    assert "cw@0.1: not an attack; write fgsm@8/255" in capsys.readouterr().err
