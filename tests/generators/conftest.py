"""A small generator of the family that a test is for."""

import pytest
from families import FAMILIES
from torch import nn


@pytest.fixture(scope="module")
def built(family, tmp_path_factory):
    return FAMILIES[family](tmp_path_factory.mktemp("family")).build()


@pytest.fixture
def doubled(built, double):
    """The same in float64, as all that the test makes."""
    networks = [value for value in vars(built).values() if isinstance(value, nn.Module)]
    for network in networks:
        network.double()
    yield built
    for network in networks:
        network.float()
