"""Pages in a real browser: what each click shows, names that would run, anyone's eyes, and no script."""

import json
import re
from urllib.parse import quote

import numpy as np
import pytest
from commands import run
from datasets import ClassLabel, Dataset, Features, Image, Value, load_dataset
from PIL import Image as PILImage
from watched import browser, columns_of, show_all

from fmrgen import evaluate, show
from fmrgen.image_files import png_bytes
from fmrgen.report.gallery import Gallery, GalleryRow, galleries
from fmrgen.report.pages import gallery_page, render_page
from fmrgen.report.write import write_report

LENET = "asset:mnist/lenet"
HOSTILE = "\uffff</script><img src=x onerror=document.title='ran'>|`_*![](http://x/y.png)"
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}


def address(path, **filters):
    return f"file://{path}#{'&'.join(f'{name}={quote(str(value))}' for name, value in filters.items())}"


def listed(page):
    """How many rows pass the filters; so many have cards once all are shown."""
    page.evaluate("() => new Promise(done => setTimeout(done, 50))")  # what a click has set off is done
    count = int(page.locator("#count").inner_text().split(" of ")[0])
    show_all(page)
    assert page.locator(".card").count() == count
    return count


def filters_of(page):
    """What the address keeps."""
    return page.evaluate("() => location.hash")


def choose(page, name, value):
    page.select_option(f"#filters [name={name}]", value)
    return listed(page)


def drawn(page, canvas):
    """The pixels of a canvas, once its sheet is there."""
    element = canvas.element_handle()
    page.wait_for_function("canvas => canvas.dataset.drawn", arg=element)
    script = "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    return np.array(element.evaluate(script)).reshape(canvas.evaluate("canvas => canvas.height"), -1, 4)[..., :3]


@pytest.mark.browser
def test_filters_show_the_rows_they_name_and_the_address_keeps_them(report, evaluation):
    rows = galleries(evaluation)[0].rows
    lenet, none = map(galleries(evaluation)[0].classifiers.index, ("lenet", "none"))
    with browser() as page:
        page.goto(f"file://{report / 'report.html'}")
        assert page.title() == "Robustness report"
        assert filters_of(page) == "#outcome=fooled"  # a page opens on the failures
        assert 0 < listed(page) < 100
        page.locator("#reset").click()
        assert listed(page) == len(rows) > 100
        threes = [row for row in rows if row.label == 3]
        assert f"3 ({len(threes)})" in page.locator("#filters [name=class]").inner_text()
        assert choose(page, "class", "3") == len(threes)
        assert set(page.locator(".card .true").all_inner_texts()) == {"3"}
        assert filters_of(page) == "#class=3"
        choose(page, "class", "")

        fooled = [row for row in rows if row.predictions[lenet][0] == row.label != row.predictions[lenet][1]]
        assert choose(page, "outcome", "fooled") == len(fooled) > 0
        assert choose(page, "outcome", "kept") == sum(row.predictions[lenet][1] == row.label for row in rows) > 0
        assert choose(page, "network", "none") == sum(row.predictions[none][1] == row.label for row in rows)
        choose(page, "outcome", "")
        choose(page, "network", "lenet")
        for answer in {row.predictions[lenet][1] for row in rows}:
            assert choose(page, "prediction", str(answer)) == sum(row.predictions[lenet][1] == answer for row in rows)
        choose(page, "prediction", "")
        for reason in {row.reason for row in rows}:
            assert choose(page, "reason", reason) == sum(row.reason == reason for row in rows)
        choose(page, "reason", "")
        assert choose(page, "split", "again") == len(galleries(evaluation)[1].rows)

        page.goto("about:blank")
        page.goto(address(report / "report.html", split="first", network="lenet", outcome="fooled", step=8))
        assert listed(page) == sum(row.failed_at <= 8 for row in fooled if row.failed_at is not None)


@pytest.mark.browser
def test_rows_are_sorted_by_what_one_asks_for(report, evaluation):
    rows = galleries(evaluation)[0].rows
    with browser() as page:
        for order, key in {
            "steps": lambda row: -row.iterations,
            "oracle": lambda row: row.probability,
            "loss": lambda row: -row.loss,
            "step": lambda row: 99 if row.failed_at is None else row.failed_at,
        }.items():
            page.goto("about:blank")
            page.goto(address(report / "report.html", sort=order))
            first = page.locator(".card figcaption").first.inner_text()
            assert f"id {min(rows, key=key).id} " in first, order


@pytest.mark.browser
def test_a_class_leads_to_its_images(report):
    with browser() as page:
        page.goto(f"file://{report / 'report.html'}")
        page.locator("summary", has_text="lenet by class").first.click()
        page.locator("details[open] th a", has_text="7").first.click()
        page.wait_for_function("() => document.querySelector('#filters [name=class]').value === '7'")
        assert set(page.locator(".card .true").all_inner_texts()) == {"7"}
        assert page.locator("#filters [name=network]").input_value() == "lenet"


@pytest.mark.browser
def test_the_path_of_an_image_by_mouse_and_keyboard(report, evaluation):
    row = next(row for row in galleries(evaluation)[0].rows if row.failed_at)
    last = len(row.steps.predictions) - 1
    with browser() as page:
        page.goto(f"file://{report / 'report.html'}")
        page.locator("#reset").click()
        page.locator("button.open").nth(1).click()
        assert page.locator("dialog[open] strong").inner_text().endswith(f"id {galleries(evaluation)[0].rows[1].id}")
        page.keyboard.press("Escape")
        page.wait_for_function("() => !location.hash.includes('id=')")  # a dialog says later that it was closed
        assert page.locator("dialog[open]").count() == 0

        page.goto("about:blank")
        page.goto(address(report / "report.html", split="first", id=row.id))
        line = page.locator("dialog .path p").first
        assert f"step {last} of {last}" in line.inner_text()
        slider = page.locator("dialog input[type=range]")
        assert slider.evaluate("slider => slider === document.activeElement")
        page.keyboard.press("Home")
        assert "reconstruction" in line.inner_text()
        assert f"{100 * row.steps.confidence[0]:.1f} %" in line.inner_text()
        for _ in range(row.failed_at):
            page.keyboard.press("ArrowRight")
        assert line.locator(".wrong").count() == 1
        assert page.locator("svg.curves text", has_text=f"first wrong at step {row.failed_at}").count() == 1

        page.keyboard.press("PageDown")
        assert f"id={row.id}" not in filters_of(page)
        page.keyboard.press("PageUp")
        assert filters_of(page).endswith(f"id={row.id}")


@pytest.mark.browser
def test_the_slider_shows_the_image_of_each_step(finished_split, tmp_path):
    show(str(finished_split), tmp_path, ids=[0, 1, 2], steps=True)
    with browser() as page:
        page.goto(address(tmp_path / "gallery.html", id=1))
        canvas = page.locator("dialog canvas").nth(1)

        def shown(kind):
            page.wait_for_function("([canvas, kind]) => canvas.dataset.drawn?.startsWith(kind)", arg=[element, kind])
            return canvas.screenshot()

        element = canvas.element_handle()
        last = shown("image")
        page.keyboard.press("Home")
        assert shown("steps") != last
        assert page.locator("dialog figcaption").nth(1).inner_text() == "step 0"
        page.keyboard.press("End")
        assert shown("image") == last


@pytest.mark.browser
def test_images_are_those_of_the_split_and_the_difference_is_theirs(tmp_path):
    rng = np.random.default_rng(0)
    pairs = rng.integers(60, 190, (70, 2, 24, 24, 3)).astype(np.uint8)
    rows = []
    for number, (original, image) in enumerate(pairs):
        rows.append(GalleryRow(number, 0, png_bytes(image), png_bytes(original), [[0, 1]]))
    (tmp_path / "page.html").write_text(gallery_page(Gallery("noise", ["a", "b"], ["net"], rows)))
    with browser() as page:
        page.goto(address(tmp_path / "page.html", id=66))
        original, image, difference = [drawn(page, page.locator("dialog canvas").nth(place)) for place in range(3)]
    assert np.abs(image.astype(int) - pairs[66][1]).max() <= 1
    assert np.abs(original.astype(int) - pairs[66][0]).max() <= 1
    change = np.clip(128 + 4 * (pairs[66][1].astype(int) - pairs[66][0]), 0, 255)
    assert np.abs(difference.astype(int) - change).max() <= 1


def faults(page):
    """The id and an element of each rule of WCAG AA that the page breaks."""
    from axe_playwright_python.sync_playwright import Axe  # comes with the browser's package

    violations = Axe().run(page, options=RULES).response["violations"]
    return [(violation["id"], violation["nodes"][0]["html"][:200]) for violation in violations]


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_anyone_can_read_it(report, evaluation, width, scheme):
    """WCAG AA by axe; nothing is wider than the screen."""
    with browser(width=width, height=900) as page:
        page.emulate_media(color_scheme=scheme)
        for file, filters in (("report.html", {}), ("report.html", {"id": 7})):
            page.goto("about:blank")
            page.goto(address(report / file, **filters))
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert faults(page) == [], (file, filters)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_anyone_can_read_a_gallery_and_a_diff(finished_split, tmp_path, scheme, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("show", finished_split, "--gallery", 20) == 0
    assert run("diff", "--old", LENET, "--new", "{kind: lenet}", "--images", finished_split, "--quiet") in (1, 2)
    with browser(width=390, height=900) as page:
        page.emulate_media(color_scheme=scheme)
        for file in ("gallery/gallery.html", "diff/diff/diff.html"):
            page.goto(f"file://{tmp_path / file}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            assert faults(page) == [], file


@pytest.mark.browser
def test_a_gallery_of_a_split_with_a_panel_says_nothing_undefined(tmp_path, monkeypatch):
    """The column `judges` is of the panel's votes, and no later judge."""
    monkeypatch.chdir(tmp_path)
    member = "{kind: clip, model: 'asset:mnist/clip'}"
    panel = f"{{kind: ensemble, names: [a, b], oracles: [{member}, {member}]}}"
    assert run("generate", "mnist-lenet", f"oracle={panel}", "source.limit=6", "perturb.budget=3", "-q") == 0
    assert run("show", "out", "--gallery", 6, "-q") == 0
    with browser() as page:
        page.goto(f"file://{tmp_path / 'gallery/gallery.html'}")
        assert listed(page) == 6
        text = page.locator("body").inner_text()
        assert "undefined" not in text
        assert page.locator("#filters [name=judges]").count() == 0  # nobody has judged it later


@pytest.mark.browser
def test_a_page_without_javascript_tells_all_figures(report, evaluation):
    with browser(scripts=False) as page:
        page.goto(f"file://{report / 'report.html'}")
        text = page.locator("main").text_content()
        for result in evaluation.results:
            for figure in (result.total.fmr, result.total.standard_accuracy, result.total.perturbed_accuracy):
                assert str(figure) in text
        hidden = page.locator("th.more").first
        assert not hidden.is_visible()
        page.locator("label.all").first.click()  # by CSS
        assert hidden.is_visible()
        page.locator("button.what").first.click()
        assert page.locator("[popover]:popover-open").count() == 1


@pytest.mark.browser
def test_names_are_shown_and_not_run(finished_split, tmp_path):
    rows = load_dataset("parquet", data_files=str(finished_split / "mnist/lenet-*.parquet"), split="train")
    names = [f"{HOSTILE}{digit}" for digit in range(10)]
    hostile = rows.cast_column("label", ClassLabel(names=names))
    evaluation = evaluate({HOSTILE: hostile}, {HOSTILE: f"{{kind: lenet, class_names: {json.dumps(names)}}}"})
    write_report(evaluation, tmp_path)
    with browser() as page:
        page.goto(f"file://{tmp_path / 'report.html'}#split={quote(HOSTILE)}&class=</script>&id={quote(HOSTILE)}")
        page.goto(f"file://{tmp_path / 'report.html'}")
        page.reload()
        assert page.title() == "Robustness report"
        assert page.locator("main > h2").nth(1).inner_text() == HOSTILE.replace("\uffff", r"\uffff")
        page.goto(f"file://{tmp_path / 'report.html'}#gallery")  # every row: random weights may fool nobody
        assert page.locator(".card .true").first.inner_text() == names[0].replace("\uffff", r"\uffff")
        page.locator("button.open").first.click()
        assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    text = (tmp_path / "evaluation.md").read_text()
    assert "<img" not in text.replace("\\<img", "")
    assert "![]" not in text
    lines = text.splitlines()
    place, row = next((place, line) for place, line in enumerate(lines) if "onerror" in line and line.startswith("|"))
    assert len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"(?<!\\)\|", lines[place - 1]))


@pytest.mark.browser
def test_no_script_but_ours_runs(tmp_path):
    """Were an element of theirs ever to get into a page, the page's policy would stop it."""
    page_text = render_page("base.html", title="x")
    planted = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title='ran'\">"
    (tmp_path / "page.html").write_text(page_text.replace("</main>", f"{planted}</main>"))
    with browser(may_complain=True) as page:
        page.goto(f"file://{tmp_path / 'page.html'}")
        assert page.title() == "x"


def test_the_command_show(finished_split, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("show", finished_split) == 0
    assert capsys.readouterr().out == "gallery/gallery.html\ngallery/sheet.png\n"
    chosen = ["--ids", "7,3,5", "--columns", "2", "--caption", "Three digits", "--format", "svg"]
    assert run("show", finished_split, *chosen) == 0
    assert capsys.readouterr().out == "gallery/gallery.html\ngallery/sheet.svg\n"
    assert (tmp_path / "gallery/sheet.svg").read_text().count("<image") == 6
    assert columns_of(tmp_path / "gallery/gallery.html")["id"] == [7, 3, 5]


def test_a_gallery_of_rows_that_say_little(tmp_path):
    pixels = [PILImage.fromarray(np.full((300, 200, 3), 20 * i, np.uint8)) for i in range(8)]
    for labels, feature in (([3, 1] * 4, Value("int64")), (["cat", "dog"] * 4, Value("string"))):
        features = Features({"image": Image(), "label": feature})
        Dataset.from_dict({"image": pixels, "label": labels}, features=features).to_parquet(tmp_path / "few.parquet")
        show(str(tmp_path / "few.parquet"), tmp_path / "out")
        assert len(columns_of(tmp_path / "out/gallery.html")["id"]) == 8
        assert (tmp_path / "out/sheet.png").stat().st_size > 5000
