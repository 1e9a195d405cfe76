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

REMOVAL = re.compile(r"will be removed in (\d+)\.(\d+)\b")


def test_breaks_are_listed():
    released = public_surface.released()
    earlier = released["breaks.md"].splitlines()
    listed = [line for line in public_surface.listed_breaks().splitlines() if line not in earlier]
    broken = public_surface.breaks(released, public_surface.surface())
    missing = public_surface.unlisted(broken, "\n".join(listed))
    cure = "add a line to CHANGELOG.md under 'What breaks' that names each of these (CONTRIBUTING: Change or remove):"
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
    broken = public_surface.breaks(surface, {**surface, file: surface[file].replace(before, after)})
    assert name in [line.partition(": ")[0] for line in broken]
    missing = public_surface.unlisted(broken, "* Something else, `iteration`, `differ`, `evaluate --margin`.")
    assert missing != []
    quoted = " ".join(line.rpartition(" (")[2].rstrip(")") for line in missing)
    assert public_surface.unlisted(broken, quoted) == []


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


@pytest.mark.parametrize(
    ("line", "changes", "is_listed"),
    [
        ("commands.show.--rows: is gone", "`show --rows` is `show --down`", True),
        ("commands.show.--rows: is gone", "`fmrgen show --rows`", True),
        ("commands.show.--rows: is gone", "`evaluate --rows`, `show`", False),
        ("commands.show: is gone", "`fmrgen show`", True),
        ("recipes.perturb.budget.default: was 50, is 5", "`perturb.budget`", True),
        ("recipes.perturb.budget.default: was 50, is 5", "`budget`", False),
        ("recipes.source/gtsrb.path: is gone", "`gtsrb.path`", True),
        ("fmrgen.generate: Parameter was removed: output → None", "`fmrgen.generate`", True),
        ("fmrgen.Evaluation.matrix: Public object was removed: x → None", "`fmrgen.generate`", False),
        ("columns.iterations: is gone", "`iterations`", True),
    ],
)
def test_a_break_is_listed_by_its_whole_name(line, changes, is_listed):
    assert (public_surface.unlisted([line], changes) == []) == is_listed


def test_what_will_be_removed_is_still_to_come():
    now = tuple(map(int, version("fmrgen").split(".")[:2]))
    for path in Path(public_surface.fmrgen.__file__).parent.rglob("*.py"):
        for release in REMOVAL.findall(path.read_text()):
            assert tuple(map(int, release)) > now, (
                f"{path}: says that it will be removed in {'.'.join(release)}: do it now"
            )
