"""Whether the figures of the documentation are those that were measured, and of code that is still the same.

python scripts/figures.py                  # lists figures without a measurement, and those of older code
python scripts/figures.py record PAGE …    # after measuring again: takes the page's figures, and HEAD as the commit
python scripts/figures.py reword PAGE …    # after changing words or options: takes the numbers, and no new commit

`docs/results/measured.yaml` names the command, the commit and the code behind each page; guides repeat these figures.
"""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs/results"
RECORD = RESULTS / "measured.yaml"
_NUMBER = r"\d+(?:\.\d+)?"
_FIGURE = re.compile(rf"(?<![\w.§])({_NUMBER})( ?%| points)?(?![\w.]*\d)")


def entries() -> dict[str, Any]:
    """Return what is recorded, by the path of a page relative to docs/results."""
    tree: dict[str, Any] = yaml.safe_load(RECORD.read_text())
    return tree


def digest(text: str) -> str:
    """Return a digest of a page's numbers, in their order."""
    numbers = re.findall(_NUMBER, text.replace(",", ""))
    return hashlib.sha256(" ".join(numbers).encode()).hexdigest()[:12]


def unrecorded() -> Iterator[str]:
    """Yield a line for each page whose figures are not those that were recorded."""
    recorded = entries()
    for path in [ROOT / "README.md", *sorted(RESULTS.glob("*.md"))]:
        name = "../../README.md" if path.name == "README.md" else path.name
        cure = f"measure again, then python scripts/figures.py record {name} (reword, if no measured one did)"
        if name not in recorded:
            yield f"{name}: no measurement in docs/results/measured.yaml: say what gave its figures"
        elif recorded[name].get("figures") != digest(path.read_text()):
            yield f"{name}: its figures have changed: {cure}"


def unsupported() -> Iterator[str]:
    """Yield a line for each figure of a guide, a tutorial or README that no page of results has."""
    supported: set[str] = set()
    for path in RESULTS.glob("*.md"):
        supported |= {*re.findall(_NUMBER, path.read_text().replace(",", ""))}
    pages = [ROOT / "README.md", *(ROOT / "docs/guides").glob("*.md"), *(ROOT / "docs/tutorials").glob("*.md")]
    for path in sorted(pages):
        text = re.sub(r"```.*?```|`[^`\n]*`|\]\([^)]*\)|Python [\d.]+", "", path.read_text(), flags=re.DOTALL)
        for match in _FIGURE.finditer(text.replace(",", "")):
            is_measured = "." in match[1] or match[2]
            if is_measured and match[1] not in supported:
                where = path.relative_to(ROOT)
                yield f"{where}: {match[0]!r} is on no page of docs/results: put it there with what gave it"


def newer_commits(measured: dict[str, Any]) -> list[str] | None:
    """Return the later commits that changed the code behind a measurement; None where the history is not at hand."""
    since = measured.get("holds_at", measured["commit"])
    log = ["git", "log", "--format=%h %s", f"{since}..HEAD", "--", *measured["of"]]
    done = subprocess.run(log, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode == 0 else None


def outdated() -> Iterator[str]:
    """Yield a line for each measurement that is older than the code behind it."""
    for name, entry in entries().items():
        for measured in entry["measured"]:
            newer = newer_commits(measured)
            if newer is None:
                sys.exit(f"{name}: commit {measured['commit']} is not at hand: git fetch --unshallow")
            if newer:
                since = measured.get("holds_at", measured["commit"])
                yield f"{name}: {measured['command']}: {len(newer)} commits since {since}, the last: {newer[0]}"


def record(names: list[str], commit: str | None) -> None:
    """Take the figures of pages as they are; with a commit, as measured there."""
    tree = entries()
    for name in names:
        if name not in tree:
            sys.exit(f"{name}: name what gave its figures in docs/results/measured.yaml first")
        tree[name]["figures"] = digest((RESULTS / name).read_text())
        for measured in tree[name]["measured"] if commit is not None else []:
            measured["commit"] = commit
            measured.pop("holds_at", None)
            measured.pop("because", None)
    comments = [line for line in RECORD.read_text().splitlines() if line.startswith("#")]
    body = yaml.safe_dump(tree, sort_keys=False, width=1000, allow_unicode=True)
    RECORD.write_text("\n".join(comments) + "\n" + body)


def main(arguments: list[str]) -> int:
    """Print what does not hold; the exit status is 1 if there is anything."""
    if arguments[:1] == ["record"]:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
        )
        record(arguments[1:], head.stdout.strip())
        return 0
    if arguments[:1] == ["reword"]:
        record(arguments[1:], None)
        return 0
    lines = [*unrecorded(), *unsupported(), *outdated()]
    print("\n".join(lines) or "every figure is recorded, and newer than what it measures")
    return min(len(lines), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
