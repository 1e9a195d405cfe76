"""What people look at: pages in a real browser, pictures that open, tables that say what was found."""

import io
import json
import re
import warnings
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html import unescape
from itertools import combinations

import pyarrow as pa
import pytest
from commands import run
from datasets import ClassLabel, load_dataset
from PIL import Image as PILImage
from torch import nn

from fmrgen import UserError, evaluate, figure, show
from fmrgen.metrics.intervals import Estimate
from fmrgen.report.console import print_report
from fmrgen.report.markdown import to_markdown
from fmrgen.report.outline import evaluation_report
from fmrgen.report.pages import report_page
from fmrgen.report.plots import all_plots
from fmrgen.report.report import Report
from fmrgen.report.sheet import contact_sheet
from fmrgen.report.tables import all_notes, neighbours, transfer_table
from fmrgen.report.write import write, write_report
from fmrgen.results.evaluation import Comparison
from fmrgen.results.fixed_sets import FixedResult
from fmrgen.results.markdown_text import escape
from fmrgen.results.rankings import Difference, RankedClassifier
from fmrgen.results.samples import Sampler

LENET = "asset:mnist/lenet"
HOSTILE = "</script><img src=x onerror=document.title='ran'>|`_*![](http://x/y.png)"


@pytest.mark.slow
def test_plots_are_png_and_what_is_asked_for(report, evaluation, tmp_path):
    plots = {path.name for path in (report / "plots").iterdir()}
    linked = set(re.findall(r'href="plots/([^"]+)"', (report / "report.html").read_text()))
    assert plots == linked
    assert {"fmr.png", "fmr.pdf"} <= plots
    assert not {"fmr.svg"} & plots
    with pytest.raises(UserError, match=r"plots are png, pdf, svg, not gif"):
        write_report(evaluation, tmp_path, ["gif"])
    assert not (tmp_path / "plots").exists()


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
    assert r"\x1b[31m\u202e3" in (tmp_path / "plots/classes.svg").read_text()


def test_rows_of_chosen_classes_on_a_sheet_of_chosen_size(finished_split, tmp_path):
    files = show(str(finished_split), tmp_path, classes=["3", "8"], rows=2, columns=3, caption="", file_format="pdf")
    assert [file.name for file in files] == ["gallery.html", "sheet.pdf"]
    assert files[1].read_bytes().startswith(b"%PDF")
    columns = json.loads(re.search(r'id="galleries">(.*?)</script>', files[0].read_text())[1])[0]["columns"]
    assert set(columns["label"]) == {3, 8}


def test_pairs_are_what_it_takes_for_another_class(finished_split, tmp_path, monkeypatch):
    """The most frequent class and answer first, and of each the images with the largest loss; rows of a sheet do not mix
    two pairs."""
    drawn = []
    monkeypatch.setattr("fmrgen.jobs.show.contact_sheet", lambda *given: drawn.append(given) or contact_sheet(*given))
    files = show(str(finished_split), tmp_path, pairs=True, rows=3, columns=4)
    columns = json.loads(re.search(r'id="galleries">(.*?)</script>', files[0].read_text())[1])[0]["columns"]
    shown = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    table = load_dataset(str(finished_split), "mnist", split="lenet").remove_columns(["image", "original"])
    frame = table.to_pandas()
    fooled = frame[frame.valid & (frame.prediction != frame.label)]
    assert sorted(row["id"] for row in shown) == sorted(fooled.id)
    counts = fooled.groupby(["label", "prediction"]).size()
    pairs = list(dict.fromkeys((row["label"], row["answers"][0][1]) for row in shown))
    assert [counts[pair] for pair in pairs] == sorted(counts, reverse=True)
    loss = dict(zip(frame.id, frame.loss, strict=True))
    of_first = [loss[row["id"]] for row in shown if (row["label"], row["answers"][0][1]) == pairs[0]]
    assert of_first == sorted(of_first, reverse=True)
    on_sheet = drawn[0][2]
    assert len(on_sheet) == 12
    for place, pair in enumerate(pairs[:3]):
        of_row = [one for one in on_sheet[4 * place : 4 * place + 4] if one is not None]
        assert len(of_row) == min(4, counts[pair])
        assert {(one.columns["label"], one.columns["prediction"]) for one in of_row} == {pair}
    chosen = show(str(finished_split), tmp_path / "one", pairs=True, classes=[str(pairs[0][0])])
    columns = json.loads(re.search(r'id="galleries">(.*?)</script>', chosen[0].read_text())[1])[0]["columns"]
    assert set(columns["label"]) == {pairs[0][0]}
    unsaid = load_dataset(str(finished_split), "mnist", split="lenet").remove_columns(["prediction"])
    unsaid.to_parquet(tmp_path / "unsaid.parquet")
    with pytest.raises(UserError, match="does not say what its classifier answers; leave out pairs"):
        show(str(tmp_path / "unsaid.parquet"), tmp_path / "x", pairs=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ids", "3", "--pairs"], "--pairs chooses the rows itself; leave out --ids"),
        (["--ids", "3,x"], "--ids 3,x: must be numbers, for example 3,14,15"),
        (["--ids", "5000"], "has no row of id 5000"),
        (["--ids", "3", "--classes", "7"], "has no row of id 3 of these classes"),
        (["--classes", "12"], "unknown class 12"),
        (["--format", "gif"], "must be png, pdf or svg, not gif"),
    ],
)
def test_mistakes_of_show(finished_split, tmp_path, capsys, arguments, message):
    assert run("show", finished_split, "-o", tmp_path, *arguments) == 2
    assert message in capsys.readouterr().err


def test_samples_are_even_over_classes_and_have_every_reason():
    def look(sampler):
        labels = [0] * 90 + [1] * 10
        reasons = ["oracle"] * 95 + ["rejected"] * 5
        table = pa.table({"image": [{"bytes": b"x", "path": None}] * 100, "stop_reason": reasons})
        sampler.add(0, table, labels)
        sampler.add(100, table, labels)
        return sampler.samples

    samples = look(Sampler(20, 2))
    assert [s.row for s in samples] == [*range(10), *range(90, 98)][:10] + [s.row for s in samples[10:]]
    taken = [(s.row % 100 >= 90, s.columns["stop_reason"]) for s in samples]
    assert taken.count((False, "oracle")) == 10
    assert taken.count((True, "rejected")) >= 3
    assert [s.row for s in look(Sampler(20, 2))] == [s.row for s in samples]


def test_the_plots_are_pictures(evaluation):
    plots = all_plots(evaluation)
    of_steps = {"budgets", "thresholds", "failures", "classes-by-budget"}
    assert set(plots) == {"fmr", "accuracy", "transfer", "iterations", "classes"} | of_steps
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


def page_of(report):
    """The page, with one picture in place of each."""
    return report_page(report, dict.fromkeys(report.pictures(), "<svg></svg>"), ["png"])


def test_what_the_splits_were_made_with_stands_on_top(evaluation):
    told = evaluation.splits[0].made_with
    assert told["perturbation"] == "budget 8, step size 0.1, update sign, rule label with probability ≥ 0.915"
    assert told["generator"] == "vqgan asset:mnist/vqgan at 32 px"
    page = page_of(evaluation_report(evaluation))
    assert page.count(told["perturbation"]) == 1
    assert page.index("What the figures are") < page.index("<h2>Plots")


def test_a_note_of_many_is_told_once(evaluation):
    notes = all_notes(evaluation)
    assert len(notes) == len({note.partition(": ")[2] for note in notes})


def test_classes_without_fmr_have_no_plot_by_budget(evaluation):
    """As of four rows against a network that was never trained: FMR is known, and of no single class."""
    (split, *others) = evaluation.splits
    classes = [replace(figures, fmr=[None] * len(figures.fmr)) for figures in split.steps.classes]
    without = replace(split, steps=replace(split.steps, classes=classes))
    plots = all_plots(replace(evaluation, splits=[without, *others]))
    assert ("classes-by-budget" in plots) == bool(others)
    for draw in plots.values():
        draw()


def test_plots_of_very_little(finished_split):
    rows = load_dataset("parquet", data_files=str(finished_split / "mnist/lenet-*.parquet"), split="train")
    bare = rows.select_columns(["image", "label"])
    plots = all_plots(evaluate({"bare": bare}, [LENET]))
    assert set(plots) == {"accuracy", "classes"}
    nothing_valid = rows.remove_columns("valid").add_column("valid", [False] * len(rows))
    evaluation = evaluate({"invalid": nothing_valid}, {"a": LENET, "b": LENET})
    assert evaluation.results[0].total.perturbed_accuracy is None
    assert set(all_plots(evaluation)) == {"accuracy", "transfer", "classes"}
    assert "| a | " in to_markdown(evaluation_report(evaluation))
    assert "| PA |" not in to_markdown(evaluation_report(evaluation))


@pytest.mark.slow
def test_many_classes_of_any_name(finished_split, tmp_path):
    rows = load_dataset("parquet", data_files=str(finished_split / "mnist/lenet-*.parquet"), split="train")
    names = [f"{'鶴' if i % 2 else 'b$_$c'} {i}" for i in range(100)]  # no mathematics, and in no font
    many = rows.remove_columns("label").add_column(
        "label", list(range(100)) + [0] * 20, feature=ClassLabel(names=names)
    )
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 100))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all_plots(evaluate({"many": many}, {"net": network}))["classes"]().to_bytes()
        many.to_parquet(tmp_path / "many.parquet")
        show(str(tmp_path / "many.parquet"), tmp_path)


def test_markdown_says_what_was_found(evaluation):
    text = to_markdown(evaluation_report(evaluation))
    total = evaluation.result("first", "lenet").total
    assert f"| lenet ◆ | {total.fmr.value:.2f} [" in text
    assert "## Transfer" in text


def multiplied(evaluation, splits, classifiers):
    """The first result of the evaluation as that of so many classifiers on so many splits, each named at length."""
    names = [f"vit_base_patch{number}_clip_224.openai_ft_in1k" for number in range(classifiers)]
    places = [f"out:imagenet_a/vit_base_patch{number}_clip_224" for number in range(splits)]
    first, network, result = evaluation.splits[0], evaluation.classifiers[0], evaluation.results[0]
    apart = [Difference(a, b, None, None, Estimate(1.0, -2.0, 4.0)) for a, b in combinations(names, 2)]
    ranking = [RankedClassifier(rank, name, result.total.fmr, True) for rank, name in enumerate(names, 1)]
    return replace(
        evaluation,
        splits=[replace(first, name=place) for place in places],
        classifiers=[replace(network, name=name) for name in names],
        results=[
            replace(result, split=place, classifier=name, conditioned=row == column)
            for row, place in enumerate(places)
            for column, name in enumerate(names)
        ],
        comparisons=[
            Comparison(place, "fmr", [one for one in ranking if one.classifier != own], apart)
            for place, own in zip(places, [*names, *[""] * splits], strict=False)
        ],
        samples={place: [] for place in places},
    )


def assert_readable(figure, name):
    """It is no larger than a screen or a page or three, and no names on its axes lie on each other."""
    figure.draw_without_rendering()
    size = figure.get_tightbbox().size
    assert size[0] < 17, (name, size)  # inches
    assert size[1] < 27, (name, size)
    for axes in figure.axes:
        for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
            boxes = [tick.get_window_extent() for tick in ticks if tick.get_text()]
            for one, other in combinations(boxes, 2):
                assert not one.overlaps(other), (name, [tick.get_text() for tick in ticks])
            assert not [tick.get_text() for tick in ticks if "$" in tick.get_text()]


@pytest.mark.slow
@pytest.mark.parametrize(("splits", "classifiers"), [(1, 1), (1, 30), (3, 30), (30, 30)])
def test_pictures_of_many_stay_readable(evaluation, splits, classifiers):
    many = multiplied(evaluation, splits, classifiers)
    for name, draw in all_plots(many).items():
        assert_readable(draw(), name)
    for name in ("accuracy", "classes"):  # marks at both ends, multiples of ten, are whole
        low, high = all_plots(many)[name]().axes[0].get_xlim()
        assert 0.01 < -low / 10 % 1 < 0.3
        assert high > 100.5


def titles(sections, shown):
    """The titles of what is `shown` there, those of parts after that of their whole."""
    for section in sections:
        if section.shown in shown:
            yield section.title
            yield from titles(section.parts, shown)


def test_a_terminal_markdown_and_a_page_tell_the_same_in_one_order(evaluation, capsys):
    """Whatever sections there are: nothing is left out in one of the three, or said in other words."""
    fixed = [FixedResult("set", name, 100, Estimate(5, 4, 6), None, {}) for name in ("lenet", "none")]
    evaluation = replace(evaluation, fixed=fixed)
    report = evaluation_report(evaluation)
    sections = report.sections
    assert [section.kind for section in sections] == [
        *("worst case", "split", "split", "made with", "transfer", "fixed sets", "notes", "figures", "plots")
    ]
    print_report(report)
    lines, markdown = list(map(str.strip, capsys.readouterr().out.splitlines())), to_markdown(report)
    page = unescape(page_of(report))
    everywhere, files = ["everywhere"], ["everywhere", "in files"]
    headings = [line.lstrip("# ") for line in markdown.splitlines() if line.startswith("#")]
    assert headings == [report.title, *(title.replace("_", "\\_") for title in titles(sections, files))]
    titles_on_page = re.findall(
        r"<(?:h\d|summary)>(.*?)</", page.partition("<h2>Gallery")[0].partition("</section>")[2]
    )
    assert titles_on_page == list(titles(sections, [*files, "on the page"]))
    with_tables = [section.title for section in sections if section.tables and section.shown in everywhere]
    places = [lines.index(title) for title in with_tables]
    assert places == sorted(places)
    for section in sections:
        if section.shown == "everywhere":
            texts = [section.about, *section.lines]
            assert all(text in " ".join(lines) and text in page for text in texts)


def test_what_is_said_of_many_is_short(evaluation):
    many = multiplied(evaluation, 1, 30)
    assert neighbours(many.comparisons[0]) == [
        "28 of 28 pairs of neighbours: FMR differs by 1.00 to 1.00, statistically tied"
    ]
    ranking = [replace(one, tied_with_next=one.rank != 4) for one in many.comparisons[0].ranking]
    said = neighbours(replace(many.comparisons[0], ranking=ranking))
    assert [line.partition(":")[0] for line in said] == [f"{count} of 28 pairs of neighbours" for count in (27, 1)]
    assert said[1].endswith(f"significantly different ({ranking[2].classifier} – {ranking[3].classifier})")
    three = multiplied(evaluation, 3, 30)
    table = transfer_table(three, "fmr")
    assert (len(table.header), len(table.rows)) == (4, 30)
    assert table.rows[2][3].startswith("◆")
    page = page_of(evaluation_report(three))
    assert "Classifiers down, splits across." in page
    assert page.count("<summary>The first 24 classifiers by class</summary>") == 3
    assert "## Transfer" not in to_markdown(evaluation_report(many))  # the table of the one split says it
