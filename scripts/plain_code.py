"""Refuses code that folds several thoughts into one expression, and names that say nothing.

python scripts/plain_code.py            # all parts that are unfolded so far
python scripts/plain_code.py FILE …     # any files
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

# Parts of `fmrgen/` that are unfolded. Add yours when you have unfolded it; take none away.
UNFOLDED: tuple[str, ...] = ()
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
SAY_NOTHING = {"found", "of", "one", "said", "there", "beside", "passed", "asked", "known", "kept", "what", "told"}
SAY_NOTHING |= {"given", "here", "also"}


def main(names: list[str]) -> int:
    """Prints what should be unfolded; whether there is any is the exit status."""
    paths = [Path(name) for name in names]
    for part in UNFOLDED if not names else ():
        path = Path("fmrgen", part)
        paths += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    faults = 0
    for path in paths:
        for line, fault in faults_in(ast.parse(path.read_text(encoding="utf-8"))):
            print(f"{path}:{line}: {fault}")
            faults += 1
    return min(faults, 1)


def faults_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the words of each fault."""
    for node in ast.walk(tree):
        if isinstance(node, COMPREHENSIONS):
            inner = [part for part in ast.walk(node) if part is not node and isinstance(part, COMPREHENSIONS)]
            if inner or len(node.generators) > 1:
                yield node.lineno, "a comprehension in another; write a loop, or name the inner one"
        if isinstance(node, ast.IfExp) and sum(isinstance(part, ast.IfExp) for part in ast.walk(node)) > 1:
            yield node.lineno, "a conditional expression in another; write if and else"
        name = None
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        if isinstance(node, ast.arg):
            name = node.arg
        if name in SAY_NOTHING:
            yield node.lineno, f"the name {name}; say what it holds"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
