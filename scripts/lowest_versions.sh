#!/usr/bin/env bash
# Hostile files once more, on the lowest versions that pyproject.toml admits (but for torch, of which there is one), in a
# virtual environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 - > "$work/lowest.txt" << 'END'
import re, tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["models"], *extras["webdataset"]]:
        name, lowest = re.match(r"([\w-]+)>=([\d.]+)", requirement).groups()
        if not name.startswith("torch"):
            print(f"{name}=={lowest}.*")
END
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile -c "$work/lowest.txt" -e '.[test]'
"$work/venv/bin/python" -m pytest -n 2 -m "not nightly" tests/trust/test_hostile.py tests/trust/test_strangers.py \
  -k "code or weights or timm or transformers or program or oldest or trusted"
