"""Putting a function around every call of every module: what `mask_padding` and `tap` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flax import linen

from cnn_jax.errors import ModelError

# Around one call: the call itself, its arguments, and the bound module.
Around = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any], linen.Module], Any]


@contextmanager
def intercept_calls(around: Around) -> Iterator[None]:
    """Put `around` around the `__call__` of every module that is applied inside.

    A module class made by `flax.linen.jit` is refused: it may reuse a trace from before,
    without `around` in it. (A method decorated with it does the same and cannot be told
    apart.) Jit the function that applies the model instead.

    Raises:
      ModelError: a module class made by `flax.linen.jit` is called.
    """

    def interceptor(
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: linen.module.InterceptorContext,
    ) -> Any:
        kind = type(context.module)
        if kind.__module__ == "flax.linen.transforms" and kind.__name__.startswith("Jit"):
            raise ModelError(
                f"{kind.__name__} was made by flax.linen.jit, whose cached trace mask_padding and "
                "tap cannot reach: jit the function that applies the model instead"
            )
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        return around(call, args, kwargs, context.module)

    with linen.intercept_methods(interceptor):
        yield
