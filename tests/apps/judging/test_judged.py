"""What judgements are for: rates, FMR under each judge, and rows that are valid by another's word."""

import hashlib
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run
from sheets import fill
from stored import rows
from watched import browser, show_all

from fmrgen import evaluate, read_figures, write_report
from fmrgen.apps.judging.sheet import read_sheet, write_sheet
from fmrgen.metrics.intervals import proportion
from fmrgen.report.markdown import to_markdown
from fmrgen.report.outline import evaluation_report
from fmrgen.report.split_sections import judges_lines
from fmrgen.split.judged import Judge, fmr_by_judge
from fmrgen.split.judgements import TABLE, judgements_of, to_parquet
from fmrgen.split.open import open_split

LENET = "asset:mnist/lenet"
MACHINE = "machine={kind: classifier, classifier: 'asset:mnist/lenet'}"


@pytest.fixture(scope="module")
def judged(finished_split, tmp_path_factory):
    """The finished split, judged by a machine, by two persons who saw a sample, and by one who saw all of it.

    ann and ben say what the label is but for every tenth; all is said by eve, who sees what the number of the row says.
    """
    folder = tmp_path_factory.mktemp("judged") / "out"
    shutil.copytree(finished_split, folder)
    assert run("judge", folder, "--oracle", MACHINE, "--quiet") == 0
    stored = rows(folder)
    sheets = tmp_path_factory.mktemp("sheets")
    write_sheet(str(folder), sheets / "sample", count=60)
    write_sheet(str(folder), sheets / "whole", count=1000)

    def every_tenth_wrong(place):
        return lambda shown: str((stored[shown.id]["label"] + (shown.id % 10 == place)) % 10)

    def every_third_unsure(shown):
        is_unsure = shown.which == "image" and shown.id % 3 == 0
        return "unsure" if is_unsure else str(stored[shown.id]["label"])

    people = {"ann": ("sample", every_tenth_wrong(0)), "ben": ("sample", every_tenth_wrong(1))}
    for name, (sheet, label_of) in {**people, "eve": ("whole", every_third_unsure)}.items():
        fill(folder, sheets / sheet, sheets / f"{name}.csv", label_of)
        read_sheet(str(folder), name, sheets / f"{name}.csv", output=folder)
    return folder


@pytest.fixture(scope="module")
def evaluation(judged):
    return evaluate(str(judged), {"lenet": LENET, "none": "{kind: lenet}"}, progress=False)


@pytest.mark.slow
def test_every_judges_figures_are_those_of_its_verdicts(judged, evaluation):
    stored = rows(judged)
    valid = {i: row for i, row in stored.items() if row["valid"]}
    (split,) = evaluation.splits
    of = {judge.judge: judge for judge in split.judges}
    assert list(of) == ["ann", "ben", "eve", "machine", "people"]
    hits = np.array([row["prediction"] == row["label"] for row in valid.values()])
    assert of["machine"].preserved == proportion(hits)  # as `fmrgen judge` has it
    assert of["machine"].looked_at == of["eve"].looked_at == len(valid)
    assert of["ann"].looked_at == 60
    assert of["eve"].preserved.value == pytest.approx(100 * np.mean([i % 3 != 0 for i in valid]), abs=1e-6)
    assert of["eve"].originals_right.value == 100
    both = {i: row for i, row in valid.items() if i % 3 == 0}  # whom ann or ben may have seen too
    assert of["people"].looked_at >= of["eve"].looked_at
    assert of["people"].preserved.value >= of["eve"].preserved.value - 100 * len(both) / len(valid)


def test_fmr_under_a_judge_is_over_what_it_sees(judged, evaluation):
    stored = rows(judged).values()
    result = evaluation.result(evaluation.splits[0].name, "lenet")
    standard = np.mean([row["original_prediction"] == row["label"] for row in stored])
    kept = [row for row in stored if row["valid"] and row["id"] % 3]
    accuracy = np.mean([row["prediction"] == row["label"] for row in kept])
    assert result.judged["eve"].value == pytest.approx(100 * accuracy / standard, rel=1e-6)
    assert result.judged["machine"].value == pytest.approx(100 / standard)  # it sees what it says
    told = json.loads(evaluation.to_json())
    assert told["results"][0]["judged"]["eve"]["value"] == result.judged["eve"].value


def test_tables_and_files_tell_of_judges(evaluation, tmp_path):
    write_report(evaluation, tmp_path)
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "evaluation.md").read_text()
    for told in (page, text, to_markdown(evaluation_report(evaluation))):
        assert "Other judges of its images" in told
        assert "machine" in told
    assert read_figures(tmp_path / "evaluation.json").splits[0].judges == evaluation.splits[0].judges


def test_who_guesses_is_told_where_the_figures_are(own, tmp_path):
    write_sheet(str(own), tmp_path / "sheet", count=60)
    stored = rows(own)

    def guess(shown):
        return str((stored[shown.id]["label"] + shown.id % 10) % 10)

    fill(own, tmp_path / "sheet", tmp_path / "zoe.csv", guess)
    read_sheet(str(own), "zoe", tmp_path / "zoe.csv", output=tmp_path)
    found = evaluate(str(own), {"lenet": LENET}, progress=False)
    of = {judge.judge: judge for judge in found.splits[0].judges}
    (line,) = [line for line in judges_lines(found.splits[0], found.results) if "chance" in line]
    assert line.startswith(f"zoe sees the label in {of['zoe'].originals_right} % of the originals, no better than")


@pytest.mark.browser
def test_the_gallery_shows_where_judges_doubt(judged, evaluation, tmp_path):
    write_report(evaluation, tmp_path)
    doubted = {
        sample.columns["id"]
        for sample in evaluation.samples[evaluation.splits[0].name]
        if any(label != sample.columns["label"] for label in sample.columns["later_judges"].values())
    }
    with browser() as page:
        page.goto(f"file://{tmp_path / 'report.html'}")
        page.locator("#reset").click()
        page.get_by_label("judges").select_option("doubt")
        show_all(page)
        captions = page.locator(".card figcaption").all_inner_texts()
    assert {int(caption.split()[1]) for caption in captions} == doubted
    assert 0 < len(doubted) < 120
    assert all("machine: " in caption for caption in captions)
    assert any("eve: " in caption for caption in captions)


@pytest.mark.slow
def test_judgements_of_other_images_end_an_evaluation_in_a_line(own, tmp_path, capsys):
    place = own / "judgements/mnist/lenet"
    about = json.loads((place / "machine.json").read_text())
    assert about["sha256"] == hashlib.sha256((place / "machine.parquet").read_bytes()).hexdigest()
    (place / "machine.parquet").write_bytes((place / "eve.parquet").read_bytes())
    command = ("evaluate", own, "-c", LENET, "--output", tmp_path / "report", "--quiet")
    assert run(*command) == 2
    assert "machine.parquet: is not the table that machine.json describes; judge again" in capsys.readouterr().err
    for name in ("machine", "ann", "ben", "eve"):
        told = json.loads((place / f"{name}.json").read_text()) | {"files": "0" * 16}
        (place / f"{name}.json").write_text(json.dumps(told))
    assert run(*command) == 0
    assert "judge ann saw earlier files of the split" in (tmp_path / "report/evaluation.md").read_text()


def test_a_judge_with_the_name_of_all_persons_together_is_passed_over(own):
    name = "people"
    place = own / "judgements/mnist/lenet"
    (place / "machine.parquet").rename(place / f"{name}.parquet")
    told = json.loads((place / "machine.json").read_text()) | {"judge": name}
    (place / "machine.json").rename(place / f"{name}.json").write_text(json.dumps(told))
    found, notes = judgements_of(open_split(str(own)))
    assert [one.about.judge for one in found] == ["ann", "ben", "eve"]
    assert notes == [f"judge {name} is skipped: that name means all people together; judge under another name"]


def test_a_reconstruction_of_a_row_that_is_not_there_ends_in_a_line(own, tmp_path, capsys):
    table = own / "judgements/mnist/lenet/ann.parquet"
    said = pq.read_table(table).to_pylist()
    content = to_parquet(pa.Table.from_pylist([*said, {**said[0], "id": 10**9, "which": "reconstruction"}], TABLE))
    table.write_bytes(content)
    about = json.loads(table.with_suffix(".json").read_text())
    about |= {"sha256": hashlib.sha256(content).hexdigest(), "rows": len(said) + 1}
    table.with_suffix(".json").write_text(json.dumps(about))
    assert run("evaluate", own, "-c", LENET, "--output", tmp_path / "report", "--quiet") == 2
    assert "it judged id 1000000000, which is not in the split; it judged another split" in capsys.readouterr().err


@pytest.mark.parametrize(("changed", "misses", "held"), [(0.12, 0.05, True), (0.38, 0.05, True), (0.12, 0.3, False)])
def test_fmr_under_a_reader_holds_the_truth_if_misses_are_alike(changed, misses, held):
    """300 of 1,000 images, read by a person who misses the class in so many that fool the network, and in 5 % else."""
    random, hits = np.random.default_rng(0), 0
    for _ in range(400):
        original_right, valid = random.random(1000) < 0.97, random.random(1000) < 0.9
        shows, right = random.random(1000) > changed, random.random(1000) < 0.5
        missed = random.random(1000) < np.where(right, 0.05, misses)
        sees = np.where(shows, ~missed, random.random(1000) < 0.05 / 9) & (random.random(1000) < 1 / 3)
        person = Judge("ann", "person", np.where(sees, 0, -1), np.zeros(1000), sees)
        of_model = {"label": np.zeros(1000), "prediction": ~right, "original_prediction": ~original_right}
        fmr = fmr_by_judge([person], of_model, valid)["ann"]
        hits += fmr.low <= 100 * 0.5 / 0.97 <= fmr.high
    assert (hits >= 0.93 * 400) == held
