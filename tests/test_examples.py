"""The examples, run as users run them, and typed as users' code is (`mypy --strict examples`)."""

import json
import os
import re
import runpy
import subprocess
import sys

import nbformat
import pytest
import torch
import warm
from nbclient import NotebookClient
from places import ROOT
from served import Handler, Server
from torch.utils.data import DataLoader
from torchvision.io import decode_image

import fmrgen

EXAMPLES = ROOT / "examples"
SAID = {
    "own_model.py": ("mine ◆", "12 rows match their stored images"),
    "own_parts.py": ("out:components/lenet: 12 rows", "out/gallery/sheet.png"),
    "forest.py": ("forest ◆", "12 rows match their stored images"),
    "endpoint.py": ("rows match their stored images",),
    "compare_models.py": ("smooth ◆", "perturbed_accuracy_low"),
    "maite_dataset.py": ("valid images; the first is (3, 32, 32), of class 0",),
    "flips_in_training.py": ("eval_negative_flips", "Diff(", "positive flips of 12"),
}
LONG = pytest.param("forest.py", marks=pytest.mark.nightly)


def test_every_script_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAID)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own_model.py", "own_parts.py", "compare_models.py", "flips_in_training.py", LONG])
def test_a_script(name, tmp_path):
    script = "import runpy, sys; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    command = ["-c", script, EXAMPLES / name, "--digits", "12", "--output", "out"]
    done = warm.run(command, {**os.environ}, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for said in SAID[name]:
        assert said in done.stdout


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "reproduce").glob("table_*.py")))
def test_a_table_of_the_paper(name, tmp_path):
    small = ["--limit", "8", "--steps", "2", "--trainings", "2"]
    command = [sys.executable, ROOT / "reproduce" / name, *small, "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Table")
    assert re.search(r"^\* .*: (\*\*(holds|DOES NOT HOLD|not decided)\*\*|not tested)", done.stdout, re.MULTILINE)


def test_a_split_for_maite(finished_split, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["maite_dataset.py", str(finished_split), "mnist", "lenet"])
    runpy.run_path(str(EXAMPLES / "maite_dataset.py"), run_name="__main__")
    for text in SAID["maite_dataset.py"]:
        assert text in capsys.readouterr().out


@pytest.fixture
def endpoint():
    """The address of a LeNet that answers as the Hub's image classification does."""
    network = fmrgen.load_classifier("asset:mnist/lenet")

    class Answering(Handler):
        def respond(self):
            image = decode_image(torch.frombuffer(bytearray(self.content()), dtype=torch.uint8))
            with torch.no_grad():
                scores = network(image[None] / 255).softmax(1)[0].tolist()
            body = json.dumps([{"label": str(digit), "score": score} for digit, score in enumerate(scores)]).encode()
            self.reply(200, body)

    with Server(Answering) as server:
        yield server.address


@pytest.mark.slow
def test_a_classifier_behind_an_address(endpoint, tmp_path):
    command = [sys.executable, EXAMPLES / "endpoint.py", endpoint, "--digits", "2", "--output", "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 rows match their stored images" in done.stdout


@pytest.mark.slow
def test_the_notebook(tmp_path):
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("images[:200], labels[:200]", "images[:12], labels[:12]")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in shown if output.output_type == "stream"]
    tables = [output.data["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert "FMR" in tables[0]
    assert "mine ◆" in tables[1]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2
    assert "12 of 12 rows match" in shown[-1].data["text/plain"]


@pytest.mark.slow
def test_the_snippets_of_a_generator_and_an_oracle(tmp_path, monkeypatch):
    text = (ROOT / "docs/guides/components.md").read_text()
    snippets = re.findall(r"```python\n# (my_\w+)\.py\n(.*?)```", text, re.DOTALL)
    assert {name for name, _ in snippets} == {"my_generator", "my_oracle"}
    for name, code in snippets:
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    parts = ["generator=my_generator:Config", "oracle=my_oracle:Config"]
    changes = ["perturb.min_probability=0.5", "perturb.budget=3", "source.limit=12", *parts]
    split = fmrgen.generate(fmrgen.load_recipe("mnist-lenet", changes), output=tmp_path / "out", progress=False)
    assert split.summary.oracle_accuracy.value > 70
    assert split.summary.validation_rate.value > 50


@pytest.mark.slow
def test_flips_are_logged_by_lightning(tmp_path):
    lightning = pytest.importorskip("pytorch_lightning")
    sys.path.insert(0, str(EXAMPLES))
    try:
        import flips_in_training as example
    finally:
        sys.path.remove(str(EXAMPLES))

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = example.Network()

        def training_step(self, batch, place):
            return self.network(**batch)["loss"]

        def validation_step(self, batch, place):
            return {"logits": self.network(**batch)["logits"], "labels": batch["labels"]}

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.002)

    class Callback(example.LightningFlips, lightning.Callback):
        pass

    batches = DataLoader(example.digits("test", 40), batch_size=20)
    settings = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    settings |= {"enable_progress_bar": False, "num_sanity_val_steps": 0}
    for name in ("release", "candidate"):
        flips = example.Flips(tmp_path / "release/epoch-2.parquet", tmp_path / name)
        trainer = lightning.Trainer(**settings, callbacks=[Callback(flips)])
        trainer.fit(Module(), batches, batches)
    assert set(trainer.callback_metrics) >= {"negative_flips", "positive_flips"}
    assert len(list(tmp_path.rglob("*.parquet"))) == 4
