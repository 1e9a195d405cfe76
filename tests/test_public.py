"""What users see of the package: its names, its version, and its types."""

import re
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch
from commands import run
from places import ROOT

import fmrgen as package
from fmrgen.errors import command_line, option


def test_public_names_are_there_and_are_what_they_say():
    code = (
        "import fmrgen.jobs.generate, fmrgen.engine.perturb, fmrgen\n"
        "assert callable(fmrgen.generate) and callable(fmrgen.perturb) and callable(fmrgen.verify)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert all(getattr(package, name) for name in package.__all__)
    assert package.__version__ == version("fmrgen")
    assert {*package.__all__} <= {*dir(package)}


def test_every_name_is_in_the_reference():
    page = (ROOT / "docs/reference/python.md").read_text()
    documented = re.findall(r"^::: fmrgen\.(\w+)$", page, re.MULTILINE)
    assert sorted(documented) == sorted({*package.__all__} - {"__version__"})


def test_messages_speak_as_the_caller_does(tmp_path, capsys):
    """An option is an option of the command line only where a command runs."""
    (tmp_path / "file").touch()
    with pytest.raises(package.UserError, match="is not a folder; choose another output=$"):
        package.generate("mnist-lenet", output=tmp_path / "file/out")
    assert run("generate", "mnist-lenet", "-o", tmp_path / "file/out") == 2
    assert capsys.readouterr().err.endswith("is not a folder; choose another --output\n")
    assert option("output.split") == "split="
    with command_line():
        assert option("output.split") == "output.split"


def test_a_network_in_one_word():
    network = package.load_classifier("asset:mnist/lenet")
    assert not network.training
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    with pytest.raises(package.UserError, match="nothing"):
        package.load_classifier("asset:nothing")
    frozen = package.freeze(torch.nn.Linear(2, 2).train())
    assert not frozen.training
    assert not frozen.weight.requires_grad
