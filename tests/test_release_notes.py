"""A release is refused where its files disagree, or a name is still to be filled in."""

import sys

import pytest
from places import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import release_notes

FILES = {
    "pyproject.toml": '[project]\nversion = "1.2.0"\nauthors = [{name = "Ann Example"}]\n',
    "CITATION.cff": "title: x\nversion: 1.2.0\ndate-released: 2026-12-01\nauthors:\n  - name: Ann Example\n",
    ".zenodo.json": '{"creators": [{"name": "Example, Ann"}]}',
    "CHANGELOG.md": "# Changelog\n\n## 1.2.0 (2026-12-01)\n\n### In short\n\n* One.\n\n### What breaks\n\n* Two.\n\n### Added\n\n"
    "* Three.\n\n## 1.1.0 (2026-11-01)\n",
    "MAINTAINERS.md": "Ann Example, ann@example.com\n",
    "paper.md": "Ann Example\n",
}


@pytest.fixture
def ready(tmp_path, monkeypatch):
    """A checkout that is ready for the release of its version; returns its folder and its tag."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(release_notes, "ROOT", tmp_path)
    return tmp_path, "v1.2.0"


def change(path, before, after):
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def test_notes_are_what_is_new_in_short_and_what_breaks(ready, capsys):
    _, tag = ready
    release_notes.main([tag])
    notes = capsys.readouterr().out
    assert notes.startswith("### In short\n\n* One.\n\n### What breaks\n\n* Two.\n")
    assert "Three" not in notes
    assert f"/blob/{tag}/CHANGELOG.md" in notes


@pytest.mark.parametrize(
    ("file", "before", "after", "line"),
    [
        ("CHANGELOG.md", " (2026-12-01)", ", unreleased", "CHANGELOG.md has no section"),
        ("CITATION.cff", "\nversion: ", "\nversion: 9.", "CITATION.cff does not say 'version: "),
        ("CITATION.cff", "\ndate-released: 2026-12-01", "", "CITATION.cff does not say 'date-released: 2026-12-01'"),
        ("CITATION.cff", "Ann Example", "The fmrgen authors", "CITATION.cff still says 'The fmrgen authors'"),
        (".zenodo.json", "Example, Ann", "The fmrgen authors", ".zenodo.json still says"),
        ("MAINTAINERS.md", "ann@example.com", "*address*", "MAINTAINERS.md still says"),
    ],
)
def test_files_that_disagree_are_named(ready, file, before, after, line):
    folder, tag = ready
    change(folder / file, before, after)
    with pytest.raises(SystemExit, match=line):
        release_notes.main([tag])
