"""Dropout that goes on dropping where a model is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from cnn_jax.errors import ModelError
from cnn_jax.nn.interception import intercept_calls


@contextmanager
def keep_dropping() -> Iterator[None]:
    """Let every `Dropout` of a positive rate drop, deterministic or not, in what is traced inside.

    A function that was compiled before is not reached, and one that is compiled inside goes on
    dropping: apply the model itself, or jit a function of its own within.

    For Monte-Carlo dropout (Gal and Ghahramani 2016): the model is applied with `train=False`, so
    that batch statistics stay, and with `rngs={"dropout": key}`.

    Raises:
      ModelError: no such layer was traced.
    """
    dropped = False

    def around(
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        module: linen.Module,
    ) -> Any:
        nonlocal dropped
        if not isinstance(module, linen.Dropout) or not module.rate > 0:
            return call(*args, **kwargs)
        dropped = True
        x = args[0] if args else kwargs["inputs"]
        kept = 1.0 - module.rate
        alike = {axis % x.ndim for axis in module.broadcast_dims}
        shape = [1 if axis in alike else n for axis, n in enumerate(x.shape)]
        key = kwargs.get("rng")
        key = module.make_rng(module.rng_collection) if key is None else key
        mask = jax.random.bernoulli(key, kept, shape)
        return jnp.where(mask, x / kept, 0) if kept else jnp.zeros_like(x)

    with intercept_calls(around):
        yield
    if not dropped:
        raise ModelError(
            "this model drops nothing, so that Monte-Carlo dropout has nothing to vary: train it "
            "with dropout, such as --model.options.dropout 0.2"
        )
