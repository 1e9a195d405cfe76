"""Prints what CHANGELOG.md says of a release in short, and what breaks: `python scripts/release_notes.py v0.2.0`.

Fails where the tag, pyproject.toml, CITATION.cff and CHANGELOG.md name different versions, or the section has no date.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
_REPO = "https://github.com/fmrgen/fmrgen"


def sections() -> list[str]:
    """Return the parts of CHANGELOG.md, newest first: each begins with its heading, `0.2.0 (2026-12-01)`."""
    return re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]


def main(tag: str) -> None:
    """Print the notes of the release `tag`."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    if tag != f"v{version}":
        sys.exit(f"the tag is {tag}, and pyproject.toml says {version}")
    if f"\nversion: {version}\n" not in (ROOT / "CITATION.cff").read_text():
        sys.exit(f"CITATION.cff does not say 'version: {version}'")
    for section in sections():
        heading, _, notes = section.partition("\n")
        if re.fullmatch(re.escape(version) + r" \(\d{4}-\d\d-\d\d\)", heading):
            short = notes.partition("\n### Added")[0].strip()
            print(f"{short}\n\nAll changes: [CHANGELOG.md]({_REPO}/blob/{tag}/CHANGELOG.md)")
            return
    sys.exit(f"CHANGELOG.md has no section '## {version} (YEAR-MONTH-DAY)'")


if __name__ == "__main__":
    main(sys.argv[1])
