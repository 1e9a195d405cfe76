"""Refuses code that folds several thoughts into one expression, and names that say nothing.

python scripts/plain_code.py            # all of fmrgen/
python scripts/plain_code.py FILE …     # some files
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
SAY_NOTHING = {"found", "of", "one", "said", "there", "beside", "passed", "asked", "known", "kept", "what", "told"}
SAY_NOTHING |= {"given", "here", "also"}


def main(names: list[str]) -> int:
    """Prints what should be unfolded; whether there is any is the exit status."""
    paths = [Path(name) for name in names] or sorted(Path("fmrgen").rglob("*.py"))
    faults = 0
    for path in paths:
        for line, fault in faults_in(ast.parse(path.read_text(encoding="utf-8"))):
            print(f"{path}:{line}: {fault}")
            faults += 1
    return min(faults, 1)


def faults_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the words of each fault. Fields of classes are public, and keep their names."""
    fields = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            fields |= {statement.target for statement in node.body if isinstance(statement, ast.AnnAssign)}
    for node in ast.walk(tree):
        if isinstance(node, COMPREHENSIONS):
            inner = [part for part in ast.walk(node) if part is not node and isinstance(part, COMPREHENSIONS)]
            if inner or len(node.generators) > 1:
                yield node.lineno, "a comprehension in another; write a loop, or name the inner one"
        if isinstance(node, ast.IfExp) and sum(isinstance(part, ast.IfExp) for part in ast.walk(node)) > 1:
            yield node.lineno, "a conditional expression in another; write if and else"
        name = None
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in fields:
            name = node.id
        if isinstance(node, ast.arg):
            name = node.arg
        if name in SAY_NOTHING:
            yield node.lineno, f"the name {name}; say what it holds"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
