"""What is claimed to fail: a kind of real images, or one mistake on them."""

import numpy as np

SHARE_OF_KIND = 0.2  # of the images: those that have most of an attribute


def most_of(measures: np.ndarray, sign: int) -> np.ndarray:
    """Return which images have most of an attribute, bool [N]: a fifth of them.

    Args:
        measures: what the attribute measures in each image, [N].
        sign: 1 for those that have most, -1 for least, 0 for those furthest from the median.
    """
    amounts = np.abs(measures - np.median(measures)) if sign == 0 else sign * measures
    is_of_kind: np.ndarray = amounts >= np.quantile(amounts, 1 - SHARE_OF_KIND)
    return is_of_kind
