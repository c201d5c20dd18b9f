"""scikit-learn's handwritten digits, which need no download."""

from __future__ import annotations

import numpy as np

from patchlight.data.listing import Listing, from_arrays
from patchlight.data.stratify import cut_off

SIZE = 32  # pixels a side that they are enlarged to, unless data.image_size says otherwise

# The test split is the same for everyone, whatever data.split_seed says.
TEST_SHARE = 0.2
TEST_SEED = 0


def list_digits() -> Listing:
    """1,797 digits, 8 x 8 grey values of 0..16, as RGB of 0..255; a fifth of each class is the test split."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(grey[:, None], 3, axis=1)
    labels = digits.target.astype(np.int64)
    train, test = cut_off(labels, TEST_SHARE, TEST_SEED)
    splits = {
        "train": from_arrays(pixels[train], labels[train], "digits train"),
        "test": from_arrays(pixels[test], labels[test], "digits test"),
    }
    names = tuple(str(name) for name in digits.target_names)
    return Listing(splits, names, size=SIZE)
