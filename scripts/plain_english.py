"""Refuses words that make readers stop, in code, pages and messages.

python scripts/plain_english.py            # all files of the repository
python scripts/plain_english.py FILE …     # some, as pre-commit gives them
"""

import re
import subprocess
import sys
from pathlib import Path

INSTEAD = {
    r"\b(?:Told|told|untold)\b(?! apart)": "reported, printed, shown; or the noun for what the variable holds",
    r"\bhang(?:s|ing)? (?:less |more |much )?on\b": "depends on",
    r"\bdear(?:er|est)?\b": "slow, expensive",
    r"\b(?:one|anyone)'s own\b": "your own",
    r"\b(?:what|that|which) (?:is|are) none\b": "invalid, anything else",
    r"\b(?:is|are) none of\b": "is not one of, is not in",
    r"\bin the place of\b": "instead of, replaces",
    r"\bfor want of\b": "because there is no",
    r"\b(?:broke|fixed) more\b": "is worse, is better; or negative flips, positive flips",
    r"\b[Ss]plits? (?:that )?(?:was|were|is|are) made\b": "generated",
    r"\b[Ii]mages (?:that )?(?:was|were|is|are) made\b": "generated",
    r"\b(?:its|a|the|their) twins?\b": "another seed",
    r"\bsure(?:st)? of\b|\bsurest\b": "confident, confidence",
    r"\b[Aa]sk(?:s|ed)? (?:the |its )?(?:classifier|network|oracle)\b": "query",
    r"\b(?:steps?|directions?|networks?|patterns?|starts?) of chance\b": "random",
}
READ = (".py", ".md", ".yaml", ".yml", ".html", ".js")
UNREAD = ("scripts/plain_english.py", "scripts/plain_code.py", "tests/")


def main(names: list[str]) -> int:
    """Prints the lines with such words; their number, at most 1, is the exit status."""
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.splitlines()
    found = 0
    for name in names or tracked:
        if not name.endswith(READ) or name.startswith(UNREAD):
            continue
        for number, line in enumerate(Path(name).read_text(encoding="utf-8").splitlines(), 1):
            for pattern, instead in INSTEAD.items():
                if match := re.search(pattern, line):
                    print(f"{name}:{number}: {match[0]!r}: say {instead}")
                    found += 1
    return min(found, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
