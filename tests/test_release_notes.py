"""A release is refused where its files disagree, or a name is still to be filled in."""

import shutil
import sys

import pytest
from places import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import release_notes

FILES = ("pyproject.toml", "CITATION.cff", "CHANGELOG.md", "MAINTAINERS.md", "paper.md")


@pytest.fixture
def ready(tmp_path, monkeypatch):
    """A checkout that is ready for the release of its version; returns its folder and its tag."""
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    version = (ROOT / "pyproject.toml").read_text().partition('\nversion = "')[2].partition('"')[0]
    change(tmp_path / "CHANGELOG.md", f"## {version}, unreleased", f"## {version} (2026-12-01)")
    for name, blank in release_notes._BLANKS.items():
        change(tmp_path / name, blank, "Ann Example")
    monkeypatch.setattr(release_notes, "ROOT", tmp_path)
    return tmp_path, f"v{version}"


def change(path, before, after):
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def test_notes_are_what_is_new_in_short_and_what_breaks(ready, capsys):
    _, tag = ready
    release_notes.main([tag])
    notes = capsys.readouterr().out
    assert notes.startswith("### In short")
    assert "### What breaks" in notes
    assert "### Added" not in notes
    assert f"/blob/{tag}/CHANGELOG.md" in notes


@pytest.mark.parametrize(
    ("file", "before", "after", "line"),
    [
        ("CHANGELOG.md", " (2026-12-01)", ", unreleased", "CHANGELOG.md has no section"),
        ("CHANGELOG.md", " (2026-12-01)", " (2026-99-99)", "CHANGELOG.md has no section"),
        ("CITATION.cff", "\nversion: ", "\nversion: 9.", "CITATION.cff does not say 'version: "),
        ("MAINTAINERS.md", "Ann Example", "*the owner's name*", "MAINTAINERS.md still says"),
        ("paper.md", "Ann Example", "To be filled in", "paper.md still says 'To be filled in'"),
    ],
)
def test_files_that_disagree_are_named(ready, file, before, after, line):
    folder, tag = ready
    change(folder / file, before, after)
    with pytest.raises(SystemExit, match=line):
        release_notes.main([tag])


def test_a_wrong_tag_or_none_is_named(ready):
    with pytest.raises(SystemExit, match=r"the tag is v9\.9\.9, and pyproject\.toml says"):
        release_notes.main(["v9.9.9"])
    with pytest.raises(SystemExit, match=r"name the tag, such as v0\.2\.0"):
        release_notes.main([])
