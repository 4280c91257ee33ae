"""Margins on the angle between an embedding and the centre of its class, as pure functions.

The logit of the right class is made smaller while training, s psi(theta) instead of s cos theta,
so that classes are learned apart by more than what is needed to tell them apart. Gradients are
those of the formulas, not of what autodiff makes of arccos near its ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.errors import ModelError, RecipeError
from cnn_jax.nn.centres import cosines, rescaled

SMALLEST_SINE = 2.0**-32  # float32 vectors cannot be told from parallel ones below it


@dataclass(frozen=True)
class Margin:
    """psi(theta) = cos(m1 theta + m2) - m3 (Deng et al. 2019, ArcFace, eq. 4).

    The cosine would rise again where phi = m1 theta + m2 leaves 0..pi. There psi goes on as
    (-1)^k cos(phi) - 2 k - m3 with k = floor(phi / pi) (Liu et al. 2017, SphereFace, eq. 7),
    which falls strictly, has a continuous derivative, and is the same for k = 0.

    Attributes:
      m1, m2, m3: numbers, or arrays `[B]`; any m1 > 0, m2 in radians.

    Raises:
      RecipeError: m1, where it is a number, is not positive.
    """

    m1: Any = 1.0
    m2: Any = 0.0
    m3: Any = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.m1, int | float) and not self.m1 > 0:
            raise RecipeError(f"m1 must be positive, not {self.m1}")

    @classmethod
    def sphereface(cls, m: Any = 1.35) -> Margin:
        """cos(m theta). Liu et al. 2017 took m = 4 and came to it slowly; 1.35 is what needs no
        such annealing (Deng et al. 2019, table 2)."""
        return cls(m1=m)

    @classmethod
    def cosface(cls, m: Any = 0.35) -> Margin:
        """cos(theta) - m (Wang et al. 2018, CosFace, eq. 4)."""
        return cls(m3=m)

    @classmethod
    def arcface(cls, m: Any = 0.5) -> Margin:
        """cos(theta + m) (Deng et al. 2019, ArcFace, eq. 3)."""
        return cls(m2=m)

    def __call__(self, theta: jax.Array, supplement: jax.Array) -> jax.Array:
        """psi, float32 `[B]`, of the angle and of pi less the angle; see `angles`."""
        m1, m2, m3 = (jnp.asarray(m, jnp.float32) for m in (self.m1, self.m2, self.m3))
        # From the nearer pole, and without whole turns of m1 pi: phi = n pi + rest.
        far = theta > supplement
        whole = jnp.where(far, jnp.round(m1), jnp.zeros_like(m1))
        rest = jnp.where(far, (m1 - whole) * math.pi + m2 - m1 * supplement, m1 * theta + m2)
        half_turns = jnp.floor(rest / math.pi)
        sign = 1 - 2 * (half_turns % 2)
        return sign * jnp.cos(rest) - 2 * (whole + half_turns) - m3


def adaface(norm: jax.Array, valid: jax.Array, *, m: Any = 0.4, h: Any = 0.333) -> Margin:
    """The margin of Kim et al. 2022, AdaFace, sec. 3: larger for images of a large norm.

    m2 = -m z, m3 = m + m z with z = clip(h (norm - mean) / (std + 0.001), -1, 1). Norms are cut
    to 0.001..100; mean and standard deviation (of n - 1) are those of the batch, as in the
    authors' code with `t_alpha = 1`: no average over steps is kept. No gradient flows through z.
    The authors cut theta + m2 to 0..pi, which stops the gradient beyond; here psi goes on.

    Args:
      norm: lengths of the embeddings, `[B]`.
      valid: which rows count, bool `[B]`.
      m: margin of an image of mean norm; h: how many of a standard deviation z is.
    """
    norm = jnp.clip(lax.stop_gradient(norm), 1e-3, 100.0)
    counts = valid.astype(jnp.float32)
    n = counts.sum()
    mean = (norm * counts).sum() / jnp.maximum(n, 1)
    variance = ((norm - mean) ** 2 * counts).sum() / jnp.maximum(n - 1, 1)
    z = jnp.clip(h * (norm - mean) / (jnp.sqrt(variance) + 1e-3), -1, 1)
    return Margin(m2=-m * z, m3=m + m * z)


def magface(
    norm: jax.Array,
    *,
    norms: tuple[Any, Any] = (10.0, 110.0),
    margins: tuple[Any, Any] = (0.45, 0.8),
) -> tuple[Margin, jax.Array]:
    """The margin of Meng et al. 2021, MagFace, sec. 3: m2 rises linearly with the norm.

    Args:
      norm: lengths of the embeddings, `[B]`.
      norms: l_a and u_a; a norm outside is cut to them, without a gradient.
      margins: m2 at either.

    Returns:
      The margin, and the regulariser g = norm / u_a^2 + 1 / norm, `[B]`, which favours long
      embeddings. Gradients flow through both.
    """
    (shortest, longest), (least, most) = norms, margins
    a = jnp.clip(norm, shortest, longest)
    margin = Margin(m2=least + (most - least) * (a - shortest) / (longest - shortest))
    return margin, a / longest**2 + 1 / a


def norm_of(embedding: jax.Array) -> jax.Array:
    """Lengths float32 `[B]` of embeddings `[B, D]`; the gradient at 0 is 0."""
    y, scale = rescaled(embedding)
    square = (y**2).sum(axis=1)
    length = jnp.sqrt(jnp.where(square > 0, square, jnp.ones_like(square)))
    return jnp.where(square > 0, length, jnp.zeros_like(length)) * scale[:, 0]


def margin_logits(
    embedding: jax.Array,
    centres: jax.Array,
    label: jax.Array,
    margin: Margin,
    *,
    scale: Any = 64.0,
    straight_through: bool = False,
) -> jax.Array:
    """Logits with a margin: s psi(theta) for the right class, s cos theta for the others.

    A class's angle is that of its nearest sub-centre. The whole is computed in float32.

    Args:
      embedding: `[B, D]`, of any length; without one above 1e-30 all cosines and the gradient
        are 0.
      centres: `[K, S, D]`, of any length.
      label: int32 `[B]`.
      margin: psi.
      scale: s.
      straight_through: whether the gradient is that of s cos theta for the right class, too, as
        in insightface's `arcface_torch`, where the margin is added under `no_grad`. The gradient
        of psi is sin(m1 theta + m2) m1 / sin(theta) times as large.

    Returns:
      float32 `[B, K]`.

    Raises:
      ModelError: the shapes do not fit.
    """
    if embedding.ndim != 2 or centres.ndim != 3 or embedding.shape[1] != centres.shape[2]:
        raise ModelError(
            f"embeddings {list(embedding.shape)} and centres {list(centres.shape)} must be [B, D] "
            "and [K, S, D]"
        )
    cosine = cosines(embedding, centres)
    right = lax.broadcasted_iota(jnp.int32, cosine.shape[:2], 1) == label[:, None]
    of_label = jnp.take_along_axis(lax.stop_gradient(cosine), label[:, None, None], axis=1)
    own = centres[label, of_label[:, 0].argmax(axis=1)]
    angle = angles(embedding.astype(jnp.float32), own.astype(jnp.float32))
    psi = margin(*angle)
    if straight_through:
        plain = Margin()(*angle)
        psi = plain + lax.stop_gradient(psi - plain)
    return scale * jnp.where(right, psi[:, None], cosine.max(axis=2))


@jax.custom_jvp
def angles(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The angle between two vectors, and pi less the angle, each with all its digits.

    theta = atan2(|r|, |p|), p the part of w along x and r the rest. The gradient with respect to
    x is -u / |x| with u = r / |r| (and likewise for w), which does not vanish where theta does.
    At an angle of 0 or pi (within 2^-32), and where a vector has no component above 1e-30, the
    direction u is undefined, and the gradient is 0. Without a direction the angle is pi / 2.

    Args:
      x, w: float32 `[B, D]`.

    Returns:
      theta and pi - theta, float32 `[B]`.
    """
    (x, _), (w, _) = rescaled(x), rescaled(w)
    rest, along = _parts(x, w)
    # Of a vector without direction both parts are 0, or the other vector is all rest.
    nothing = (rest == 0) & (along == 0)
    rest = jnp.where(nothing, jnp.ones_like(rest), rest)
    return jnp.arctan2(rest, along), jnp.arctan2(rest, -along)


@angles.defjvp
def _angles_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    x, w = primals
    turn = -(_away(x, w) * tangents[0]).sum(axis=1) - (_away(w, x) * tangents[1]).sum(axis=1)
    return angles(x, w), (turn, -turn)


def _away(x: jax.Array, w: jax.Array) -> jax.Array:
    """u / |x| `[B, D]`, u the unit vector across x that points to w, or 0."""
    (x, scale), (w, _) = rescaled(x), rescaled(w)
    across = _across(x, w)
    length, of_x, of_w = _length(across), _length(x), _length(w)
    defined = (length > SMALLEST_SINE * of_w) & (of_x > 0)
    bottom = jnp.where(defined, length * of_x, jnp.ones_like(length))
    return jnp.where(defined, across, jnp.zeros_like(across)) / bottom / scale


def _parts(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Length of what of w lies across x, and of what lies along it, with a sign; `[B]`."""
    of_x = _length(x)
    along = (x * w).sum(axis=1, keepdims=True) / jnp.where(of_x > 0, of_x, jnp.ones_like(of_x))
    return _length(_across(x, w))[:, 0], along[:, 0]


def _across(x: jax.Array, w: jax.Array) -> jax.Array:
    """w - (w.x / x.x) x of rescaled vectors, to a rounding of itself and not of w; `[B, D]`.

    Of nearly parallel vectors the difference is small, and products of 24 bits would be rounded
    at the size of w. They are made of halves of 12 bits, whose products are exact, whether or not
    a compiler fuses multiplications with additions.
    """
    square = (x**2).sum(axis=1, keepdims=True)
    square = jnp.where(square > 0, square, jnp.ones_like(square))
    a = (x * w).sum(axis=1, keepdims=True) / square
    (a_high, a_low), (x_high, x_low) = _halves(a), _halves(x)
    rest = w - a_high * x_high - a_high * x_low - a_low * x_high - a_low * x_low
    # What rounding `a` has left along x.
    return rest - (rest * x).sum(axis=1, keepdims=True) / square * x


def _halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    high = lax.reduce_precision(x, 8, 11)
    return high, x - high


def _length(x: jax.Array) -> jax.Array:
    return jnp.sqrt((x**2).sum(axis=1, keepdims=True))
