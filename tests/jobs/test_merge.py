"""Parts of one split: what is taken of them, and what is not."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmrgen.errors import UserError
from fmrgen.files import sha256_of
from fmrgen.jobs.lifecycle import record_part
from fmrgen.jobs.merge import merge
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import read_provenance
from fmrgen.storage.shards import SplitFolder, parquet_bytes


def part(split, folder, shards):
    """A part of a finished split, as a job that makes these shards leaves it."""
    shutil.copytree(split / "provenance", folder / "provenance")
    path = folder / "provenance/mnist/lenet.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"finished": False, "files": {}}))
    (folder / "mnist").mkdir()
    for shard in shards:
        shutil.copy(shard_of(split, shard), folder / "mnist")
    paths = SplitPaths(folder, "mnist", "lenet")
    record_part(SplitFolder.of(paths, read_provenance(paths)))
    return folder


def shard_of(folder, shard):
    return folder / f"mnist/lenet-{shard:05d}-of-00003.parquet"


def change(path, of=None):
    """Makes another file of a shard, with every checksum in it right."""
    table = pq.read_table(of or path)
    place = table.schema.get_field_index("prediction")
    table = table.set_column(place, table.schema.field(place), pa.array([0] * len(table), pa.int32()))
    path.write_bytes(parquet_bytes(table))


@pytest.mark.slow
def test_two_files_of_one_shard_are_refused(finished_split, tmp_path):
    one = part(finished_split, tmp_path / "one", [0, 1])
    other = part(finished_split, tmp_path / "other", [2])
    change(shard_of(other, 1), of=shard_of(one, 1))
    told = r"other/.*00001-of-.*: differs from .*one/.*00001-of-.*; merge without one of the two"
    with pytest.raises(UserError, match=told):
        merge([one, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    shard_of(other, 1).unlink()
    assert merge([one, other], tmp_path / "out")["mnist/lenet"].rows == 120
    files = [sha256_of(shard_of(folder, 1)) for folder in (tmp_path / "out", finished_split)]
    assert files[0] == files[1]


@pytest.mark.slow
def test_parts_of_two_versions_are_named(finished_split, tmp_path):
    one = part(finished_split, tmp_path / "one", [0, 1])
    other = part(finished_split, tmp_path / "other", [2])
    path = other / "provenance/mnist/lenet.json"
    tree = json.loads(path.read_text())
    here = tree["runs"][0]["versions"]["torch"]
    tree["runs"][0] |= {"job": "other", "versions": tree["runs"][0]["versions"] | {"torch": "99.0", "datasets": "99.0"}}
    path.write_text(json.dumps(tree))
    notes = []
    merge([one, other], tmp_path / "out", on_note=notes.append)
    (note,) = notes
    assert note.startswith(
        f"{tmp_path}/out:mnist/lenet: its parts were made with torch {here} and 99.0: rows of the one"
    )


def test_what_is_there_is_no_other_file_either(finished_split, tmp_path):
    one = part(finished_split, tmp_path / "one", [0, 1, 2])
    there = part(finished_split, tmp_path / "there", [0])
    path = there / "provenance/mnist/lenet.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": {}}))
    change(shard_of(there, 0))
    with pytest.raises(UserError, match="differs from .*there/"):
        merge([one], there)
    assert not read_provenance(SplitPaths(there, "mnist", "lenet")).is_finished


def test_a_part_that_was_changed_is_left_out(finished_split, tmp_path):
    one = part(finished_split, tmp_path / "one", [0, 1, 2])
    change(shard_of(one, 1))
    notes = []
    with pytest.raises(UserError, match="1 of 3 shards are in none of the parts"):
        merge([one], tmp_path / "out", on_note=notes.append)
    assert notes == [f"{shard_of(one, 1)}: is not the file whose sha256 is on record; it is left out"]
