"""The engine can be lifted out: it imports torch, itself, and what imports nothing."""

import subprocess
import sys

CODE = """
import sys
import torch
before = set(sys.modules)
import fmrgen.engine.perturb
new = set(sys.modules) - before
own = {name for name in new if name.partition(".")[0] == "fmrgen"}
print(*sorted(own))
print(*sorted({name.partition(".")[0] for name in new - own} - sys.stdlib_module_names))
"""


def test_the_engine_brings_torch_and_itself_alone():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=120)
    own, others = done.stdout.split("\n")[:2]
    engine = {name for name in own.split() if name.startswith("fmrgen.engine")}
    doors = {name for name in own.split() if name == "fmrgen.internals" or name.startswith("fmrgen.apps")}
    assert {*own.split()} - engine - doors == {"fmrgen", "fmrgen.errors", "fmrgen.records"}
    assert others == "", "neither pydantic nor yaml, nor anything else"
