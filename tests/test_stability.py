"""What others build on: a break of it is in CHANGELOG.md, and what will be removed says when (docs/reference/stability.md)."""

import json
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from places import ROOT

pytest.importorskip("griffe")
sys.path.insert(0, str(ROOT / "scripts"))

import public_surface
import release_notes

DEPRECATED = re.compile(r"deprecated\(\s*f?\"([^\"]*)\"")
PROPERTIES = ("properties", "default", "needed", "place", "choices", "type", "required")  # of a name, and no name
REMOVAL = re.compile(r"will be removed in (\d+)\.(\d+)\b")


def unlisted(breaks, changes):
    """Return the breaks whose name is in no line of a list of changes."""
    quoted = " ".join(re.findall(r"`([^`]*)`", changes))
    missing = []
    for line in breaks:
        *_, name = [part for part in line.partition(": ")[0].split(".") if part not in PROPERTIES]
        if not re.search(rf"(?<![\w-]){re.escape(name)}(?!\w)", quoted):
            missing.append(line)
    return missing


def test_breaks_are_listed():
    top = release_notes.sections()[0]
    listed = top.partition("### What breaks")[2].partition("\n### ")[0]
    missing = unlisted(public_surface.breaks(public_surface.released(), public_surface.surface()), listed)
    cure = "name each of these in CHANGELOG.md, in the newest version, under 'What breaks', or undo it:"
    assert not missing, "\n".join([cure, *missing])


@pytest.fixture(scope="module")
def surface():
    return public_surface.surface()


@pytest.mark.parametrize(
    ("file", "before", "after", "name"),
    [
        ("fmrgen.pyi", "def diff(old: Any, new: Any,", "def diff(before: Any, new: Any,", "fmrgen.diff"),
        ("fmrgen.pyi", "def verify_files(", "def check_files(", "fmrgen.verify_files"),
        ("commands.json", '"--margin"', '"--slack"', "commands.diff.--margin"),
        ("recipes.json", '"min_margin"', '"least_margin"', "recipes.perturb.min_margin"),
        ("recipes.json", '"default": "sign"', '"default": "plain"', "recipes.perturb.update.default"),
        ("columns.json", '"iterations"', '"steps"', "columns.iterations"),
        ("diff.schema.json", '"verdict"', '"outcome"', "diff.schema.properties.verdict"),
    ],
)
def test_a_break_is_found_until_it_is_listed(surface, file, before, after, name):
    assert before in surface[file]
    found = public_surface.breaks(surface, {**surface, file: surface[file].replace(before, after)})
    assert name in [line.partition(": ")[0] for line in found]
    assert unlisted(found, "* Something else, `iteration`, `differ`.") != []
    quoted = " ".join(f"`{line.partition(': ')[0]}`" for line in found)
    assert unlisted(found, quoted) == []


def test_what_comes_is_no_break(surface):
    more = dict(surface)
    more["fmrgen.pyi"] += "def another() -> None: ...\n"
    more["commands.json"] = json.dumps(json.loads(surface["commands.json"]) | {"another": {}})
    assert public_surface.breaks(surface, more) == []
    needed = json.loads(surface["commands.json"])
    needed["show"]["--must"] = {"place": None, "needed": True}
    assert public_surface.breaks(surface, surface | {"commands.json": json.dumps(needed)}) == [
        "commands.show.--must: is new, and needed"
    ]


def test_what_will_be_removed_says_when():
    now = tuple(map(int, version("fmrgen").split(".")[:2]))
    for path in Path(public_surface.fmrgen.__file__).parent.rglob("*.py"):
        for message in DEPRECATED.findall(path.read_text()):
            release = REMOVAL.search(message)
            assert release, f"{path}: {message}: say when: 'will be removed in 0.4'"
            assert tuple(map(int, release.groups())) > now, f"{path}: {message}: remove it now"
