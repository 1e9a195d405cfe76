"""Which figures differ beyond chance, of classifiers on the same images."""

import numpy as np
import pytest

from fmrgen.results.simultaneous import above


@pytest.mark.parametrize(("noise", "is_apart"), [(0.01, True), (1.0, False)], ids=["same mistakes", "own mistakes"])
def test_a_difference_is_judged_by_its_own_error(noise, is_apart):
    """Two figures 0.05 apart, each known to 0.05: apart only if the same rows decide both. A third has its own rows."""
    random = np.random.default_rng(0)
    first, third = random.normal(size=(2, 400))
    influences = np.stack([first, (1 - noise) * first + noise * random.normal(size=400), third])
    (found,) = above([np.array([0.55, 0.50, 0.52])], [influences])
    assert found.tolist() == [[False, is_apart, False], [False, False, False], [False, False, False]]
