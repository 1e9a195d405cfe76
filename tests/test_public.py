"""What users see of the package: its names, its version, and its types."""

import subprocess
import sys
from importlib.metadata import version

import fmrgen as package


def test_public_names_are_there_and_are_what_they_say():
    code = (
        "import fmrgen.jobs.generate, fmrgen.engine.perturb, fmrgen\n"
        "assert callable(fmrgen.generate) and callable(fmrgen.perturb) and callable(fmrgen.verify)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert all(getattr(package, name) for name in package.__all__)
    assert package.__version__ == version("fmrgen")
    assert {*package.__all__} <= {*dir(package)}


def test_the_table_and_the_types_are_of_the_same_names():
    """Type checkers read the imports, Python the table."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(package.__file__).read_text())
    imports = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fmrgen.")
    ]
    assert {alias.name: node.module for node in imports for alias in node.names} == package._MODULES
