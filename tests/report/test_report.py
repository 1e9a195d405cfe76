"""What people look at: pages in a real browser, pictures that open, tables that say what was found."""

import io
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from commands import run
from datasets import ClassLabel, Image, load_dataset
from PIL import Image as PILImage
from watched import columns_of

from fmrgen import UserError, evaluate, figure, show
from fmrgen.report.console import print_report
from fmrgen.report.markdown import to_markdown
from fmrgen.report.outline import evaluation_report
from fmrgen.report.plots import all_plots
from fmrgen.report.report import Report, Section, Table
from fmrgen.report.sheet import contact_sheet
from fmrgen.report.write import write, write_report
from fmrgen.results.markdown_text import escape
from fmrgen.results.samples import Sample
from fmrgen.split.rows import Part
from fmrgen.split.sampler import Sampler

LENET = "asset:mnist/lenet"


@pytest.mark.slow
def test_plots_are_files_in_the_formats_that_are_asked_for(report, evaluation, tmp_path):
    plots = {path.name for path in (report / "plots").iterdir()}
    linked = set(re.findall(r'href="plots/([^"]+)"', (report / "report.html").read_text()))
    assert plots == linked
    assert "fmr.pdf" in plots
    assert not {"fmr.svg", "fmr.png"} & plots
    assert "plots/" not in (report / "evaluation.md").read_text()
    write_report(evaluation, tmp_path)
    assert not (tmp_path / "plots").exists()
    with pytest.raises(UserError, match=r"gif: a picture is .png, .pdf or .svg"):
        write_report(evaluation, tmp_path, ["gif"])


def test_a_terminal_shows_one_table_in_short_before_it_shows_all(capsys):
    rows = [[f"net {number}", "50", "60"] for number in range(9)]
    table = Table(["classifier", "FMR", "extra"], rows, first_columns=["FMR"])
    first = Section("split", "a split", "All about it.", [table])
    notes = Section("notes", "Notes", lines=["few rows are valid"])
    later = Section("transfer", "Transfer", tables=[Table(["FMR", "a"], [["b", "1"]])])
    report = Report("evaluation", "Title", [first, later, notes], {}, conclusions=["an answer"], warnings=["a doubt"])
    print_report(report, every=False)
    short = capsys.readouterr().out
    assert short.splitlines()[0] == "warning: a doubt"
    assert short.endswith("; --all prints the rest\nnote: few rows are valid\nan answer\n")
    assert "net 7" in short
    assert "All about it.\n8 of 9 rows, 2 of 3 columns, 1 of 2 tables; --all prints the rest" in short
    assert not any(word in short for word in ("net 8", "extra", "Transfer"))
    print_report(report)
    whole = capsys.readouterr().out
    assert all(word in whole for word in ("net 8", "extra", "Transfer", "few rows are valid"))


def test_names_in_markdown_ping_nobody_and_link_nowhere():
    """GitHub looks for these in what Markdown has become, where a backslash is gone."""
    text = escape("@org/team https://x.y www.x.y a@b.c #12 GH-12 5:1")
    assert text == (r"@&#8203;org/team https:&#8203;//x.y www&#8203;.x.y a@&#8203;b.c \#&#8203;12 GH-&#8203;12 5:1")


def test_a_plot_writes_out_control_characters_of_names(finished_split, tmp_path):
    rows = load_dataset("parquet", data_files=str(finished_split / "mnist/lenet-*.parquet"), split="train")
    names = [f"\x1b[31m\u202e{digit}" for digit in range(10)]
    hostile = rows.cast_column("label", ClassLabel(names=names))
    network = f"{{kind: lenet, class_names: {json.dumps(names)}}}"
    write_report(evaluate({names[0]: hostile}, {names[1]: network}), tmp_path, ["svg"])
    plots = list((tmp_path / "plots").glob("*.svg"))
    for plot in plots:
        ElementTree.parse(plot)
        assert "\u202e" not in plot.read_text()
    assert r"\x1b[31m\u202e1" in (tmp_path / "plots/fmr.svg").read_text()


def test_rows_of_chosen_classes_on_a_sheet_of_chosen_size(finished_split, tmp_path):
    files = show(str(finished_split), tmp_path, classes=["3", "8"], rows=2, columns=3, caption="", file_format="pdf")
    assert [file.name for file in files] == ["gallery.html", "sheet.pdf"]
    assert files[1].read_bytes().startswith(b"%PDF")
    columns = columns_of(files[0])
    assert set(columns["label"]) == {3, 8}


def test_pairs_are_what_it_takes_for_another_class(finished_split, tmp_path, monkeypatch):
    """The most frequent class and answer first, and of each the images with the largest loss; rows of a sheet do not mix
    two pairs."""
    drawn = []
    monkeypatch.setattr("fmrgen.jobs.show.contact_sheet", lambda *given: drawn.append(given) or contact_sheet(*given))
    files = show(str(finished_split), tmp_path, pairs=True, rows=3, columns=4)
    columns = columns_of(files[0])
    shown = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    table = load_dataset(str(finished_split), "mnist", split="lenet").remove_columns(["image", "original"])
    frame = table.to_pandas()
    fooled = frame[frame.valid & (frame.prediction != frame.label)]
    assert sorted(row["id"] for row in shown) == sorted(fooled.id)
    counts = fooled.groupby(["label", "prediction"]).size()
    pairs = list(dict.fromkeys((row["label"], row["predictions"][0][1]) for row in shown))
    assert [counts[pair] for pair in pairs] == sorted(counts, reverse=True)
    loss = dict(zip(frame.id, frame.loss, strict=True))
    of_first = [loss[row["id"]] for row in shown if (row["label"], row["predictions"][0][1]) == pairs[0]]
    assert of_first == sorted(of_first, reverse=True)
    on_sheet = drawn[0][2]
    assert len(on_sheet) == 12
    for place, pair in enumerate(pairs[:3]):
        of_row = [one for one in on_sheet[4 * place : 4 * place + 4] if one is not None]
        assert len(of_row) == min(4, counts[pair])
        assert {(one.columns["label"], one.columns["prediction"]) for one in of_row} == {pair}
    chosen = show(str(finished_split), tmp_path / "one", pairs=True, classes=[str(pairs[0][0])])
    columns = columns_of(chosen[0])
    assert set(columns["label"]) == {pairs[0][0]}
    unsaid = load_dataset(str(finished_split), "mnist", split="lenet").remove_columns(["prediction"])
    unsaid.to_parquet(tmp_path / "unsaid.parquet")
    with pytest.raises(UserError, match="does not say what its classifier predicts; leave out pairs"):
        show(str(tmp_path / "unsaid.parquet"), tmp_path / "x", pairs=True)


def test_an_invalid_row_is_marked_on_a_sheet(finished_split):
    split = load_dataset(str(finished_split), "mnist", split="lenet").cast_column("image", Image(decode=False))
    image = split[0]["image"]["bytes"]
    columns = {"label": 1, "prediction": 1}
    rows = [Sample(0, image, image, columns | {"valid": True}), Sample(1, image, image, columns | {"valid": False})]
    (canvas,) = contact_sheet(None, ["a", "b"], rows).axes
    assert [text.get_text() for text in canvas.texts] == ["b", "b", "b", "* b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ids", "3", "--pairs"], "--pairs chooses the rows itself; leave out --ids"),
        (["--ids", "3,x"], "--ids 3,x: must be numbers, for example 3,14,15"),
        (["--ids", "3", "--classes", "7"], "has no row of id 3 of these classes"),
        (["--ids", "2,99999"], "has no row of id 99999"),
        (["--classes", "seven"], "unknown class seven, choose from 0, 1"),
        (["--format", "gif"], "must be png, pdf or svg, not gif"),
    ],
)
def test_mistakes_of_show(finished_split, tmp_path, capsys, arguments, message):
    assert run("show", finished_split, "-o", tmp_path, *arguments) == 2
    assert message in capsys.readouterr().err


def test_samples_are_even_over_classes_and_have_every_reason():
    def look(sampler):
        columns = {"label": np.repeat([0, 1], [90, 10]), "stop_reason": np.repeat(["oracle", "rejected"], [95, 5])}
        table = pa.table({"image": [{"bytes": b"x", "path": None}] * 100})
        for first_row in (0, 100):
            sampler.add(Part(first_row, columns, table), lambda stored: stored["bytes"])
        return sampler.samples

    samples = look(Sampler(20, 2))
    assert [s.row for s in samples] == [*range(10), *range(90, 98)][:10] + [s.row for s in samples[10:]]
    taken = [(s.row % 100 >= 90, s.columns["stop_reason"]) for s in samples]
    assert taken.count((False, "oracle")) == 10
    assert taken.count((True, "rejected")) >= 3
    assert [s.row for s in look(Sampler(20, 2))] == [s.row for s in samples]


@pytest.mark.slow
def test_the_plots_are_pictures(evaluation):
    plots = all_plots(evaluation)
    assert set(plots) == {"fmr", "transfer", "budgets", "steps"}
    for draw in plots.values():
        picture = PILImage.open(io.BytesIO(draw().to_bytes())).convert("RGB")
        assert picture.width > 600
        assert len(picture.getcolors(1 << 24)) > 20


def test_a_figure_to_go_on_with(evaluation, tmp_path):
    drawn = figure(evaluation, "fmr")
    drawn.axes[0].set_title("mine")
    for name, begin in (("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.svg", b"<?xml")):
        drawn.save(tmp_path / name)
        first = (tmp_path / name).read_bytes()
        assert first.startswith(begin)
        drawn.save(str(tmp_path / name))
        assert (tmp_path / name).read_bytes() == first
    assert b"FontFile2" in (tmp_path / "a.pdf").read_bytes()
    assert drawn._repr_png_() == (tmp_path / "a.png").read_bytes()
    with pytest.raises(UserError, match=r"a\.gif: a picture is \.png, \.pdf or \.svg"):
        drawn.save(tmp_path / "a.gif")
    with pytest.raises(UserError, match=r"unknown figure frm, did you mean fmr\?"):
        figure(evaluation, "frm")


def test_a_figure_that_is_no_number_is_an_error_unless_a_report_says_that_it_may_be_missing(tmp_path):
    report = Report("odd", "Odd", [], {"figure": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(report, tmp_path)
    write(replace(report, allow_nan=True), tmp_path)
    assert json.loads((tmp_path / "odd.json").read_text()) == {"figure": None}


def test_plots_of_very_little(finished_split):
    rows = load_dataset("parquet", data_files=str(finished_split / "mnist/lenet-*.parquet"), split="train")
    bare = rows.select_columns(["image", "label"])
    plots = all_plots(evaluate({"bare": bare}, [LENET]))
    assert set(plots) == set()
    nothing_valid = rows.remove_columns("valid").add_column("valid", [False] * len(rows))
    evaluation = evaluate({"invalid": nothing_valid}, {"a": LENET, "b": LENET})
    assert evaluation.results[0].total.perturbed_accuracy is None
    assert set(all_plots(evaluation)) == {"transfer"}
    assert "| a | " in to_markdown(evaluation_report(evaluation))
    assert "| PA |" not in to_markdown(evaluation_report(evaluation))
