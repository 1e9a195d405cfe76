"""Run mutants, each against the tests of its subject, and print those that live.

    python scripts/mutants.py                       # all of scripts/mutants.yaml
    python scripts/mutants.py --only slots.py

A mutant is a file, a text in it that occurs once, what to put in its place, and the tests that should fail then.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("fmrgen", "tests", "recipes", "dataset_cards", "benchmarks", "scripts", "examples", "docs")
FILES = ("pyproject.toml", "README.md")
SECONDS = 600  # after which a mutant counts as caught: it hangs


def survives(mutant: dict[str, str], tree: Path) -> bool:
    """Return whether all tests pass with a mutant, in a copy of the repository. Raises SystemExit where it is stale."""
    path = tree / mutant["file"]
    original = path.read_text()
    if original.count(mutant["old"]) != 1:
        raise SystemExit(f"{mutant['file']}: {mutant['old']!r} occurs {original.count(mutant['old'])} times, not once")
    path.write_text(original.replace(mutant["old"], mutant["new"]))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not nightly", *mutant["tests"].split()]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return False
    finally:
        path.write_text(original)
    if done.returncode not in (0, 1, 2):  # 2: the mutant can't be imported
        raise SystemExit(done.stdout.decode() + done.stderr.decode())
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", type=Path, default=ROOT / "scripts/mutants.yaml")
    parser.add_argument("--only", default="", help="part of a file's name")
    options = parser.parse_args()
    mutants = [mutant for mutant in yaml.safe_load(options.list.read_text()) if options.only in mutant["file"]]
    alive = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in COPIED:
            shutil.copytree(ROOT / name, tree / name)
        for name in FILES:
            shutil.copy(ROOT / name, tree)
        for mutant in mutants:
            is_alive = survives(mutant, tree)
            print(
                f"{'lives ' if is_alive else 'caught'} {mutant['file']}: {mutant['old']} → {mutant['new']}", flush=True
            )
            if is_alive:
                alive.append(mutant)
    print(f"{len(mutants) - len(alive)} of {len(mutants)} caught")
    raise SystemExit(bool(alive))


if __name__ == "__main__":
    main()
