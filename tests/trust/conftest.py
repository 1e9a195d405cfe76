"""A folder that one stands in, with a stranger's split and code in it; nothing in it runs, nothing beside it is read.

Canaries are the file `ran`, which any command or import would leave, and `secret.png` and what lies in `outside`.
"""

import shutil
import sys

import pytest
import torch
from commands import run
from photos import lay_out, photo
from strangers import EVIL


@pytest.fixture(scope="session")
def laid_out(tmp_path_factory):
    """Photos, a recipe, its split `theirs` without originals, code of theirs, and secrets of the reader's."""
    root = tmp_path_factory.mktemp("laid_out")
    folder = root / "folder"
    lay_out(folder)
    photo(folder / "secret.png", color="red")
    (root / "outside").mkdir()
    (root / "outside/private.png").write_bytes(b"private")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("generate", "r.yaml", "output.keep_original=false", "-o", "theirs", "-q") == 0
    (folder / "evil_code.py").write_text(EVIL)
    return root


@pytest.fixture
def place(laid_out, tmp_path, monkeypatch):
    """A copy of the folder, to work in; `outside` is beside it."""
    shutil.copytree(laid_out, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path / "folder")
    monkeypatch.setattr(sys, "path", [*sys.path])
    torch.manual_seed(0)  # the weights that the split was begun with
    yield tmp_path / "folder"
    sys.modules.pop("evil_code", None)


@pytest.fixture
def refused(place, capsys):
    """Runs a command, which ends with a line that has `told`, and in which nothing ran; returns the line."""

    def refused(*command, told):
        capsys.readouterr()
        assert run(*command) == 2
        error = capsys.readouterr().err
        assert told in error, error
        assert error.count("\n") == 1, error
        assert not (place / "ran").exists()
        return error

    return refused


@pytest.fixture
def generate_refused(refused):
    """The same of `generate r.yaml` with changes of the recipe."""
    return lambda *changes, told: refused("generate", "r.yaml", *changes, "-o", "out", "-q", told=told)
