"""Are first layers edge detectors? The Gabor function nearest to each filter.

A Gabor function is a wave under a Gaussian, the shape of the simple cells of the visual cortex
(Jones & Palmer 1987), and so are many first filters of networks (Krizhevsky et al. 2012). It has
seven parameters and a filter of 3 x 3 pixels nine numbers, so that nearly anything fits: the fit
stands beside that of noise of the same shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from cnn_jax.errors import EvaluationError

_ANGLES, _WAVELENGTHS = 6, (2.2, 3.5, 6.0, 12.0)  # of the starting points


@dataclass(frozen=True, eq=False)
class GaborFits:
    """The nearest Gabor function of each filter.

    g(y, x) = exp(-(u² / sigma² + v² / sigma_v²) / 2) (a cos 2π u / wavelength +
    b sin 2π u / wavelength), where u = (x - cx) cos θ + (y - cy) sin θ points across the stripes
    and v along them.

    Attributes:
      r2: float64 `[D]`, the share of a filter's energy that the function explains.
      wavelength: float64 `[D]`, pixels.
      orientation: float64 `[D]`, θ in radians, in [0, π): 0 for vertical stripes.
      sigma: float64 `[D, 2]`, pixels across and along the stripes.
      fitted: float64 `[D, h, w]`, the functions.
      noise_r2: float64 `[M]`, r2 of fits to white noise of this size: what r2 is worth.
    """

    r2: np.ndarray
    wavelength: np.ndarray
    orientation: np.ndarray
    sigma: np.ndarray
    fitted: np.ndarray
    noise_r2: np.ndarray


def gabor_fits(kernel: Any, *, noise: int = 50, seed: int = 0) -> GaborFits:
    """Fit a Gabor function to each filter of a first layer, by least squares from many starts.

    Of several channels in, the pattern is that of the filter's first principal component over
    channels: the weights that the channels share, up to a colour.

    Args:
      kernel: `[h, w, C, D]`, 3 x 3 or larger.
      noise: filters of white noise to fit as well, one channel each.
      seed: of the noise.

    Raises:
      EvaluationError: another shape, smaller filters, or values that are not finite.
    """
    values = np.asarray(kernel, np.float64)
    if values.ndim != 4 or min(values.shape[:2]) < 3 or not np.isfinite(values).all():
        raise EvaluationError(
            f"Gabor functions are fitted to finite filters [h, w, C, D] of 3 x 3 or more, not to "
            f"{list(values.shape)}"
        )
    patterns = patterns_of(values)
    fits = [_fit(pattern) for pattern in patterns]
    rng = np.random.default_rng(seed)
    of_noise = [_fit(rng.normal(size=patterns.shape[1:]))[0] for _ in range(noise)]
    r2, parameters, fitted = zip(*fits, strict=True)
    found = np.array(parameters)
    return GaborFits(
        np.array(r2), found[:, 3], found[:, 2] % np.pi, found[:, 4:6], np.array(fitted),
        np.array(of_noise),
    )  # fmt: skip


def patterns_of(kernel: np.ndarray) -> np.ndarray:
    """float64 `[D, h, w]`: the first principal component over channels of `[h, w, C, D]`.

    Signed so that the sum of its weights over channels is not negative.
    """
    height, width, channels, features = kernel.shape
    found = []
    for filter_ in np.moveaxis(np.asarray(kernel, np.float64), 3, 0):
        flat = filter_.reshape(height * width, channels)
        pixels, sizes, weights = np.linalg.svd(flat, full_matrices=False)
        sign = -1.0 if weights[0].sum() < 0 else 1.0
        found.append(sign * sizes[0] * pixels[:, 0].reshape(height, width))
    return np.array(found).reshape(features, height, width)


def _waves(shape: Sequence[int], parameters: np.ndarray) -> np.ndarray:
    """float64 `[h w, 2]`: the even and the odd wave, each under the Gaussian."""
    cy, cx, angle, wavelength, across, along = parameters
    y, x = np.mgrid[: shape[0], : shape[1]]
    u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    v = -(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
    envelope = np.exp(-((u / across) ** 2 + (v / along) ** 2) / 2)
    phase = 2 * np.pi * u / wavelength
    waves = np.stack([envelope * np.cos(phase), envelope * np.sin(phase)], axis=-1)
    return waves.reshape(-1, 2)


def _heights(waves: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """float64 `[2]`: the least squares solution, by the normal equations of two unknowns."""
    (a, b), (_, d) = waves.T @ waves
    right = waves.T @ flat
    a, d = a + 1e-12 * (a + d), d + 1e-12 * (a + d)  # the odd wave may vanish
    found: np.ndarray = np.array([d * right[0] - b * right[1], a * right[1] - b * right[0]])
    return found / max(a * d - b * b, 1e-300)


def _fit(pattern: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """r2, (cy, cx, angle, wavelength, sigma across, along), and the function `[h, w]`."""
    shape, flat = pattern.shape, pattern.ravel()
    energy = float(flat @ flat)
    longest = float(max(shape))
    low = np.array([-0.5, -0.5, -np.inf, 2.0, 0.4, 0.4])
    high = np.array([shape[0] - 0.5, shape[1] - 0.5, np.inf, 4 * longest, 2 * longest, 2 * longest])
    if energy == 0:
        return 0.0, np.array([0, 0, 0, np.nan, np.nan, np.nan]), np.zeros(shape)

    def left(parameters: np.ndarray) -> np.ndarray:
        # Height and phase are linear: given the rest, the best are found at once.
        waves = _waves(shape, parameters)
        return (waves @ _heights(waves, flat) - flat) / np.sqrt(energy)

    middle = [(shape[0] - 1) / 2, (shape[1] - 1) / 2]
    spread = max(0.5, longest / 4)
    starts = [
        np.array([*middle, np.pi * i / _ANGLES, wavelength, spread, spread])
        for i in range(_ANGLES)
        for wavelength in _WAVELENGTHS
        if wavelength < 4 * longest
    ]
    # The best few of a grid, each followed to where it leads.
    starts.sort(key=lambda start: float((left(start) ** 2).sum()))
    ends = [
        least_squares(left, start, bounds=(low, high), max_nfev=60)  # type: ignore[operator]
        for start in starts[:3]
    ]
    best = min(ends, key=lambda end: float(end.cost)).x
    fitted = left(best) * np.sqrt(energy) + flat
    r2 = 1 - float(((fitted - flat) ** 2).sum()) / energy
    return r2, best, fitted.reshape(shape)
