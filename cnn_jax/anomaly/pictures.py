"""Score maps at the size of the images, to look at and to compare with masks."""

from __future__ import annotations

import numpy as np

from cnn_jax.errors import DataError


def enlarged(maps: np.ndarray, size: tuple[int, int], *, sigma: float = 4.0) -> np.ndarray:
    """Score maps resized bilinearly to the size of the images, then blurred.

    Both are of PaDiM (Defard et al. 2021) and PatchCore (Roth et al. 2022), who blur with a
    Gaussian of 4 pixels at 224 x 224. Patches stand for the middle of what they cover (half-pixel
    centres), and at the borders values are repeated. The blur lowers peaks: image scores are of
    the maps as they were.

    Args:
      maps: float `[M, h, w]`, of `score_maps`.
      size: H and W of the images.
      sigma: of the Gaussian, in pixels of the images; 0 for none. It is cut off at 4 sigma.

    Returns:
      float64 `[M, H, W]`.

    Raises:
      DataError: maps of another shape, a size that is not positive, or a negative sigma.
    """
    from scipy.ndimage import gaussian_filter  # type: ignore[attr-defined]

    if maps.ndim != 3 or 0 in maps.shape[1:]:
        raise DataError(f"score maps are {list(maps.shape)}, not [M images, h rows, w columns]")
    if min(size) < 1 or not sigma >= 0:
        raise DataError(f"a size of {list(size)} and a sigma of {sigma}: give positive ones")
    rows, columns = (_bilinear(n, k) for n, k in zip(size, maps.shape[1:], strict=True))
    large = rows @ maps.astype(np.float64) @ columns.T
    return gaussian_filter(large, (0, sigma, sigma)) if sigma else large


def _bilinear(n: int, k: int) -> np.ndarray:
    """float64 `[n, k]`: what each of n pixels takes of each of k values, rows summing to 1."""
    at = np.clip((np.arange(n) + 0.5) * k / n - 0.5, 0, k - 1)
    return np.maximum(1 - np.abs(at[:, np.newaxis] - np.arange(k)), 0)
