"""What a reference names, and where that lies."""

import pytest
from datasets import Dataset

from fmrgen import open_split
from fmrgen.errors import UserError
from fmrgen.split.reference import locate, parse_reference


def test_a_config_without_a_split_lists_its_splits(finished_split):
    with pytest.raises(UserError, match=rf"out:mnist: is not a split; found {finished_split}:mnist/lenet$"):
        parse_reference(f"{finished_split}:mnist")
    with pytest.raises(UserError, match=r"out:other: is not a split; say FOLDER:CONFIG/SPLIT"):
        parse_reference(f"{finished_split}:other")
    assert parse_reference(f"{finished_split}:mnist/lenet")[2:] == ("mnist", "lenet")


def test_a_reference_becomes_one_record_of_where_the_split_lies(finished_split, tmp_path):
    located = locate(f"{finished_split}")
    assert (located.kind, located.reference) == ("split", (f"{finished_split}", None, "mnist", "lenet"))
    assert located.files == [f"{finished_split}/{file}" for file in located.provenance.files]
    theirs = locate(f"{finished_split}:mnist/other")
    assert (theirs.kind, theirs.own_splits, theirs.provenance) == ("dataset", [("mnist", "lenet")], None)
    pattern = f"{finished_split}/**/*.parquet"
    assert (locate(pattern).kind, sorted(locate(pattern).files)) == ("files", sorted(located.files))


def test_a_folder_of_save_to_disk_is_no_split(tmp_path):
    Dataset.from_dict({"image": [b"x"], "label": [0]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match=r"saved: is a folder of save_to_disk, no split; write its rows with to_parq"):
        open_split(f"{tmp_path}/saved")
