"""Splits of earlier and of later versions: read as far as they can be, kept in cards, never rewritten.

`data/split-0.1.0` is a folder as fmrgen 0.1.0 wrote it, with two splits of 20 digits; `data/split-3` one of 8 digits with
rows of version 3, which have no reason `reached` and no accepted labels.
"""

import json
import shutil

import pytest
import yaml
from commands import fmrgen, run
from datasets import load_dataset
from installed import has_app
from places import TESTS
from stored import parts

import fmrgen as package
from fmrgen import evaluate, merge, verify, verify_files
from fmrgen.errors import UserError
from fmrgen.files import read_json
from fmrgen.jobs.generate import make_split
from fmrgen.jobs.show import show
from fmrgen.publish.card import renew_card
from fmrgen.recipe.job import load_recipe
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance
from fmrgen.storage.shards import SplitFolder, summary_of
from fmrgen.weights.assets import resolve_path

LENET = "asset:mnist/lenet"
OF_THEN = ["perturb.min_probability=0", "classifier.class_names=null"]  # the demo of 0.1.0
PATH = "provenance/mnist/lenet.json"


@pytest.fixture
def old(tmp_path):
    shutil.copytree(TESTS / "data/split-0.1.0", tmp_path / "old")
    return tmp_path / "old"


def test_rows_of_version_3_are_read_and_verified(tmp_path):
    shutil.copytree(TESTS / "data/split-3", tmp_path / "out")
    split = f"{tmp_path / 'out'}:mnist/lenet"
    assert verify(split).disagreements == []
    assert evaluate(split, LENET, progress=False).results[0].conditioned


def configs(folder):
    """What the card of a folder names: config → its splits."""
    metadata = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return {entry["config_name"]: [data["split"] for data in entry["data_files"]] for entry in metadata["configs"]}


def alter(folder, change):
    path = folder / PATH
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def with_other_split(folder):
    """Another split is made in the folder, which writes its card anew."""
    make_split(load_recipe("_mnist", ["source.limit=4", "output.config=other", "perturb.budget=1"]), folder)


@pytest.fixture
def oracle_of_then(monkeypatch):
    """The oracle that 0.1.0 shipped under the name that another has today."""

    def resolve(reference):
        return str(TESTS / "data/clip-0.1.0") if reference == "asset:mnist/clip" else resolve_path(reference)

    monkeypatch.setattr("fmrgen.weights.pretrained.resolve_path", resolve)


def test_without_the_weights_that_made_a_split_it_is_read_but_not_verified(old):
    assert evaluate([f"{old}:mnist/lenet"], [LENET]).results[0].conditioned
    with pytest.raises(UserError, match="now loads other oracle weights than those that made the split"):
        verify(f"{old}:mnist/lenet")


def test_a_split_of_0_1_0_is_read_by_all(old, oracle_of_then, tmp_path):
    assert "schema" not in read_json(old / PATH)
    assert load_dataset(str(old), "mnist", split="lenet").num_rows == 20
    outcome = verify(f"{old}:mnist/lenet")
    assert (outcome.true_rows, outcome.rows) == (20, 20)
    files = verify_files(f"{old}:mnist/lenet")
    assert (files.intact, files.shards, files.wrong) == (2, 2, [])
    result = evaluate([f"{old}:mnist/lenet"], [LENET]).results[0]
    assert result.conditioned
    assert result.total.fmr.value == pytest.approx(read_json(old / PATH)["summary"]["fmr"]["value"])
    assert all(file.is_file() for file in show(f"{old}:mnist/lenet", tmp_path / "shown"))
    if has_app("interchange"):
        assert package.export(f"{old}:mnist/lenet", tmp_path / "exported", "webdataset") == 20
    merged = merge([f"{old}:mnist/lenet"], tmp_path / "merged")
    assert merged["mnist/lenet"].rows == 20
    assert configs(tmp_path / "merged") == {"mnist": ["lenet"]}


def test_it_is_left_as_it_is_and_listed_beside_a_new_one(old):
    before = {name: (old / name).read_bytes() for name in (*parts(old), PATH, "provenance/mnist/second.json")}
    with_other_split(old)
    assert {name: (old / name).read_bytes() for name in before} == before
    assert configs(old) == {"mnist": ["lenet", "second"], "other": ["lenet"]}
    assert load_dataset(str(old), "mnist", split="second").num_rows == 20
    assert load_dataset(str(old), "other", split="lenet").num_rows == 4
    card = (old / "README.md").read_text()
    assert read_json(old / PATH)["fingerprint"] in card


@pytest.mark.slow
def test_it_is_pushed_and_stays_in_the_card_when_another_follows(old, tmp_path, hub):
    with_other_split(tmp_path / "new")
    for folder in (old, tmp_path / "new"):
        done = fmrgen("push", folder, "someone/digits", "-q", **hub.environment)
        assert done.returncode == 0, done.stderr
    world = hub.world()
    card = (world.blobs / world.files("someone/digits")["README.md"]).read_text()
    (tmp_path / "README.md").write_text(card)
    assert configs(tmp_path) == {"mnist": ["lenet", "second"], "other": ["lenet"]}
    for split, how in (("mnist/second", ["--files"]), ("other/lenet", [])):
        done = fmrgen("verify", f"someone/digits:{split}", *how, **hub.environment)
        assert done.returncode == 0, done.stderr


def test_figures_that_a_version_did_not_tell_are_found_from_the_rows(old):
    told = read_json(old / PATH)
    parse = Provenance.model_validate
    folder = SplitFolder.of(SplitPaths(old, "mnist", "lenet"), parse(told))
    whole = summary_of(parse(told), folder)
    assert whole.macro_fmr is not None  # which 0.1.0 did not know
    assert summary_of(parse(told)).macro_fmr is None
    assert summary_of(parse(told)).fmr == whole.fmr
    assert whole.valid_rows > 0
    fewer = {**told, "summary": {name: told["summary"][name] for name in ("rows", "standard_accuracy")}}
    assert parse(fewer).is_finished
    assert parse({**told, "summary": {}}).is_finished
    assert summary_of(parse(fewer), folder) == whole
    assert summary_of(parse(fewer)).fmr is None
    strange = {**told, "summary": {**told["summary"], "fmr": "high", "new_figure": 3}}
    assert summary_of(parse(strange)).fmr is None
    assert summary_of(parse(strange)).standard_accuracy == whole.standard_accuracy


def newer(told):
    return {
        **told,
        "schema": "fmrgen-provenance/99",
        "of_tomorrow": [1],
        "summary": {**told["summary"], "x": {"value": 1}},
    }


def unreadable(told):
    return {"schema": "fmrgen-provenance/99", "everything": "is elsewhere"}


def test_a_split_of_a_newer_version_is_read_and_not_rewritten(old, oracle_of_then, tmp_path):
    alter(old, newer)
    before = {name: (old / name).read_bytes() for name in (*parts(old), PATH)}
    assert verify(f"{old}:mnist/lenet").true_rows == 20
    assert evaluate([f"{old}:mnist/lenet"], [LENET]).results[0].total.rows == 20
    with_other_split(old)
    recipe = load_recipe("_mnist", [*OF_THEN, "source.limit=20", "output.shard_size=10"])
    with pytest.raises(UserError, match=r"was made by a newer fmrgen \(fmrgen-provenance/99\); update fmrgen"):
        make_split(recipe, old)
    with pytest.raises(UserError, match="the split lenet of config mnist was made by a newer fmrgen"):
        make_split(
            load_recipe("_mnist", [*OF_THEN, "source.limit=20", "output.shard_size=10", "output.split=third"]), old
        )
    with pytest.raises(UserError, match="was made by a newer fmrgen"):
        merge([str(old)], tmp_path / "merged")
    assert {name: (old / name).read_bytes() for name in before} == before
    assert configs(old) == {"mnist": ["lenet", "second"], "other": ["lenet"]}


@pytest.mark.parametrize("change", [newer, unreadable])
def test_whatever_a_newer_version_says_its_split_stays_in_the_card(old, change):
    alter(old, change)
    with_other_split(old)
    assert {name: sorted(splits) for name, splits in configs(old).items()} == {
        "mnist": ["lenet", "second"],
        "other": ["lenet"],
    }
    assert load_dataset(str(old), "mnist", split="lenet").num_rows == 20
    alter(old, lambda told: {**told, "more": 1})
    digest = (old / "README.md").read_text()
    renew_card(old)
    assert (change is newer) == ((old / "README.md").read_text() == digest)  # its cache key follows the files


def test_a_split_whose_files_are_gone_leaves_the_card(old):
    alter(old, unreadable)
    (old / PATH).unlink()
    for path in old.glob("mnist/lenet-*"):
        path.unlink()
    renew_card(old)
    assert configs(old) == {"mnist": ["second"]}


def test_on_the_hub_it_stays_too(old, tmp_path, hub):
    assert fmrgen("push", old, "someone/digits", "-q", **hub.environment).returncode == 0
    world = hub.world()
    repo = world.repos["someone/digits"]
    commit = repo["commits"][repo["refs"]["main"]]
    commit["files"][PATH] = [world.keep(json.dumps(unreadable({})).encode()), False]
    world.save()
    with_other_split(tmp_path / "new")
    done = fmrgen("push", tmp_path / "new", "someone/digits", "-q", **hub.environment)
    assert done.returncode == 0, done.stderr
    (tmp_path / "README.md").write_text((world.blobs / hub.world().files("someone/digits")["README.md"]).read_text())
    assert {name: sorted(splits) for name, splits in configs(tmp_path).items()} == {
        "mnist": ["lenet", "second"],
        "other": ["lenet"],
    }


def test_new_splits_say_their_version(tmp_path):
    with_other_split(tmp_path / "new")
    assert read_json(tmp_path / "new/provenance/other/lenet.json")["schema"] == "fmrgen-provenance/4"
    assert run("verify", tmp_path / "new", "-q") == 0


def test_a_snapshot_in_the_hubs_cache_is_a_folder_though_it_is_all_links(old, tmp_path):
    root = tmp_path / "datasets--someone--digits"
    snapshot = root / "snapshots" / ("a" * 40)
    (root / "blobs").mkdir(parents=True)
    for number, path in enumerate(path for path in sorted(old.rglob("*")) if path.is_file()):
        link = snapshot / path.relative_to(old)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(shutil.copy(path, root / "blobs" / str(number)))
    assert verify_files(f"{snapshot}:mnist/lenet").intact == 2
    assert evaluate([f"{snapshot}:mnist/lenet"], [LENET]).results[0].total.rows == 20
