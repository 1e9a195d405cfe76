"""Flips on real images: figures by hand, verdicts that don't cry wolf, files as anyone writes them, and bad input."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from commands import run

import fmrgen
from fmrgen.apps.release.flips import flips
from fmrgen.apps.release.predictions import read_predictions


def pair(random, images, broke, fixed, both=0.02):
    """Returns labels and the answers of OLD and NEW, which flip with these probabilities and are both wrong with `both`."""
    labels = random.integers(0, 10, images)
    draw = random.random(images)
    old, new = labels.copy(), labels.copy()
    new[draw < broke] += 1
    old[(draw >= broke) & (draw < broke + fixed)] += 1
    for answers in (old, new):
        answers[draw > 1 - both] += 2
    return labels, old % 10, new % 10


def write(path, labels, answers, **columns):
    table = pd.DataFrame({"id": [f"{row}.png" for row in range(len(labels))], "label": labels, "prediction": answers})
    table = table.assign(**columns)
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_json(path, orient="records", lines=True)
    return path


def test_figures_by_hand():
    labels = [0, 0, 0, 1, 1, 1, 2, 2]
    old = [0, 0, 0, 1, 1, 2, 2, 0]
    new = [0, 1, 1, 1, 2, 1, 0, 0]
    compared = flips(old, new, labels)
    assert (len(compared.broken), len(compared.mended)) == (4, 1)
    assert (compared.broke.value, compared.fixed.value) == (50, 12.5)
    assert (compared.old_accuracy.value, compared.new_accuracy.value, compared.drop.value) == (75, 37.5, 37.5)
    assert compared.p_value == pytest.approx(2 * 6 / 32)  # four or five of five
    assert [(kind.name, kind.broke, kind.fixed) for kind in compared.classes] == [("0", 2, 0), ("2", 1, 0), ("1", 1, 1)]
    assert compared.pairs[0].name == "0 → 1"
    assert [flip.id for flip in compared.doubted] == ["7"]
    assert "undecided: 4 of 8 broke, 1 fixed" in repr(compared)


@pytest.mark.parametrize(("images", "rate"), [(300, 0.0), (300, 0.05), (1000, 0.05), (1000, 0.2)])
def test_equal_networks_are_called_different_in_at_most_5_percent(images, rate):
    random = np.random.default_rng(int(images + 1000 * rate))
    verdicts, covered = [], 0
    for _ in range(300):
        labels, old, new = pair(random, images, rate / 2, rate / 2)
        compared = flips(old, new, labels)
        verdicts.append(compared.verdict)
        covered += compared.drop.ends[0] <= 0 <= compared.drop.ends[1]
        assert not any(kind.is_worse for kind in compared.classes) or rate
    assert verdicts.count("broke more") + verdicts.count("fixed more") <= 0.05 * 300 + 6
    assert covered >= 0.92 * 300


def test_what_broke_is_found_and_named():
    random = np.random.default_rng(3)
    found_worse = named = 0
    for _ in range(100):
        labels, old, new = pair(random, 1000, 0.01, 0.01)
        nines = (labels == 9) & (random.random(1000) < 0.3)
        new[nines] = 4
        compared = flips(old, new, labels)
        found_worse += compared.verdict == "broke more"
        worse = [kind.name for kind in compared.classes if kind.is_worse]
        named += worse == ["9"] and compared.pairs[0].name == "9 → 4"
    assert found_worse >= 97
    assert named >= 95


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
        compared = flips(old, new, labels)
        verdicts.append(compared.verdict)
        alone.append(flips(old[0], new, labels).verdict)
    assert verdicts.count("broke more") + verdicts.count("fixed more") <= 0.05 * 200 + 5
    assert alone.count("broke more") + alone.count("fixed more") > 0.1 * 200
    assert compared.trainings == 3
    assert compared.old_flips > 0


def test_groups_of_a_column_are_worst_first(tmp_path):
    labels, old, new = pair(np.random.default_rng(5), 1000, 0.01, 0.01)
    camera = np.arange(1000) % 4
    new[(camera == 2) & (np.arange(1000) % 12 == 2)] = 10
    first = write(tmp_path / "a.csv", labels, old, camera=camera, brightness=np.arange(1000) / 7)
    second = write(tmp_path / "b.csv", labels, new, camera=camera)
    assert run("diff", "--old", first, "--new", second, "-o", tmp_path / "out", "-q") == 1
    tree = json.loads((tmp_path / "out/flips/flips.json").read_text())
    assert tree["schema"] == "fmrgen-flips/1"
    assert list(tree["groups"]) == ["camera"]  # brightness is a measure
    worst = tree["groups"]["camera"][0]
    assert (worst["name"], worst["is_worse"]) == ("2", True)
    page = (tmp_path / "out/flips/flips.html").read_text()
    assert "NEW broke more than it fixed" in page
    assert run("diff", "--old", first, "--new", second, "--by", "nope", "-o", tmp_path / "out") == 2


def test_every_format_says_the_same(tmp_path):
    labels, old, new = pair(np.random.default_rng(6), 200, 0.1, 0.02)
    expected = flips(old, new, labels)
    for suffix in (".csv", ".parquet", ".jsonl"):
        order = np.random.default_rng(0).permutation(200)
        first = write(tmp_path / f"a{suffix}", labels, old)
        table = pd.DataFrame({"id": [f"{row}.png" for row in order], "target": labels[order], "pred": new[order]})
        table.to_csv(tmp_path / "b.csv", index=False)
        compared = flips(read_predictions(first), read_predictions(tmp_path / "b.csv"))
        assert (compared.broke, compared.fixed, compared.p_value) == (expected.broke, expected.fixed, expected.p_value)
    frames = [pd.DataFrame({"label": labels, "prediction": answers}) for answers in (old, new)]
    assert fmrgen.flips(*frames).drop == expected.drop


def test_scores_give_answers_and_calibration(tmp_path):
    random = np.random.default_rng(7)
    labels = random.integers(0, 3, 300)
    logits = random.normal(size=(300, 3))
    logits[np.arange(300), labels] += 2
    powers = np.exp(logits)
    shares = powers / powers.sum(1, keepdims=True)
    for name, scores in (("logits", logits), ("shares", shares)):
        pd.DataFrame({"label": labels, "scores": scores.tolist()}).to_parquet(tmp_path / f"{name}.parquet")
    compared = flips(read_predictions(tmp_path / "logits.parquet"), read_predictions(tmp_path / "shares.parquet"))
    assert (compared.verdict, len(compared.broken), len(compared.mended)) == ("no worse", 0, 0)
    assert compared.old_calibration.value == pytest.approx(compared.new_calibration.value)
    assert [flip.new_confidence for flip in compared.doubted] == sorted(
        (flip.new_confidence for flip in compared.doubted), reverse=True
    )


def test_statuses_and_files_of_a_pipeline(tmp_path, capsys):
    labels, old, new = pair(np.random.default_rng(8), 400, 0.08, 0.01)
    first, second = write(tmp_path / "a.csv", labels, old), write(tmp_path / "b.csv", labels, new)
    files = ("--junit", tmp_path / "junit.xml", "--summary", tmp_path / "summary.md", "-o", tmp_path / "out", "-q")
    assert run("diff", "--old", first, "--new", second, *files) == 1
    assert 'failures="1"' in (tmp_path / "junit.xml").read_text()
    assert "NEW broke more than it fixed" in (tmp_path / "summary.md").read_text()
    assert run("diff", "--old", second, "--new", first, "-o", tmp_path / "out", "-q") == 0
    assert run("diff", "--old", first, "--new", first, "-o", tmp_path / "out", "-q") == 0
    assert "NEW is no worse than by 1 points" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop(columns="prediction"), "has no column prediction; call it prediction or"),
        (lambda table: table.drop(columns="label"), "has no column label"),
        (lambda table: table.iloc[:0], "is empty"),
        (lambda table: pd.concat([table, table.iloc[:2]]), "has 2 ids more than once: 0.png, 1.png"),
        (lambda table: table.iloc[3:], "3 ids of"),
        (lambda table: table.assign(id=table["id"] + "x"), "compare predictions on the same images"),
        (lambda table: table.assign(label=(table["label"] + 1) % 10), "50 labels differ, first of id 0.png"),
        (lambda table: table.assign(confidence=7.0), "its confidence goes up to 7; give probabilities, 0 to 1"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, change, words):
    labels, old, new = pair(np.random.default_rng(9), 50, 0.1, 0.1)
    first, second = write(tmp_path / "a.csv", labels, old), write(tmp_path / "b.csv", labels, new)
    change(pd.read_csv(second)).to_csv(second, index=False)
    assert run("diff", "--old", first, "--new", second, "-o", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line


def test_mistakes_of_the_command_are_one_line(tmp_path, capsys):
    labels, old, _ = pair(np.random.default_rng(9), 50, 0.1, 0.1)
    first = write(tmp_path / "a.csv", labels, old)
    (tmp_path / "b.csv").write_text("")
    for arguments, words in (
        (("--old", first, "--new", tmp_path / "b.csv"), "can't be read as csv"),
        (("--old", first, "--new", tmp_path / "c.csv"), "c.csv"),
        (("--old", first, "--new", "asset:mnist/lenet"), "give two of one kind"),
        (("--old", "asset:mnist/lenet", "--new", "asset:mnist/lenet"), "or pass --images with labelled images"),
        (("--old", first, "--new", first, "--margin", "0"), "margin: must be points above 0"),
        (("mnist-lenet", "--old", first, "--new", first, "--margin", "1"), "leave out the recipe mnist-lenet"),
    ):
        assert run("diff", *arguments, "-o", tmp_path / "out") == 2
        assert words in capsys.readouterr().err.replace("\n", " ")


def test_names_with_markup_are_text(tmp_path):
    labels = np.array(["<b>cat</b>", "dog"] * 20)
    old, new = labels.copy(), labels.copy()
    new[:12] = "=1+1"
    first, second = write(tmp_path / "a.csv", labels, old), write(tmp_path / "b.csv", labels, new)
    run("diff", "--old", first, "--new", second, "-o", tmp_path / "out", "-q")
    assert "<b>cat" not in (tmp_path / "out/flips/flips.html").read_text()


def test_two_classifiers_on_images(tmp_path):
    images = "{kind: mnist, split: test, limit: 60}"
    arguments = ("--old", "asset:mnist/lenet", "--new", "{kind: lenet, num_classes: 10}", "--images", images)
    assert run("diff", *arguments, "-o", tmp_path, "-q") == 1
    assert json.loads((tmp_path / "flips/flips.json").read_text())["images"] == 60


def test_files_of_predictions_need_no_network_and_no_image_library(tmp_path):
    labels, old, new = pair(np.random.default_rng(10), 1000, 0.02, 0.02)
    first, second = write(tmp_path / "a.csv", labels, old), write(tmp_path / "b.csv", labels, new)
    script = (
        "import sys; from fmrgen.cli.app import main\n"
        f"try: main(['diff', '--old', {str(first)!r}, '--new', {str(second)!r}, '-o', {str(tmp_path / 'out')!r}, '-q'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'torchvision', 'datasets', 'diffusers', 'timm', 'transformers', 'matplotlib') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
