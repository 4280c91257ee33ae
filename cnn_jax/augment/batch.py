"""What all transforms share: the batch, one key per example, and what each key is for."""

from __future__ import annotations

import enum

import jax
import jax.numpy as jnp

Batch = dict[str, jax.Array]


class Purpose(enum.IntEnum):
    """What a key is used for. A number never changes: recorded runs must stay as they are."""

    TRANSLATE = 0
    FLIP = 1
    CUTOUT = 2
    MIXUP = 3
    FLIP_VERTICAL = 4
    FLIP_DEPTH = 5
    ROTATE = 6
    SCALE = 7
    SHEAR = 8
    CROP = 9
    BRIGHTNESS = 10
    CONTRAST = 11
    SATURATION = 12
    HUE = 13
    BLUR = 14
    NOISE = 15
    ERASE = 16
    CUTMIX = 17
    MIXUP_OR_CUTMIX = 18
    POLICY = 19
    PATCH = 20
    DEFECTS = 21
    COPY_PASTE = 22


def example_keys(key: jax.Array, batch_size: int) -> jax.Array:
    """One key per example, `[B]`, folded from the position in the global batch.

    What happens to an example then depends on neither the number of devices nor the
    padding behind it.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(batch_size))


def keys_for(key: jax.Array, batch_size: int, purpose: Purpose) -> jax.Array:
    """A key per example that only one transform uses: adding one never changes another."""
    keys = example_keys(key, batch_size)
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, int(purpose))


def following(batch_size: int, valid: jax.Array | None) -> jax.Array:
    """Position of the next example of each, `[B]`: of the last valid one the first.

    Rows of padding, which `valid` (bool `[B]`, or None for none of them) tells, come last and
    follow nothing.
    """
    count: jax.Array | int = batch_size
    if valid is not None:
        count = jnp.maximum(valid.sum(dtype=jnp.int32), 1)
    return (jnp.arange(batch_size) + 1) % count


def uniform(keys: jax.Array, low: float, high: float, shape: tuple[int, ...] = ()) -> jax.Array:
    """float32 `[B, *shape]`, uniform in [low, high)."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape, jnp.float32, low, high))(keys)


def beside(values: jax.Array, of: jax.Array) -> jax.Array:
    """Values `[B]` as `[B, 1, 1, ...]`, to multiply an array `[B, ...]`."""
    return values.reshape((-1,) + (1,) * (of.ndim - 1))
