"""The figures of the documentation: each is recorded with what gave it, and README's are those of its command."""

import re
import subprocess
import sys

import pytest
from places import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import figures


def test_every_figure_is_recorded():
    lines = [*figures.unrecorded(), *figures.unsupported()]
    assert not lines, "\n".join(["", *lines])


def copy(tmp_path, monkeypatch):
    """Lets the script read a copy of the documentation."""
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), figures.RECORD]:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "RESULTS", tmp_path / "docs/results")
    monkeypatch.setattr(figures, "RECORD", tmp_path / "docs/results/measured.yaml")


@pytest.mark.parametrize(
    ("page", "before", "after", "line"),
    [
        ("README.md", "79.68 %", "89.68 %", "../../README.md: its figures have changed"),
        ("docs/results/reality.md", "0.04", "0.40", "reality.md: its figures have changed"),
        (
            "docs/guides/diff.md",
            "## ",
            "It finds 98.76 % of them.\n\n## ",
            "docs/guides/diff.md: '98.76 %' is on no page",
        ),
    ],
)
def test_a_changed_figure_is_found(page, before, after, line, tmp_path, monkeypatch):
    copy(tmp_path, monkeypatch)
    path = tmp_path / page
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after, 1))
    assert [said for said in [*figures.unrecorded(), *figures.unsupported()] if said.startswith(line)]
    figures.record(["reality.md", "../../README.md"], "abc1234")
    assert list(figures.unrecorded()) == []
    assert figures.entries()["reality.md"]["measured"][0]["commit"] == "abc1234"


def test_a_page_without_a_measurement_is_found(tmp_path, monkeypatch):
    copy(tmp_path, monkeypatch)
    (tmp_path / "docs/results/new.md").write_text("FMR is 12.3 %.")
    assert [*figures.unrecorded()] == [
        "new.md: no measurement in docs/results/measured.yaml: say what gave its figures"
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
        for there, here in zip(*numbers, strict=True):
            # On another CPU one or two rows of 1,000 differ; random steps are taken of 64.
            allowed = 3 if "random" in name or "." not in there else 0.5
            assert abs(float(there) - float(here)) <= allowed, name
