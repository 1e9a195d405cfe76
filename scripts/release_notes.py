"""Prints what CHANGELOG.md says of a release in short, and what breaks: `python scripts/release_notes.py v0.2.0`.

Fails where tag, pyproject.toml, CITATION.cff and CHANGELOG.md do not name one version, the section has no date, or a
name is still to be filled in.
"""

import re
import sys
import tomllib
from contextlib import suppress
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parent.parent
_REPO = "https://github.com/fmrgen/fmrgen"
_BLANKS = {
    "MAINTAINERS.md": ("*the owner's name*", "*address*"),
    "pyproject.toml": ("The fmrgen authors",),
    "CITATION.cff": ("The fmrgen authors",),
    ".zenodo.json": ("The fmrgen authors",),
    "paper.md": ("To be filled in",),
}


def sections() -> list[str]:
    """Return the parts of CHANGELOG.md, newest first: each begins with its heading, `0.2.0 (2026-12-01)`."""
    return re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]


def notes_of(version: str) -> tuple[str, str]:
    """Return the notes of a version and its date; ends the program where CHANGELOG.md has none with a date."""
    for section in sections():
        heading, _, notes = section.partition("\n")
        match = re.fullmatch(re.escape(version) + r" \((\d{4}-\d\d-\d\d)\)", heading)
        if match:
            with suppress(ValueError):
                date.fromisoformat(match[1])
                return notes.partition("\n### Added")[0].strip(), match[1]
    sys.exit(f"CHANGELOG.md has no section '## {version} (YEAR-MONTH-DAY)'")


def main(arguments: list[str]) -> None:
    """Print the notes of the release of a tag."""
    if len(arguments) != 1:
        sys.exit("name the tag, such as v0.2.0")
    (tag,) = arguments
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    if tag != f"v{version}":
        sys.exit(f"the tag is {tag}, and pyproject.toml says {version}")
    notes, released = notes_of(version)
    citation = (ROOT / "CITATION.cff").read_text()
    for key, value in (("version", version), ("date-released", released)):
        if not re.search(rf"^{key}: ([\"']?){re.escape(value)}\1$", citation, re.MULTILINE):
            sys.exit(f"CITATION.cff does not say '{key}: {value}'")
    for name, blanks in _BLANKS.items():
        for blank in blanks:
            if blank in (ROOT / name).read_text():
                sys.exit(f"{name} still says {blank!r}")
    print(f"{notes}\n\nAll changes: [CHANGELOG.md]({_REPO}/blob/{tag}/CHANGELOG.md)")


if __name__ == "__main__":
    main(sys.argv[1:])
