"""A split has the format of the version that generated it; another version refuses it in one line."""

import json
import shutil

import pytest
from commands import run

from fmrgen import evaluate
from fmrgen.errors import UserError
from fmrgen.jobs.verify_files import verify_files
from fmrgen.publish.card import renew_card
from fmrgen.storage.store import Store

LENET = "asset:mnist/lenet"
PATH = "provenance/mnist/lenet.json"
REFUSAL = ":mnist/lenet has the format fmrgen-provenance/3, this fmrgen fmrgen-provenance/4: use the version that"


@pytest.fixture
def other(split):
    """A folder whose split another version generated."""
    content = json.loads((split / PATH).read_text())
    (split / PATH).write_text(json.dumps(content | {"schema": "fmrgen-provenance/3"}))
    return split


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "{}:mnist/lenet", "-c", LENET, "-q"),
        ("verify", "{}:mnist/lenet"),
        ("show", "{}:mnist/lenet"),
        ("generate", "_mnist", "source.limit=4", "output.config=another", "-q", "-o", "{}"),
        ("generate", "_mnist", "source.limit=120", "output.shard_size=40", "perturb.budget=8", "-q", "-o", "{}"),
    ],
    ids=lambda command: command[0],
)
def test_another_version_refuses_it(other, command, capsys):
    before = files_of(other)
    assert run(*(word.format(other) for word in command)) == 2
    error = capsys.readouterr().err
    assert REFUSAL in error
    assert error.count("\n") == 1
    assert files_of(other) == before


def test_its_card_is_not_written_anew(other):
    with pytest.raises(UserError, match="has the format fmrgen-provenance/3"):
        renew_card(Store(other))


def test_a_snapshot_in_the_hubs_cache_is_a_folder_though_it_is_all_links(split, tmp_path):
    root = tmp_path / "datasets--someone--digits"
    snapshot = root / "snapshots" / ("a" * 40)
    (root / "blobs").mkdir(parents=True)
    for number, path in enumerate(path for path in sorted(split.rglob("*")) if path.is_file()):
        link = snapshot / path.relative_to(split)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(shutil.copy(path, root / "blobs" / str(number)))
    assert verify_files(f"{snapshot}:mnist/lenet").intact == 3
    assert evaluate([f"{snapshot}:mnist/lenet"], [LENET]).results[0].total.rows == 120
