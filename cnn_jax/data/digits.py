"""The small handwritten digits that come with the package: 1,797 grey images of 8 x 8.

The values 0..16 of the source become 0..255 as round(v * 255 / 16). DIGITS_NOTICE.md says
where the images come from and under which licence.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cnn_jax.data.reading import Part, Reading

# In the order of the source, so that people who wrote similar digits fall into one part.
_PART_SIZES = {"train": 1257, "validation": 180, "test": 360}


def read_digits() -> Reading:
    """Train, validation and test: the first 1,257, the next 180, the last 360 images."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as arrays:
        values, labels = arrays["images"], arrays["labels"]
    images = np.round(values * (255 / 16)).astype(np.uint8)[..., None]
    ids = np.array([f"{i:04d}" for i in range(len(images))], dtype=np.str_)
    parts, start = {}, 0
    for part, size in _PART_SIZES.items():
        here = slice(start, start + size)
        label = labels[here].astype(np.int32)
        parts[part] = Part(images=images[here], targets={"label": label}, ids=ids[here])
        start += size
    return Reading(parts=parts, classes={"label": tuple("0123456789")})
