"""The figures of the documentation: each is recorded with what gave it, and README's are those of its command."""

import re
import subprocess
import sys

import pytest
from places import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import figures


def said():
    return [*figures.unrecorded(), *figures.unsupported()]


def test_every_figure_is_recorded():
    assert not said(), "\n".join(["", *said()])


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """Lets the script read a copy of the documentation, whose figures are recorded as they are."""
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), figures.record_path()]:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "Begin"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    figures.record(figures.pages(), None)
    return tmp_path


@pytest.mark.parametrize(
    ("page", "before", "after", "line"),
    [
        ("README.md", "79.68 %", "89.68 %", "README.md: its figures have changed: if the linked results have them,"),
        (
            "docs/results/reality.md",
            "0.04",
            "0.777",
            "docs/results/reality.md: its figures have changed: measure again",
        ),
        (
            "docs/guides/diff.md",
            "## ",
            "It finds 98.76 % of them.\n\n## ",
            "docs/guides/diff.md: 98.76 is on no page of",
        ),
    ],
)
def test_a_changed_figure_is_found(page, before, after, line, pages):
    path = pages / page
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after, 1))
    assert [text for text in said() if text.startswith(line)]
    assert all(text.startswith(page) for text in said())


def test_a_figure_that_was_measured_again_is_taken(pages):
    page = "docs/results/reality.md"
    (pages / page).write_text((pages / page).read_text().replace("0.04", "0.777", 1))
    with pytest.raises(SystemExit, match="0.777: new figures; measure, then python scripts/figures.py record"):
        figures.record([page], None)
    figures.record([page], "abc1234")
    assert said() == []
    assert figures.entries()[page]["measured"][0]["commit"] == "abc1234"


def test_a_guide_takes_no_figure_that_is_not_measured(pages):
    page = "docs/guides/diff.md"
    (pages / page).write_text((pages / page).read_text() + "\nIt finds 98.76 % of them.\n")
    figures.record([page], None)
    (line,) = said()
    assert "98.76 is on no page of results that it links to (" in line
    with pytest.raises(SystemExit, match="measures nothing; record the page of results"):
        figures.record([page], "abc1234")
    with pytest.raises(SystemExit, match="name it from the root, such as docs/guides/diff.md"):
        figures.record(["diff.md"], None)


def test_a_page_without_a_measurement_is_found(pages):
    (pages / "docs/results/new.md").write_text("FMR is 12.3 %.")
    assert said() == [
        "docs/results/new.md: no measurement in docs/results/measured.yaml: say there what gave its figures"
    ]


def test_code_that_changed_later_is_found(tmp_path, monkeypatch):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]

    def commit(text):
        (tmp_path / "code.py").write_text(text)
        subprocess.run([*git, "add", "code.py"], cwd=tmp_path, check=True)
        subprocess.run([*git, "commit", "-qm", f"Make it {text}"], cwd=tmp_path, check=True)
        done = subprocess.run([*git, "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    first = commit("slow")
    assert figures.newer_commits({"commit": first, "of": ["code.py"]}) == []
    second = commit("quick")
    assert figures.newer_commits({"commit": first, "of": ["code.py"]})[0].endswith(" Make it quick")
    assert figures.newer_commits({"commit": first, "holds_at": second, "of": ["code.py"]}) == []
    assert figures.newer_commits({"commit": "0" * 40, "of": ["code.py"]}) is None


@pytest.mark.slow
def test_the_figures_of_readme_are_those_of_its_command(tmp_path):
    from commands import fmrgen

    done = fmrgen("generate", "mnist-lenet", "--output", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = re.compile(r"│ (\S.*?) +│ (\S.*?) +│")
    shown = dict(table.findall((ROOT / "README.md").read_text()))
    printed = dict(table.findall(done.stdout))
    assert shown.keys() <= printed.keys()
    for name, value in shown.items():
        numbers = [re.findall(r"-?\d+\.?\d*", text) for text in (value, printed[name])]
        for shown_value, printed_value in zip(*numbers, strict=True):
            # On another CPU one or two rows of 1,000 differ; random steps are taken of 64.
            allowed = 3 if "random" in name or "." not in shown_value else 0.5
            assert abs(float(shown_value) - float(printed_value)) <= allowed, name
