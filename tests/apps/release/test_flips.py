"""Flips on real images: figures by hand, verdicts that don't cry wolf, files as anyone writes them, and bad input."""

import json
import os
import re
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import run
from PIL import Image

from fmrgen import UserError, diff, diff_classifiers, load_recipe
from fmrgen.apps.release.diff_report import verdict_line
from fmrgen.apps.release.predictions import read_predictions
from fmrgen.recipe.build import build_source
from fmrgen.recipe.job import parse_classifier

LENET = "asset:mnist/lenet"


def pair(random, images, negative, positive, both=0.02):
    """Returns labels and the answers of OLD and NEW, which flip with these probabilities and are both wrong with `both`."""
    labels = random.integers(0, 10, images)
    draw = random.random(images)
    old, new = labels.copy(), labels.copy()
    new[draw < negative] += 1
    old[(draw >= negative) & (draw < negative + positive)] += 1
    for answers in (old, new):
        answers[draw > 1 - both] += 2
    return labels, old % 10, new % 10


def write(path, labels, answers, **columns):
    ids = [f"{row}.png" for row in range(len(labels))]
    table = pd.DataFrame({"id": ids, "label": labels, "prediction": answers, **columns})
    table.to_csv(path, index=False)
    return path


@pytest.fixture
def files(tmp_path):
    """Two files of predictions for 400 images, of which NEW loses 8 %."""
    labels, old, new = pair(np.random.default_rng(8), 400, 0.08, 0.01)
    return write(tmp_path / "a.csv", labels, old), write(tmp_path / "b.csv", labels, new)


def test_labels_that_are_swapped_are_doubted_and_a_network_that_errs_is_not():
    labels, old, new = pair(np.random.default_rng(0), 400, 0.02, 0.02)
    mistaken = np.where(old == 3, 5, np.where(old == 5, 3, old))
    swapped = np.where(labels == 3, 5, np.where(labels == 5, 3, labels))
    (note,) = diff(old, new, swapped).notes
    assert note.startswith("all networks take most images of class 3 for 5, and most of 5 for 3: are the two labels")
    assert diff(mistaken, new, labels).notes == diff(old, mistaken, labels).notes == []


def test_figures_by_hand():
    labels = [0, 0, 0, 1, 1, 1, 2, 2]
    old = [0, 0, 0, 1, 1, 2, 2, 0]
    new = [0, 1, 1, 1, 2, 1, 0, 0]
    compared = diff(old, new, labels)
    flips = compared.flips
    assert (len(flips.negatives), len(flips.positives)) == (4, 1)
    assert (flips.negative.value, flips.positive.value) == (50, 12.5)
    assert (flips.old_accuracy.value, flips.new_accuracy.value, flips.drop.value) == (75, 37.5, 37.5)
    counts = [(kind.name, kind.negative, kind.positive) for kind in flips.classes]
    assert counts == [("0", 2, 0), ("2", 1, 0), ("1", 1, 1)]
    assert flips.pairs[0].name == "0 → 1"
    assert "4 negative and 1 positive flips of 8" in repr(compared)
    assert compared.verdict == "invalid"  # three of eight are no better than chance
    assert compared.evidence[0].p_worse == pytest.approx(6 / 32)  # four or five of five


@pytest.mark.slow
@pytest.mark.parametrize(("images", "rate"), [(300, 0.0), (300, 0.05), (1000, 0.05), (1000, 0.2)])
def test_equal_networks_are_called_different_in_at_most_5_percent(images, rate):
    random = np.random.default_rng(int(images + 1000 * rate))
    verdicts, covered = [], 0
    for _ in range(300):
        labels, old, new = pair(random, images, rate / 2, rate / 2)
        compared = diff(old, new, labels)
        verdicts.append(compared.verdict)
        covered += compared.flips.drop.ends[0] <= 0 <= compared.flips.drop.ends[1]
        assert not any(kind.is_worse for kind in compared.flips.classes) or rate
    assert verdicts.count("worse") + verdicts.count("better") <= 0.05 * 300 + 6
    assert covered >= 0.92 * 300


def test_another_training_of_old_is_not_worse():
    """Trainings differ by more than images do: McNemar's test of one pair calls 77 of these 200 different."""
    random = np.random.default_rng(4)

    def training(labels, hard):
        skill = random.normal(0, 0.35)
        wrong = random.random(len(labels)) < 1 / (1 + np.exp(-(hard + skill)))
        return np.where(wrong, (labels + 1) % 10, labels)

    verdicts, alone = [], []
    for _ in range(200):
        labels, hard = random.integers(0, 10, 1000), random.normal(-4, 2, 1000)
        *old, new = (training(labels, hard) for _ in range(4))
        compared = diff(old, new, labels)
        verdicts.append(compared.verdict)
        alone.append(diff(old[0], new, labels).verdict)
    assert verdicts.count("worse") + verdicts.count("better") <= 0.05 * 200 + 5
    assert alone.count("worse") + alone.count("better") > 0.1 * 200
    assert compared.flips.trainings == 3
    assert compared.flips.old_flips > 0


def test_groups_of_a_column_are_worst_first(tmp_path):
    labels, old, new = pair(np.random.default_rng(5), 1000, 0.01, 0.01)
    camera = np.arange(1000) % 4
    new[(camera == 2) & (np.arange(1000) % 12 == 2)] = 10
    first = write(tmp_path / "a.csv", labels, old, camera=camera, brightness=np.arange(1000) / 7)
    second = write(tmp_path / "b.csv", labels, new, camera=camera)
    groups = diff(first, second).flips.groups
    assert list(groups) == ["camera"]  # brightness is a measure
    worst = groups["camera"][0]
    assert (worst.name, worst.p_worse, worst.is_worse) == ("2", None, False)  # nobody asked for it
    assert run("diff", "--old", first, "--new", second, "--by", "camera", "-o", tmp_path / "out", "-q") == 1
    tree = json.loads((tmp_path / "out/diff/diff.json").read_text())
    worst, *others = tree["flips"]["groups"]["camera"]
    assert (worst["name"], worst["is_worse"]) == ("2", True)
    assert not any(group["is_worse"] for group in others)
    assert "images of camera 2" in [entry["images"] for entry in tree["evidence"] if entry["is_worse"]]
    page = (tmp_path / "out/diff/diff.html").read_text()
    assert re.search(r"<h1>NEW is worse: \d+ of 250 images of camera 2 are negative flips</h1>", page)
    assert run("diff", "--old", first, "--new", second, "--by", "nope", "-o", tmp_path / "out") == 2


def shares_of(table):
    shares = pd.get_dummies(table["prediction"], dtype=float).add_prefix("p")
    return table.drop(columns="prediction").join(shares)


def lists_of(table):
    return table.drop(columns="prediction").assign(scores=(np.eye(10)[table["prediction"]]).tolist())


@pytest.mark.parametrize(
    ("name", "write_file"),
    [
        ("commas.csv", lambda table, path: table.to_csv(path, index=False)),
        ("semicolons.csv", lambda table, path: table.to_csv(path, index=False, sep=";")),
        ("tabs.tsv", lambda table, path: table.to_csv(path, index=False, sep="\t")),
        ("rows.parquet", lambda table, path: table.to_parquet(path)),
        ("rows.jsonl", lambda table, path: table.to_json(path, orient="records", lines=True)),
        ("renamed.csv", lambda table, path: table.set_axis(["id", "target", "pred"], axis=1).to_csv(path, index=False)),
        ("shares.csv", lambda table, path: shares_of(table).to_csv(path, index=False)),
        ("lists.csv", lambda table, path: lists_of(table).to_csv(path, index=False)),
    ],
)
def test_files_as_other_tools_write_them(tmp_path, name, write_file):
    """Ids are large, and here whole, there with a point; rows are in another order."""
    labels, old, new = pair(np.random.default_rng(6), 200, 0.1, 0.02)
    of_old = pd.DataFrame({"id": 1_234_567 + np.arange(200), "label": labels, "prediction": old})
    of_new = of_old.assign(id=of_old["id"].astype(float), prediction=new).sample(frac=1, random_state=0)
    write_file(of_new, tmp_path / name)
    assert read_predictions(tmp_path / name).ids[0] == str(int(of_new["id"].iloc[0]))
    assert diff(of_old, tmp_path / name).evidence == diff(old, new, labels).evidence


def test_an_evaluation_of_real_images_is_a_file_of_predictions(tmp_path):
    images = "{kind: mnist, split: test, limit: 60}"
    for name, classifier in (("a", LENET), ("b", "outside_components:HalfTrained")):
        assert run("evaluate", "-c", classifier, "--fixed", f"digits={images}", "-o", tmp_path / name, "-q") == 0
    files = [tmp_path / name / "evaluation.json" for name in ("a", "b")]
    assert run("diff", "--old", files[0], "--new", files[1], "-o", tmp_path / "out", "-q") == 1
    assert json.loads((tmp_path / "out/diff/diff.json").read_text())["flips"]["images"] == 60


def test_a_margin_holds_for_all_classes_and_a_class_can_be_worse():
    random = np.random.default_rng(12)
    labels = random.integers(0, 10, 20_000)
    new = np.where(random.random(20_000) < 0.02, (labels + 1) % 10, labels)
    assert diff(labels, new, labels, margin=5).verdict == "no worse"
    new = np.where((labels == 4) & (random.random(20_000) < 0.3), 9, labels)
    found = diff(labels, new, labels, margin=5)
    assert (found.verdict, found.worse[0].images) == ("worse", "images of class 4")
    assert [kind.name for kind in found.flips.classes if kind.is_worse] == ["4"]
    assert found.flips.pairs[0].name == "4 → 9"


def test_trainings_that_are_alike_hide_nothing():
    labels = np.arange(600) % 10
    half_wrong = np.where(labels < 5, labels, (labels + 1) % 10)
    assert diff([labels, labels, labels], half_wrong, labels).verdict == "worse"


def test_scores_give_predictions_and_confidences(tmp_path):
    random = np.random.default_rng(7)
    labels = random.integers(0, 3, 300)
    logits = random.normal(size=(300, 3))
    logits[np.arange(300), labels] += 2
    powers = np.exp(logits)
    shares = powers / powers.sum(1, keepdims=True)
    files = [tmp_path / "logits.parquet", tmp_path / "shares.parquet"]
    for file, scores in zip(files, (logits, shares), strict=True):
        pd.DataFrame({"label": labels, "scores": scores.tolist()}).to_parquet(file)
        assert read_predictions(file).confidence == pytest.approx(shares.max(1))
    compared = diff(*files, margin=1)
    assert (compared.verdict, compared.flips.negatives, compared.flips.positives) == ("no worse", [], [])


def test_statuses_and_files_of_a_pipeline(files, tmp_path, capsys):
    first, second = files
    same = tmp_path / "c.csv"
    same.write_bytes(first.read_bytes())
    reports = ("--junit", tmp_path / "junit.xml", "--summary", tmp_path / "summary.md")
    for (old, new), more, status in (
        ((first, second), reports, 1),
        ((second, first), (), 0),
        ((first, first), (), 2),
        ((first, same), (), 0),
    ):
        assert run("diff", "--old", old, "--new", new, *more, "-o", tmp_path / "out", "-q") == status
    assert 'failures="1"' in (tmp_path / "junit.xml").read_text()
    assert "NEW is worse: of" in (tmp_path / "summary.md").read_text()
    printed = capsys.readouterr()
    assert "is both old and new; name two" in printed.err
    assert "undecided: of 400 images" in printed.out
    assert "OLD and NEW have the same predictions on every image" in printed.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop(columns="prediction"), "has no column prediction; call it prediction, predictions, "),
        (lambda table: table.iloc[:0], "is empty"),
        (lambda table: pd.concat([table, table.iloc[:2]]), "has 2 ids more than once: 0.png, 1.png"),
        (lambda table: table.iloc[3:], "3 ids of"),
        (lambda table: table.assign(label=(table["label"] + 1) % 10), "50 labels differ, first of id 0.png"),
        (lambda table: table.assign(confidence=7.0), "its confidence goes up to 7; give probabilities, 0 to 1"),
        (
            lambda table: table.assign(prediction="cat"),
            "no prediction is a label: labels are 0, 1, 2, …, predictions cat",
        ),
        (lambda table: table.assign(label=table["label"].where(table.index > 1)), "2 rows have no label"),
        (lambda table: table.assign(scores="[0.1, x]"), "its scores are not lists of numbers"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, change, words):
    labels, old, new = pair(np.random.default_rng(9), 50, 0.1, 0.1)
    first, second = write(tmp_path / "a.csv", labels, old), write(tmp_path / "b.csv", labels, new)
    change(pd.read_csv(second)).to_csv(second, index=False)
    assert run("diff", "--old", first, "--new", second, "-o", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line


def bomb(path):
    """4 GB of one repeated word in some kilobytes."""
    word = pa.array(["x" * (1 << 20)]).dictionary_encode()
    indices = pa.array(np.zeros(4096, dtype=np.int32))
    columns = {"label": np.zeros(4096), "prediction": np.zeros(4096)}
    words = pa.DictionaryArray.from_arrays(indices, word.dictionary)
    pq.write_table(pa.table({**columns, "word": words}), path)


@pytest.mark.parametrize(
    ("name", "write_file", "words"),
    [
        ("bomb.parquet", bomb, "would unpack to"),
        ("deep.jsonl", lambda path: path.write_text("[" * 100_000), "a line of it is nested too deeply"),
        ("twice.csv", lambda path: path.write_text("label,prediction,prediction\n1,1,2\n"), "two columns prediction"),
        ("long.csv", lambda path: path.write_text(f'label,scores\n1,"[1, {"9" * 400}]"\n'), "not lists of numbers"),
        ("nested.csv", lambda path: path.write_text(f'label,scores\n1,"{"[" * 5000}"\n'), "not lists of numbers"),
        ("latin.csv", lambda path: path.write_bytes("label,prediction\ncafé,café\n".encode("latin-1")), "not UTF-8"),
        ("pipe.csv", os.mkfifo, "is a pipe, a socket or a device"),
    ],
)
def test_hostile_files_of_predictions_are_refused_in_a_line(tmp_path, name, write_file, words):
    write_file(tmp_path / name)
    with pytest.raises(UserError, match=words):
        read_predictions(tmp_path / name)


def test_numbers_with_zeros_before_them_are_the_same_beside_a_word(tmp_path):
    """A column without a word is read as numbers."""
    labels = [f"{row % 12:03}" for row in range(60)]
    answers = ["none", *labels[1:]]
    for name, predicted in (("a", labels), ("b", answers)):
        write(tmp_path / f"{name}.csv", labels, predicted)
    flips = diff(tmp_path / "a.csv", tmp_path / "b.csv").flips
    assert [(flip.label, flip.new) for flip in flips.negatives] == [("0", "none")]


def test_one_name_in_two_encodings_is_one_class_and_one_in_two_spellings_is_noted():
    labels = np.array(["caf\u00e9", "stop"] * 20)
    composed = np.array(["cafe\u0301", "stop"] * 20)
    assert diff(labels, composed, labels).flips.negative.value == 0
    noted = diff(labels, np.array(["caf\u00e9", "Stop"] * 20), labels).notes
    assert any("the prediction 'Stop' is not the label 'stop'" in note for note in noted)


@pytest.mark.slow
def test_twenty_thousand_classes_take_no_table_of_them_all():
    labels = np.arange(20_000)
    tracemalloc.start()
    found = diff(labels, labels, labels)
    assert found.flips.images == 20_000
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()


def test_groups_below_the_margin_are_not_worse():
    random = np.random.default_rng(0)
    labels = np.zeros(20_000, dtype=int)
    new = np.where(random.random(20_000) < 0.06, 1, 0)
    table = {"label": labels, "camera": np.arange(20_000) % 2}
    found = {}
    for margin in (0.0, 2.0):
        outcome = diff({**table, "prediction": labels}, {**table, "prediction": new}, by=["camera"], margin=margin)
        found[margin] = [group.is_worse for group in outcome.flips.groups["camera"]]
    assert found == {0.0: [True, True], 2.0: [False, False]}  # 5 points are another seed's


def test_no_worse_is_not_said_while_a_class_may_be_lost():
    """NEW is better by 3 points, but for half of a class of 20 images."""
    random = np.random.default_rng(0)
    labels = np.append(random.integers(0, 10, 3000), np.full(20, 10))
    old = np.where(random.random(3020) < 0.06, (labels + 1) % 10, labels)
    new = np.where(random.random(3020) < 0.02, (labels + 1) % 10, labels)
    assert diff(old, new, labels, margin=1).verdict == "better"
    new[-9:] = 3
    old[-20:] = 10
    outcome = diff(old, new, labels, margin=8)
    assert outcome.verdict == "undecided"
    assert "; class 10 may have lost 6" in verdict_line(outcome)
    new[-4:] = 10
    outcome = diff(old, new, labels, margin=17)
    assert outcome.verdict == "better"
    assert verdict_line(outcome).endswith("; class 10 may have lost 42 points: 5 of 20 are negative flips, 0 positive")
    assert outcome.evidence[1].images == "images of class 10"  # and not the first of those that lost nothing


def test_a_small_class_that_is_lost_is_named_and_is_not_green():
    labels = np.array([0] * 250 + [1] * 250 + [2] * 9)
    new = np.where(labels == 2, 0, labels)
    outcome = diff(labels, new, labels, margin=5)
    assert outcome.verdict == "undecided"
    assert "; class 2 may have lost 100 points: 9 of 9 are negative flips, 0 positive" in verdict_line(outcome)


def test_most_new_errors_are_counted_less_those_that_went():
    """NEW confuses 0 with 1 more often, and 2 with 3 as often as OLD, in other images."""
    labels = np.repeat([0, 2], 100)
    old, new = labels.copy(), labels.copy()
    new[:30], old[100:140], new[140:180] = 1, 3, 3
    assert "; most new errors: 0 → 1 (+30)" in verdict_line(diff(old, new, labels))
    assert "2 → 3" not in verdict_line(diff(old, new, labels))


def test_mistakes_of_the_command_are_one_line(files, tmp_path, capsys):
    first, second = files
    (tmp_path / "empty.csv").write_text("")
    for old, new, more, words in (
        (first, tmp_path / "empty.csv", (), "can't be read as csv"),
        (first, tmp_path / "c.csv", (), "c.csv: no such file"),
        (f"{first},{tmp_path / 'e.csv'}", second, (), "e.csv: no such file"),
        (first, LENET, (), "give all of one kind"),
        (LENET, "asset:mnist/other", (), "or pass --images with labelled images"),
        (first, second, ("--margin", "100"), "--margin: must be points from 0 to less than 100"),
        (first, second, ("mnist-lenet", "--by", "label"), "leave out the recipe mnist-lenet"),
        (first, second, ("--limit", "3"), "--limit: limits what a recipe generates"),
    ):
        assert run("diff", *more, "--old", old, "--new", new, "-o", tmp_path / "out") == 2
        assert words in capsys.readouterr().err.replace("\n", " ")


def test_names_with_markup_are_text(tmp_path):
    labels = np.array(["<b>cat</b>", "dog"] * 20)
    old, new = labels.copy(), labels.copy()
    new[:12] = "=1+1"
    first, second = write(tmp_path / "a.csv", labels, old), write(tmp_path / "b.csv", labels, new)
    run("diff", "--old", first, "--new", second, "-o", tmp_path / "out", "-q")
    assert "<b>cat" not in (tmp_path / "out/diff/diff.html").read_text()


@pytest.fixture
def photos(tmp_path):
    """A folder with a folder for each class, of 60 digits."""
    source = build_source(load_recipe("mnist-lenet", ["source.limit=60"]).source)
    for example in source.load(0, 60, 32):
        folder = tmp_path / "photos" / str(example.label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(example.image).save(folder / f"{example.id:03}.png")
    return tmp_path / "photos"


def test_images_of_a_folder_are_called_by_their_files(photos):
    found = diff_classifiers(LENET, "outside_components:HalfTrained", images=photos)
    assert found.flips.images == 60
    for flip in found.flips.negatives:
        assert (photos / flip.id).is_file()
        assert flip.label == flip.id.split("/")[0] == flip.old != flip.new
    sure = [flip.new_confidence for flip in found.flips.negatives]
    assert sure == sorted(sure, reverse=True)
    trainings = [LENET, "outside_components:LenetWithOracle"]
    assert diff_classifiers(trainings, "outside_components:HalfTrained", images=photos).flips.trainings == 2


def bare_network():
    return parse_classifier("{kind: lenet, num_classes: 10}")[1].build()


def test_files_of_weights_are_of_a_network(photos, tmp_path):
    weights = parse_classifier(LENET)[1].build().state_dict()
    torch.save(weights, tmp_path / "old.pt")
    weights["network.5.bias"][[3, 4]] -= 50  # it never says three or four
    torch.save(weights, tmp_path / "new.pt")
    arguments = ("--old", tmp_path / "old.pt", "--new", tmp_path / "new.pt", "--images", photos, "-o", tmp_path, "-q")
    assert run("diff", *arguments, "--as", "test_flips:bare_network") == 1
    worst = json.loads((tmp_path / "diff/diff.json").read_text())["flips"]["classes"][:2]
    assert [(group["name"], group["negative"]) for group in worst] == [("3", 6), ("4", 6)]
    assert run("diff", *arguments) == 2


def test_scores_that_are_not_finite_are_no_prediction():
    labels, old, _ = pair(np.random.default_rng(3), 300, 0.02, 0.02)
    scores = np.eye(10)[old]
    scores[:30, 3], scores[30:40, 4] = np.nan, np.inf
    found = diff(old, scores, labels)
    assert found.flips.new_accuracy.value == pytest.approx(100 * (old == labels)[40:].sum() / 300)
    assert any("not finite on 40 of 300" in note for note in found.notes)
    assert found.verdict == diff(scores, old, labels).verdict == "invalid"  # whichever it is: a fault of OLD helps NEW
    assert not any(entry.is_better for entry in diff(scores, old, labels, margin=1).evidence)
    with pytest.raises(UserError, match="no row has finite scores"):
        diff(old, np.full((300, 10), np.nan), labels)


def test_rows_without_ids_are_paired_by_place_and_that_is_said(tmp_path):
    labels, old, new = pair(np.random.default_rng(4), 300, 0.02, 0.02)
    tables = [pd.DataFrame({"label": labels, "prediction": answers}) for answers in (old, new)]
    assert any("paired by their place" in note for note in diff(*tables).notes)
    assert not diff(*[table.assign(id=range(300)) for table in tables]).notes
    assert not diff(old, new, labels).notes


def test_a_recipe_of_a_part_of_a_folder_is_compared_on_all_of_it(photos, tmp_path):
    """As `init` writes it: the part is for what is generated."""
    files = sorted(str(file.relative_to(photos)) for file in photos.rglob("*.png"))[:30]
    (tmp_path / "tested.txt").write_text("\n".join(files))
    part = f"source={{kind: imagefolder, path: {photos}, only: {tmp_path / 'tested.txt'}, limit: 8}}"
    recipe = load_recipe("mnist-lenet", [part, "perturb.budget=2"])
    assert len(build_source(recipe.source)) == 8
    other = parse_classifier("outside_components:HalfTrained")[1]
    by_recipe = diff_classifiers(parse_classifier(LENET)[1], other, recipe=recipe, output=tmp_path / "out")
    by_images = diff_classifiers(LENET, other, images=photos)
    assert by_recipe.flips == by_images.flips
    assert len(by_recipe.evidence) > len(by_images.evidence)
    (tmp_path / "tested.txt").write_text("3/gone.png")
    with pytest.raises(UserError, match=r"lists .*gone.png, which is not among the images"):
        build_source(recipe.source)


def test_unreadable_images_are_named_by_their_files_all_at_once(photos, capsys):
    for name in ("3/torn.png", "5/text.jpg"):
        (photos / name).write_text("no image")
    assert run("diff", "--images", photos, "--old", LENET, "--new", "outside_components:HalfTrained") == 2
    message = capsys.readouterr().err
    for words in ("2 images are unreadable: ", "3/torn.png (no image)", "5/text.jpg (no image)"):
        assert words in message


def test_a_class_may_have_an_empty_folder_and_no_folder_is_named_with_its_cure(photos, capsys):
    for file in (photos / "7").iterdir():
        file.unlink()
    network = "{kind: lenet, checkpoint: 'asset:mnist/lenet/model.safetensors', num_classes: 10}"
    assert diff_classifiers(network, "outside_components:HalfTrained", images=photos).flips.images < 60
    assert run("evaluate", photos, "-c", network, "-o", photos.parent / "report", "-q") == 0
    (photos / "7").rmdir()
    capsys.readouterr()
    assert run("diff", "--images", photos, "--old", network, "--new", "outside_components:HalfTrained") == 2
    assert "list the names of its outputs as class_names; a class without images needs" in capsys.readouterr().err
    old = {"kind": "lenet", "checkpoint": "asset:mnist/lenet/model.safetensors", "num_classes": 10}
    new = {"kind": "module", "target": "outside_components:HalfTrained"}
    old["class_names"] = new["class_names"] = list("0123456789")
    outcome = diff_classifiers(old, new, images=photos)
    assert outcome.notes[-1] == "no image shows 7: nothing is known of 1 of NEW's 10 classes"


def test_a_network_and_its_export_are_one_both_ways(photos, tmp_path):
    """A module is shown images in [0, 1], and so is a file that says nothing of it."""
    network = parse_classifier(LENET)[1].build()
    torch.onnx.export(network, torch.rand(1, 3, 32, 32), tmp_path / "net.onnx", dynamo=False)
    for pair_of_both in ((network, f"onnx:{tmp_path / 'net.onnx'}"), (f"onnx:{tmp_path / 'net.onnx'}", network)):
        found = diff_classifiers(*pair_of_both, images=photos)
        assert (found.flips.negative.value, found.flips.positive.value) == (0, 0)
        assert any("preprocess images in different ways" in note for note in found.notes)


def test_how_images_are_preprocessed_is_said(photos, notes):
    other = parse_classifier(LENET)[1].build()
    with torch.no_grad():
        other.network[5].bias[7] -= 4
    diff_classifiers(LENET, other, images=photos)
    (line,) = notes
    assert line.startswith("both networks get images shorter side 32 px (auto), centre, less 0.1, 0.1, 0.1, over")
