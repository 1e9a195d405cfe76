"""What the terminal shows."""

import pytest

from fmrgen.cli.display import _rate


@pytest.mark.parametrize(
    ("images", "seconds", "shown"), [(3, 2.0, "1.5 images/s"), (1, 4.0, "4.0 s/image"), (0, 4.0, "– images/s")]
)
def test_rates_below_one_are_told_as_seconds(images, seconds, shown):
    assert _rate(images, seconds) == shown
