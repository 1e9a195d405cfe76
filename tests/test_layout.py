"""The house: imports that run one way."""

import ast
import functools
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from installed import APPS

import fmrgen as package
from fmrgen.internals import apps

ROOT = Path(package.__file__).parent


@functools.cache
def modules():
    """Every module by its dotted name, as a tree."""
    found = []
    for path in ROOT.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        found.append((name, ast.parse(path.read_text())))
    return found


@functools.cache
def imports():
    """The modules that each imports, wherever in it; what only types need, too. The package itself is lazy."""
    trees = dict(modules())
    found = {}
    for name, tree in trees.items():
        names = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= inside & trees.keys() or {node.module} & trees.keys()
        found[name] = names - {name, "fmrgen"} if name != "fmrgen" else set()
    return found


def test_imports_run_one_way_between_modules_and_between_packages():
    """A circle is an error of `static_order`, with the modules that it goes through."""
    between = imports()
    assert len(list(TopologicalSorter(between).static_order())) > 200
    packages = {}
    for name, names in between.items():
        subject = name.split(".")[1] if "." in name else name
        packages.setdefault(subject, set()).update(other.split(".")[1] for other in names)
    for subject, others in packages.items():
        others.discard(subject)
    assert list(TopologicalSorter(packages).static_order())
    up = ("errors", "engine", "storage", "recipe", "split", "evaluation", "report", "publish", "jobs", "cli", "apps")
    for height, subject in enumerate(up):  # as docs/explanation/design.md has them
        assert packages.get(subject, set()).isdisjoint(up[height:]), subject


# What an app may import of another, and why.
BETWEEN_APPS = {
    ("release", "explain"): "diff judges transformed originals as explain does",
    ("training", "explain"): "images are changed in training as explain suggests",
    ("pilot", "training"): "init trains a panel on a user's images",
}


def test_the_core_imports_no_app_and_apps_import_each_other_only_as_listed():
    for name, names in imports().items():
        app = name.split(".")[2] if name.startswith("fmrgen.apps.") else None
        for other in names:
            if other.startswith("fmrgen.apps."):
                other_app = other.split(".")[2]
                assert app is not None, f"{name} imports {other}: the core stands without apps"
                assert app == other_app or (app, other_app) in BETWEEN_APPS, f"{name} imports {other}"


def test_every_app_is_listed():
    installed = {app.__name__.rpartition(".")[2] for app in apps()}
    assert installed <= APPS.keys(), "list the app in tests/support/installed.py"


def test_figures_need_neither_torch_nor_datasets():
    """So a test of arithmetic takes a second, and `evaluation.json` can be read where no network runs."""
    names = [name for name, _ in modules() if name.startswith(("fmrgen.metrics.", "fmrgen.results."))]
    code = f"import sys, {', '.join(names)}\nassert not {{'torch', 'datasets'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
