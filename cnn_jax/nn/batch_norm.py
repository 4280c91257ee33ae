"""Batch normalisation, and `mask_padding`, under which padded rows never count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from cnn_jax.errors import ModelError
from cnn_jax.nn.interception import intercept_calls


class BatchNorm(linen.BatchNorm):
    """Flax's batch normalisation with an exact variance by default.

    Fields, variables and results are those of `flax.linen.BatchNorm`, but
    `use_fast_variance` is False: E[x²] - E[x]² loses as many digits as the mean exceeds the
    standard deviation, and in float32 a mean of 1000 deviations leaves one digit. Here the
    mean is subtracted first (Ioffe & Szegedy 2015, algorithm 1). Statistics are float32
    whatever the dtype. In a jitted step whose batch is sharded over devices they are those
    of the whole batch, without `axis_name`.
    """

    use_fast_variance: bool = False

    # Not wrapped: for Flax, and for whoever intercepts methods, there is one call, the
    # inherited one.
    @linen.nowrap
    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Normalise `x`, `[B, ..., C]`.

        Args:
          x: floating-point input.
          use_running_average: use the stored statistics instead of those of the batch; may
            be given here or as a field, not both.
          mask: bool, broadcasts to `x`: where statistics are taken. At least one True.

        Returns:
          The shape of `x`, in the field `dtype` or the dtype of input and parameters.
        """
        # Flax lets bfloat16 meet float32 statistics, which strict promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            y: jax.Array = super().__call__(x, use_running_average, mask=mask)
        return y


@contextmanager
def mask_padding(valid: jax.Array) -> Iterator[None]:
    """Leave padded rows out of every batch statistic, in any Linen module applied inside.

    Every `BatchNorm`, ours or Flax's, is given `mask=valid` unless its caller passed a mask,
    also in nested modules and inside `remat` and `scan`. A batch without a single valid row
    leaves the running statistics as they were. Outputs and gradients of the valid rows are
    those of the batch without padding, if the loss gives padded rows no weight.

        with nn.mask_padding(batch["valid"]):
            logits, updates = model.apply(variables, image, train=True, mutable=["batch_stats"])

    Args:
      valid: bool `[B]`, False for padded rows; may be traced.

    Raises:
      ModelError: `valid` is not bool `[B]`, a batch norm's input has another leading axis, or
        a module was made by `flax.linen.jit` (jit the function that applies the model).
    """
    if valid.ndim != 1 or valid.dtype != jnp.bool_:
        raise ModelError(f"valid must be bool [B], not {valid.dtype} {list(valid.shape)}")
    any_valid = valid.any()
    # A mean over nothing is NaN; with no valid row, any finite statistics will do.
    rows = valid | ~any_valid

    def masked(
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        module: linen.Module,
    ) -> Any:
        if not isinstance(module, linen.BatchNorm) or kwargs.get("mask") is not None:
            return call(*args, **kwargs)
        x = args[0] if args else kwargs["x"]
        if x.shape[:1] != valid.shape:
            raise ModelError(
                f"batch norm {'/'.join(module.path)!r} has input {list(x.shape)}, but "
                f"mask_padding was given {valid.shape[0]} rows: give that batch norm a mask"
            )
        before = dict(module.variables.get("batch_stats", {}))
        mask = rows.reshape((-1,) + (1,) * (x.ndim - 1))
        outputs = call(*args, **{**kwargs, "mask": mask})
        if module.is_mutable_collection("batch_stats"):
            for name, old in before.items():
                new: jax.Array = module.get_variable("batch_stats", name)
                module.put_variable("batch_stats", name, jnp.where(any_valid, new, old))
        return outputs

    with intercept_calls(masked):
        yield
