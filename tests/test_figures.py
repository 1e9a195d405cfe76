"""The figures of the documentation: each is recorded with what gave it, and README's are those of its command."""

import re
import subprocess
import sys

import pytest
from commands import succeeded
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


@pytest.mark.nightly
def test_the_figures_of_readme_are_those_of_its_command(tmp_path):
    done = succeeded("generate", "mnist-lenet", "--output", "out", cwd=tmp_path)
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
