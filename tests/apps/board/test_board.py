"""The leaderboard's site: what stands in it, and what a browser makes of it."""

import base64
import csv
import json
import os
import re
import shutil
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from commands import fmrgen, run, upload
from watched import browser

from fmrgen.apps.board.collect import _merged, collect
from fmrgen.apps.board.site import _file_names, write_site
from fmrgen.errors import UserError
from fmrgen.files import fingerprint
from fmrgen.publish.card import write_card
from fmrgen.storage.provenance import parse_provenance

HOSTILE = "</script><img src=x onerror=alert(1)>=1+1"


def board_folder(finished_split, folder, splits, results, **changes):
    """The small files of a dataset folder with made-up splits: copies of a real one's, and results on them."""
    told = json.loads((finished_split / "provenance/mnist/lenet.json").read_text())
    for number in range(splits):
        name = f"net{number}"
        own = json.loads(json.dumps(told).replace("mnist/lenet-", f"mnist/{name}-"))
        own["recipe"]["output"]["split"] = name
        own["recipe"]["classifier"] = {"kind": "timm", "model": f"{name}-{folder.name}"}
        own["fingerprint"] = f"{number:016x}"
        own["files"] = {file: fingerprint([str(folder), sha256]) for file, sha256 in own["files"].items()}
        fmr = 50 + number
        own["summary"]["fmr"] = {"value": fmr, "low": fmr - 1.5, "high": fmr + 1.5}
        for key, value in changes.items():
            section, _, entry = key.partition("__")
            own["recipe"][section][entry] = value
        path = folder / f"provenance/mnist/{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(own))
        (folder / "pictures/mnist").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(finished_split / "pictures/mnist/lenet.png", folder / f"pictures/mnist/{name}.png")
        files = parse_provenance(own, name).files_digest
        for other in range(results):
            figure = {"value": 60.0 + other, "low": 58.0 + other, "high": 62.0 + other}
            entry = {"schema": "fmrgen-result/1", "files": files, "classifier": f"net{other}", "conditioned": False}
            entry |= {"fmr": figure, "standard_accuracy": figure, "perturbed_accuracy": figure}
            place = folder / f"results/mnist/{name}/net{other}.json"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(entry))
    (folder / "README.md").write_text("---\n{}\n---\n")
    return folder


@pytest.fixture
def site(finished_split, tmp_path):
    one = board_folder(finished_split, tmp_path / "one", 4, 2)
    other = board_folder(finished_split, tmp_path / "other", 2, 0, perturb__step_size=0.7)
    families = collect([str(one), str(other)])
    write_site(families, tmp_path / "site", "Digits")
    return tmp_path / "site"


def test_protocols_are_kept_apart_and_ranks_are_as_wide_as_chance(finished_split, tmp_path):
    one = board_folder(finished_split, tmp_path / "one", 6, 0)
    twin = board_folder(finished_split, tmp_path / "twin", 1, 0)
    steps = board_folder(finished_split, tmp_path / "steps", 2, 0, perturb__step_size=0.7)
    families = collect([str(one), str(twin), str(steps)])
    assert [len(family.splits) for family in families] == [7, 2]  # of one protocol, whatever repo they are in
    places = families[0].places
    assert places["one:mnist/net5"] == (1, 4)  # its interval meets those of the next three
    assert places["one:mnist/net0"][1] == 7
    with pytest.raises(UserError, match="contains no finished split"):
        collect([str(tmp_path)])


def test_a_split_in_two_places_stands_once(finished_split, tmp_path):
    local = board_folder(finished_split, tmp_path / "out", 2, 1)
    shutil.copytree(local, tmp_path / "pushed")
    for folder, name in ((local, "mine"), (tmp_path / "pushed", "theirs")):
        entry = folder / "results/mnist/net0/net0.json"
        told = json.loads(entry.read_text()) | {"classifier": name, "fmr": {"value": 70.0, "low": 69.0, "high": 71.0}}
        entry.with_name("more.json").write_text(json.dumps(told))
    (family,) = collect([str(local), str(tmp_path / "pushed")])
    assert [split.name for split in family.splits] == ["out:mnist/net0", "out:mnist/net1"]
    assert family.places == {"out:mnist/net1": (1, 2), "out:mnist/net0": (1, 2)}
    assert {entry.classifier for entry in family.splits[0].entries} == {"net0", "mine", "theirs"}
    assert family.splits[0].entries[-1].classifier == "net0"
    own = tmp_path / "pushed/results/mnist/net1/own.json"
    told = json.loads(own.with_name("net0.json").read_text())
    own.write_text(json.dumps(told | {"classifier": "ours", "conditioned": True}))
    pushed = [
        replace(split, commit="a" * 40)
        for (family,) in [collect([str(tmp_path / "pushed")])]
        for split in family.splits
    ]
    one = _merged(family.splits[1], pushed[1])
    assert (one.commit, one.classifier) == ("a" * 40, "ours")


def test_what_is_at_chance_has_no_rank(finished_split, tmp_path):
    folder = board_folder(finished_split, tmp_path / "one", 3, 2)
    shutil.copytree(finished_split / "mnist", folder / "mnist")
    chance = {"value": 11.0, "low": 9.5, "high": 14.0}
    own = folder / "provenance/mnist/net2.json"  # which has the highest FMR
    told = json.loads(own.read_text())
    told["summary"]["standard_accuracy"] = chance
    own.write_text(json.dumps(told))
    other = folder / "results/mnist/net0/net1.json"
    other.write_text(json.dumps(json.loads(other.read_text()) | {"standard_accuracy": chance}))
    (family,) = collect([str(folder)])
    assert [split.classifier for split in family.ranked()] == ["net1", "net0", "net2"]
    assert family.places == {"one:mnist/net1": (1, 2), "one:mnist/net0": (1, 2), "one:mnist/net2": None}
    assert [entry.classifier for entry in family.splits[0].entries] == ["net0", "net1"]
    write_site([family], tmp_path / "site", "Digits")
    index = (tmp_path / "site/index.html").read_text()
    assert index.index("† Hardly better than chance on the originals, and not ranked: net2.") < index.index("<table")
    assert index.count('<td data-sort="">') == 2  # of net2 on its own split, and of net1 on that of net0
    page = (tmp_path / "site/splits/one-mnist-net0.html").read_text()
    assert "† Hardly better than chance on the originals: net1." in page
    rows = json.loads((tmp_path / "site/leaderboard.json").read_text())["rows"]
    assert {(row["model"], row["split"]) for row in rows if row["at_chance"]} == {
        ("net2", "one:mnist/net2"),
        ("net1", "one:mnist/net0"),
    }
    write_card(folder)
    card = (folder / "README.md").read_text()
    assert "† Hardly better than chance on the originals, so that FMR says nothing: net1.\n\n| classifier |" in card
    assert "| net1 † |" in card


def test_two_places_of_one_name(finished_split, tmp_path):
    better = board_folder(finished_split, tmp_path / "a/out", 2, 0)
    other = board_folder(finished_split, tmp_path / "b/out", 1, 0)
    (family,) = collect([str(better), str(other)])
    assert {name: place[0] for name, place in family.places.items()} == {
        f"{better}:mnist/net1": 1,
        f"{better}:mnist/net0": 1,
        f"{other}:mnist/net0": 1,
    }
    write_site([family], tmp_path / "site", "Digits")
    assert len(list((tmp_path / "site/splits").glob("*.html"))) == 3
    with pytest.raises(UserError, match="out/: is the same as .*out; name it once"):
        collect([str(better), f"{better}/"])


def test_figures_that_are_no_numbers_are_passed_over(finished_split, tmp_path):
    folder = board_folder(finished_split, tmp_path / "one", 1, 2)
    entry = next(folder.rglob("results/**/*.json"))
    for number in ("NaN", "Infinity", "1e999"):
        told = json.loads(entry.read_text()) | {"fmr": {"value": "?", "low": 1.0, "high": 2.0}}
        entry.write_text(json.dumps(told).replace('"?"', number))
        (family,) = collect([str(folder)])
        assert len(family.splits[0].entries) == 1
        write_site([family], tmp_path / "site", "Digits")
        told["fmr"]["value"] = 60.0
        entry.write_text(json.dumps(told))


def test_the_data_and_the_pages(site):
    rows = json.loads((site / "leaderboard.json").read_text())["rows"]
    assert len(rows) == 4 + 4 * 2 + 2
    table = list(csv.DictReader((site / "leaderboard.csv").open()))
    assert [row["model"] for row in table] == [row["model"] for row in rows]
    assert {row["protocol"] for row in rows} == {found["protocol"] for found in table}
    assert len({row["protocol"] for row in rows}) == 2
    index = (site / "index.html").read_text()
    assert index.count('<section id="') == 2
    assert "net3" in index
    assert "fmrgen push out you/robustness" in index
    assert len(list((site / "splits").glob("*.html"))) == 6
    assert len(list((site / "models").glob("*.html"))) == 4
    page = next((site / "splits").glob("one-mnist-net3*.html")).read_text()
    assert "data:image/png;base64" in page
    assert "step size" in page


class Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.ids = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [found["href"]] if tag == "a" and "href" in found else []
        self.ids += [found["id"]] if "id" in found else []


def test_every_link_leads_somewhere(site):
    pages = {path: Links(path.read_text()) for path in site.rglob("*.html")}
    checked = 0
    for path, page in pages.items():
        assert len(page.ids) == len(set(page.ids)), path
        for link in page.links:
            if "://" in link:
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.exists(), (path, link)
            assert not anchor or anchor in pages[target].ids, (path, link)
            checked += 1
    assert checked > 30


def test_names_are_text(finished_split, tmp_path):
    folder = board_folder(finished_split, tmp_path / "one", 1, 1)
    entry = next(folder.rglob("results/**/*.json"))
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"classifier": HOSTILE}))
    second = json.loads(entry.read_text()) | {"classifier": "=cmd()"}
    entry.with_name("formula.json").write_text(json.dumps(second))
    write_site(collect([str(folder)]), tmp_path / "site", HOSTILE)
    for path in (tmp_path / "site").rglob("*.html"):
        assert "<img src=x" not in path.read_text()
        assert path.resolve().is_relative_to(tmp_path / "site")
    assert "'=cmd()" in (tmp_path / "site/leaderboard.csv").read_text()


def test_names_turn_no_direction_and_can_be_seen(finished_split, tmp_path):
    folder = board_folder(finished_split, tmp_path / "one", 1, 1)
    shutil.copytree(finished_split / "mnist", folder / "mnist")
    path = folder / "provenance/mnist/net0.json"
    told = json.loads(path.read_text())
    told["labels"][3] = "three\u202eeerht"
    told["recipe"]["oracle"]["prompts"] = ["a\u2066b {class}"]
    path.write_text(json.dumps(told))
    entry = next(folder.rglob("results/**/*.json"))
    for number, name in enumerate(("net\u202eten", "", "  ", "\u200d", "模型")):
        told = json.loads(entry.read_text()) | {"classifier": name}
        entry.with_name(f"{number}.json").write_text(json.dumps(told))
    (family,) = collect([str(folder)])
    write_site([family], tmp_path / "site", "Digits")
    write_card(folder)
    pages = [*(tmp_path / "site").rglob("*.html"), folder / "README.md"]
    for path in pages:
        text = path.read_text()
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", text), path
        assert not re.search(r"<a [^>]*>\s*</a>", text), path
    assert r"net\u202eten" in (tmp_path / "site/index.html").read_text()
    assert {entry.classifier for entry in family.splits[0].entries} == {"net0", "net\u202eten", "模型"}
    assert r"| net\\u202eten |" in (folder / "README.md").read_text()


def test_the_cost_of_many_results_of_strangers_is_linear(finished_split, tmp_path, monkeypatch):
    folder = board_folder(finished_split, tmp_path / "one", 1, 1)
    entry = next(folder.rglob("results/**/*.json"))
    told = json.loads(entry.read_text())
    monkeypatch.setattr(os, "fsync", lambda *_: pytest.fail("waits for the disk"))
    begun = time.process_time()
    names = [f"model-{number}" for number in range(200)] + ["模" * number for number in range(1, 200)]
    for number, name in enumerate(names):
        entry.with_name(f"{number}.json").write_text(json.dumps(told | {"classifier": name}))
    written = write_site(collect([str(folder)]), tmp_path / "site", "Digits")
    assert len(written) == len({*written}) == 1 + 1 + len(names) + 1 + 2  # net0 was there
    assert time.process_time() - begun < 10
    index = (tmp_path / "site/index.html").read_text()
    assert "The 50 models with the most results; 350 more are on the splits' pages." in index
    begun = time.process_time()
    assert len({*_file_names([chr(number) for number in range(0x4E00, 0x9E00)]).values()}) == 0x5000
    assert time.process_time() - begun < 2


def test_a_site_is_written_through_no_link(finished_split, tmp_path):
    folder = board_folder(finished_split, tmp_path / "one", 1, 1)
    (tmp_path / "outside").mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "site/models").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match=r"site/models/.*\.html: is a link that leads out of the folder"):
        write_site(collect([str(folder)]), tmp_path / "site", "Digits")
    assert [*(tmp_path / "outside").iterdir()] == []
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["models"]


@pytest.mark.slow
def test_three_repos_on_the_hub_and_a_space(finished_split, hub, tmp_path):
    repos = []
    for number, (splits, results) in enumerate(((10, 7), (10, 7), (10, 6))):
        step = 0.1 if number < 2 else 0.7
        folder = board_folder(finished_split, tmp_path / f"r{number}", splits, results, perturb__step_size=step)
        (folder / "pictures/mnist/film.png").write_bytes(bytes((8 << 20) + 1))
        upload(hub, folder, f"someone/r{number}")
        repos.append(f"someone/r{number}")
    entry = {"dataset": {"id": "someone/r0", "task_id": "mnist-net1"}, "value": 61.5, "notes": "FMR <b>61.5</b>"}
    hub.world().create("models/team/net", False)
    junk = [entry | {"value": value, "notes": "junk"} for value in ("best", float("inf"), 10**400, None, True)]
    content = base64.b64encode(yaml.safe_dump([entry, *junk]).encode()).decode()
    file = {"path": ".eval_results/x.yaml", "content": content}
    hub.world().commit("models/team/net", "main", [{"key": "file", "value": file}])
    done = fmrgen("leaderboard", *repos, "-o", tmp_path / "site", "--push", "board", **hub.environment)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "site/leaderboard.json").read_text())["rows"]
    assert len(rows) == 30 + 200
    assert {len(row["commit"]) for row in rows} == {40}
    fetched = [path.name for path in Path(hub.environment["HF_HOME"]).rglob("*.png")]
    assert "net1.png" in fetched
    assert "film.png" not in fetched  # too large to be a picture of ours
    index = (tmp_path / "site/index.html").read_text()
    assert "models&#39; own repos: someone/r0" in index or "models' own repos: someone/r0" in index
    assert "FMR &lt;b&gt;61.5" in index
    assert "junk" not in index
    assert "own repos: someone/r1" not in index
    there = hub.world().files("spaces/someone/board")
    assert {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.*")} <= set(there)
    card = (hub.world().blobs / there["README.md"]).read_text()
    assert "sdk: static" in card
    again = fmrgen("leaderboard", *repos, "-o", tmp_path / "site", "--push", "board", **hub.environment)
    assert again.returncode == 0, again.stderr
    gone = fmrgen("leaderboard", "someone/nothing", "-o", tmp_path / "site", **hub.environment)
    assert (gone.returncode, gone.stderr.count("\n")) == (2, 1), gone.stderr


@pytest.mark.browser
def test_in_a_browser(site):
    """Sorting, filtering, permalinks, a phone, no script, and nothing that axe finds."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with browser() as page:
        page.goto(f"file://{site}/index.html")
        first = page.locator("table.sortable tbody tr").first
        anchor = first.get_attribute("id")
        assert first.get_attribute("data-model") == "net3"
        for _ in range(2):
            page.get_by_role("button", name="FMR").first.click()
        assert page.locator("table.sortable tbody tr").first.get_attribute("data-model") == "net0"
        page.locator("#search").fill("net2")
        assert page.locator("table.sortable tbody tr:visible").count() == 1
        assert page.locator("#count").inner_text() == "1 model shown"
        page.locator("#search").fill("")
        page.locator("#protocol").select_option(index=2)
        assert page.locator("table.sortable tbody tr:visible").count() == 2
        page.goto(f"file://{site}/index.html#{anchor}")
        assert page.locator("tr:target").count() == 1
        pages = [site / "index.html", *list((site / "splits").glob("*"))[:1], *list((site / "models").glob("*"))[:1]]
        for size in ({"width": 1200, "height": 800}, {"width": 375, "height": 700}):
            page.set_viewport_size(size)
            for path in pages:
                page.goto(f"file://{path}")
                found = axe.run(page).response["violations"]
                assert found == [], [(one["id"], one["nodes"][0]["html"]) for one in found]
                assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], path
        plain = page.context.browser.new_context(java_script_enabled=False).new_page()
        plain.goto(f"file://{site}/index.html")
        assert plain.locator("table.sortable tbody tr:visible").count() == 6
        assert plain.locator("#filters:visible").count() == 0


def test_bad_input(tmp_path, capsys):
    assert run("leaderboard", tmp_path / "gone" / "x" / "y", "-o", tmp_path / "s") == 2
    assert run("leaderboard", tmp_path, "-o", tmp_path / "s", "--public") == 2
    assert "--public only applies with --push SPACE" in capsys.readouterr().err
    assert not re.search("Traceback", capsys.readouterr().err)
    assert not Path(tmp_path / "s").exists()
