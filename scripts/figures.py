"""Whether the figures of the documentation are those that were measured.

python scripts/figures.py                  # names pages whose figures nobody recorded, and figures without a result
python scripts/figures.py record PAGE …    # after measuring again: takes a page's figures, and HEAD as their commit
python scripts/figures.py reword PAGE …    # after changing words, options or a guide: takes no new figure
python scripts/figures.py age              # lists measurements that are older than the code behind them

PAGE is a path from the root of the repository. `docs/results/measured.yaml` has a digest of the figures of each page,
and of pages of results the command, the commit and the code behind them.
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
_NUMBER = r"\d+(?:\.\d+)?"
_FIGURE = re.compile(rf"(?<![\w.§])({_NUMBER})( ?%| points)?(?![\w.]*\d)")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_COMMON = ("5", "95", "100")  # of error rates and intervals, in words


def record_path() -> Path:
    """Return the path of what is recorded."""
    return ROOT / "docs/results/measured.yaml"


def entries() -> dict[str, Any]:
    """Return what is recorded, by the path of a page."""
    tree: dict[str, Any] = yaml.safe_load(record_path().read_text())
    return tree


def pages() -> list[str]:
    """Return the paths of the pages whose figures are recorded."""
    paths = [ROOT / "README.md", ROOT / "docs/explanation/measured.md"]
    for folder in ("results", "guides", "tutorials"):
        paths += sorted((ROOT / "docs" / folder).glob("*.md"))
    return [path.relative_to(ROOT).as_posix() for path in paths]


def figures_of(page: str) -> list[str]:
    """Return the figures of a page in their order: of results every number, of others decimals, percents, points."""
    text = (ROOT / page).read_text().replace(",", "")
    if page.startswith("docs/results/"):
        return re.findall(_NUMBER, text)
    for language, block in _BLOCK.findall(text):
        if language or page != "README.md":  # whose output is what its command prints
            text = text.replace(block, "")
    prose = re.sub(r"`[^`\n]*`|\]\([^)]*\)|Python [\d.]+", "", text)
    return _measured(prose)


def _measured(text: str) -> list[str]:
    """Return the decimals, percents and points in a text without commas."""
    return [match[1] for match in _FIGURE.finditer(text) if "." in match[1] or match[2]]


def digest(page: str) -> str:
    """Return a digest of a page's figures."""
    return hashlib.sha256(" ".join(figures_of(page)).encode()).hexdigest()[:12]


def unrecorded() -> Iterator[str]:
    """Yield a line for each page whose figures are not those that were recorded."""
    recorded = entries()
    for page in pages():
        is_result = page.startswith("docs/results/")
        if is_result and "measured" not in recorded.get(page, {}):
            yield f"{page}: no measurement in docs/results/measured.yaml: say there what gave its figures"
        elif recorded.get(page, {}).get("figures") != digest(page):
            how, verb = (
                ("measure again, then", "record") if is_result else ("if the linked results have them,", "reword")
            )
            yield f"{page}: its figures have changed: {how} python scripts/figures.py {verb} {page}"


def unsupported() -> Iterator[str]:
    """Yield a line for each figure of another page that is on no page of results of those that it links to."""
    recorded = entries()
    for page in pages():
        if page.startswith("docs/results/"):
            continue
        text = (ROOT / page).read_text()
        linked = re.findall(r"results/([\w-]+)(?:\.md|/)", text)
        supported = {*_COMMON, *map(str, recorded.get(page, {}).get("defined", ()))}
        if page == "README.md":  # shows what its command prints, which a test runs
            printed = [block for language, block in _BLOCK.findall(text) if not language]
            for number in re.findall(_NUMBER, "".join(printed)):
                supported |= {number, f"{float(number):.1f}", f"{float(number):.0f}"}
        for name in linked:
            supported |= {*figures_of(f"docs/results/{name}.md")}
        for figure in dict.fromkeys(figures_of(page)):
            if figure not in supported:
                places = ", ".join(dict.fromkeys(linked)) or "none"
                yield f"{page}: {figure} is on no page of results that it links to ({places}): link the one that has it"


def newer_commits(measured: dict[str, Any]) -> list[str] | None:
    """Return the later commits that changed the code behind a measurement; None where the history is not at hand."""
    since = measured.get("holds_at", measured["commit"])
    log = ["git", "log", "--format=%h %s", f"{since}..HEAD", "--", *measured["of"]]
    done = subprocess.run(log, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode == 0 else None


def outdated() -> Iterator[str]:
    """Yield a line for each measurement that is older than the code behind it."""
    for page, entry in entries().items():
        for measured in entry.get("measured", ()):
            if not measured["of"]:  # of a study whose code is in the history alone
                continue
            newer = newer_commits(measured)
            since = measured.get("holds_at", measured["commit"])
            if newer is None:
                yield f"{page}: commit {since} is not at hand: git fetch --unshallow, unless a squash merge dropped it"
            elif newer:
                yield f"{page}: {measured['command']}: {len(newer)} commits since {since}, the last: {newer[0]}"


def new_figures(page: str) -> list[str]:
    """Return the decimals and percents of a page that its last commit does not have."""
    before = subprocess.run(["git", "show", f"HEAD:{page}"], cwd=ROOT, capture_output=True, text=True).stdout
    old = {*re.findall(_NUMBER, before.replace(",", ""))}
    figures = _measured((ROOT / page).read_text().replace(",", ""))
    return [figure for figure in dict.fromkeys(figures) if figure not in old]


def record(names: list[str], commit: str | None) -> None:
    """Take the figures of pages as they are; with a commit, as measured there."""
    tree = entries()
    for page in names:
        if page not in pages():
            sys.exit(f"{page}: is no page with figures; name it from the root, such as docs/guides/diff.md")
        is_result = page.startswith("docs/results/")
        if is_result and page not in tree:
            sys.exit(f"{page}: say in docs/results/measured.yaml first what gave its figures")
        if is_result and commit is None and (new := new_figures(page)):
            sys.exit(f"{page}: {', '.join(new)}: new figures; measure, then python scripts/figures.py record {page}")
        if commit is not None and not is_result:
            sys.exit(f"{page}: measures nothing; record the page of results, then reword this one")
        tree.setdefault(page, {})["figures"] = digest(page)
        for measured in tree[page].get("measured", ()) if commit is not None else ():
            measured["commit"] = commit
            measured.pop("holds_at", None)
            measured.pop("because", None)
    comments = [line for line in record_path().read_text().splitlines() if line.startswith("#")]
    body = yaml.safe_dump(tree, sort_keys=True, width=1000, allow_unicode=True)
    record_path().write_text("\n".join(comments) + "\n" + body)


def main(arguments: list[str]) -> int:
    """Do what is asked, and return the exit status: 1 where something does not hold."""
    what, *names = arguments or ["check"]
    if what == "record":
        git = ["git", "rev-parse", "--short", "HEAD"]
        record(names, subprocess.run(git, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
        return 0
    if what == "reword":
        record(names, None)
        return 0
    lines = [*outdated()] if what == "age" else [*unrecorded(), *unsupported()]
    print("\n".join(lines) or "nothing to say against them")
    return min(len(lines), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
