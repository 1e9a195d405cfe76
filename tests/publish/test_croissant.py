"""Croissant metadata: valid to its own library, true to the provenance, and enough to find a flipped byte."""

import hashlib
import json
import os
import warnings

import pytest
from commands import run

from fmrgen.jobs.verify_files import verify_files
from fmrgen.publish.card import write_card


@pytest.fixture
def told(split):
    write_card(split, "you/digits")
    return json.loads((split / "croissant.json").read_text())


def test_it_is_valid(split, told, caplog):
    mlcroissant = pytest.importorskip("mlcroissant")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = mlcroissant.Dataset(jsonld=split / "croissant.json")
    issues = dataset.metadata.ctx.issues
    assert (issues.errors, issues.warnings) == (set(), set())
    assert not [record for record in caplog.records if record.name == "absl"]
    names = {field.name for record_set in dataset.metadata.record_sets for field in record_set.fields}
    assert {"mnist-lenet/image", "mnist-lenet/clip_score", "mnist-lenet/step_losses"} <= names
    assert told["conformsTo"] == ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]


def test_its_fields_are_those_of_the_provenance(split, told):
    provenance = json.loads((split / "provenance/mnist/lenet.json").read_text())
    files = {one["@id"]: one["sha256"] for one in told["distribution"] if one["@id"].endswith(".parquet")}
    assert files == provenance["files"]
    columns = {one["name"].partition("/")[2] for one in told["recordSet"][0]["field"]}
    assert {"image", "original", "label", "valid", "step_predictions"} <= columns
    tools = " ".join(told["rai:machineAnnotationTools"])
    assert all(provenance["weights_sha256"][name] in tools for name in ("classifier", "generator", "oracle"))
    assert told["license"] == ["https://huggingface.co/docs/hub/repositories-licenses#cc-by-sa-3.0"]
    assert "budget 8" in told["rai:dataManipulationProtocol"][0]
    assert told["datePublished"] == provenance["runs"][0]["finished"][:10]


def test_a_flipped_byte_is_found_from_the_metadata_alone(split, told):
    path = split / "mnist/lenet-00001-of-00003.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    wrong = [
        one["@id"]
        for one in told["distribution"]
        if one["@id"].endswith(".parquet")
        and hashlib.sha256((split / one["contentUrl"]).read_bytes()).hexdigest() != one["sha256"]
    ]
    assert wrong == ["mnist/lenet-00001-of-00003.parquet"]


@pytest.mark.parametrize("kind", ["pipe", "bytes", "link"])
def test_what_is_in_its_place_is_replaced_unread(split, told, kind, tmp_path):
    path = split / "croissant.json"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "bytes":
        path.write_bytes(b"\xff")
    else:
        (tmp_path / "outside").write_text("private")
        path.symlink_to(tmp_path / "outside")
    write_card(split, "you/digits")
    assert json.loads(path.read_text()) == told
    assert kind != "link" or (tmp_path / "outside").read_text() == "private"


def test_what_it_says_otherwise_is_told(split, told, capsys):
    assert verify_files(str(split)).wrong == []
    for one in told["distribution"]:
        one["sha256"] = "0" * 64
    (split / "croissant.json").write_text(json.dumps(told))
    assert len(verify_files(str(split)).wrong) == 3
    assert run("verify", split, "--files") == 1
    assert "its sha256 of mnist/lenet-00000-of-00003.parquet differs" in capsys.readouterr().out
    (split / "croissant.json").write_text("[1]")
    assert "can't be read" in verify_files(str(split)).wrong[0]
