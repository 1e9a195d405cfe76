"""Judged splits that tests change."""

import shutil

import pytest


@pytest.fixture
def own(judged, tmp_path):
    """A copy of the split that the tests of a file share, `judged`, to be changed."""
    return shutil.copytree(judged, tmp_path / "out")
