"""What a reference names."""

import pytest

from fmrgen.errors import UserError
from fmrgen.split.reference import parse_reference


def test_a_config_without_a_split_lists_its_splits(finished_split):
    with pytest.raises(UserError, match=rf"out:mnist: names no split; found {finished_split}:mnist/lenet$"):
        parse_reference(f"{finished_split}:mnist")
    with pytest.raises(UserError, match=r"out:other: names no split; say FOLDER:CONFIG/SPLIT"):
        parse_reference(f"{finished_split}:other")
    assert parse_reference(f"{finished_split}:mnist/lenet")[2:] == ("mnist", "lenet")
