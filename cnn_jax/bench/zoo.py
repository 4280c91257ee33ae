"""Every distinct convolution and pooling of the registered models, found by calling them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax import models, nn, ops
from cnn_jax.bench.cases import Convolution, Operation, Pool

BATCHES = (1, 32, 128)
IMAGE_SIZES = (32, 224)  # residual networks have another stem for each
MOST_ELEMENTS = 2**25  # of images and output: 128 MiB in float32 each
# These have more layers, and no operation that a smaller network of their family has not.
DEEPER = frozenset(("resnet34", "resnet101", "resnet152", "iresnet34", "iresnet50", "iresnet100"))


def operations(
    batches: Sequence[int] = BATCHES, image_sizes: Sequence[int] = IMAGE_SIZES
) -> list[Operation]:
    """The operations of all `models.names()`, once each, for each batch and image size.

    Networks that are only `DEEPER` are not called. Left out are operations whose input or output
    has more than `MOST_ELEMENTS` elements.
    """
    found = [
        operation
        for size in image_sizes
        for name in models.names()
        if name not in DEEPER
        for operation in operations_of(name, size, batch=1)
    ]
    batched = (replace(operation, batch=batch) for batch in batches for operation in found)
    return [
        operation
        for operation in dict.fromkeys(batched)
        if math.prod(operation.input_shape) <= MOST_ELEMENTS
        and math.prod(operation.output_shape) <= MOST_ELEMENTS
    ]


def operations_of(name: str, image_size: int, batch: int) -> list[Operation]:
    """The convolutions and poolings of one model of colour images, in the order of its calls.

    Nothing is computed: the model is called with shapes.
    """
    model = models.create(name, num_classes=10, image_size=image_size)
    images = jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.float32)
    with _recording() as found:
        jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), images)
    return found


@contextmanager
def _recording() -> Iterator[list[Operation]]:
    """Collect the calls of the three functions by which layers convolve and pool.

    Here, and not in a traced program, which says how and not what is computed.
    """
    found: list[Operation] = []

    def convolutions(original: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        def convolve(x: Any, w: Any, strides: Any, padding: Any, **options: Any) -> jax.Array:
            found.append(_convolution(x, w, strides, padding, options))
            return original(x, w, strides, padding, **options)

        return convolve

    def poolings(
        kind: Literal["max", "avg"], original: Callable[..., jax.Array]
    ) -> Callable[..., jax.Array]:
        def pool(
            x: Any, window: Any, strides: Any = None, padding: Any = "VALID", **options: Any
        ) -> jax.Array:
            found.append(_pool(kind, x, window, strides, padding))
            return original(x, window, strides, padding, **options)

        return pool

    recorders: list[tuple[Any, str, Callable[..., Any]]] = [
        (ops, "conv_general_dilated", convolutions),
        (nn, "max_pool", partial(poolings, "max")),
        (nn, "avg_pool", partial(poolings, "avg")),
    ]
    originals = [(room, name, getattr(room, name)) for room, name, _ in recorders]
    try:
        for room, name, recorder in recorders:
            setattr(room, name, recorder(getattr(room, name)))
        yield found
    finally:
        for room, name, original in originals:
            setattr(room, name, original)


def _convolution(x: Any, w: Any, strides: Any, padding: Any, options: Any) -> Convolution:
    spatial, kernel = x.shape[1:-1], w.shape[:-2]
    ones = (1,) * len(spatial)
    dilation = tuple(options.get("rhs_dilation") or ones)
    spread = tuple(options.get("lhs_dilation") or ones)
    spread_sizes = [(n - 1) * s + 1 for n, s in zip(spatial, spread, strict=True)]
    windows = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    return Convolution(
        batch=x.shape[0],
        spatial=spatial,
        channels=x.shape[-1],
        features=w.shape[-1],
        kernel=kernel,
        strides=tuple(strides),
        padding=_pairs(spread_sizes, windows, strides, padding),
        dilation=dilation,
        input_dilation=spread,
        groups=options.get("feature_group_count", 1),
    )


def _pool(kind: Literal["max", "avg"], x: Any, window: Any, strides: Any, padding: Any) -> Pool:
    spatial = x.shape[1:-1]
    strides = (1,) * len(spatial) if strides is None else tuple(strides)
    pairs = _pairs(spatial, window, strides, padding)
    return Pool(kind, x.shape[0], spatial, x.shape[-1], tuple(window), strides, pairs)


def _pairs(sizes: Any, windows: Any, strides: Any, padding: Any) -> tuple[tuple[int, int], ...]:
    pairs = (
        lax.padtype_to_pads(sizes, windows, strides, padding)
        if isinstance(padding, str)
        else padding
    )
    return tuple((int(low), int(high)) for low, high in pairs)
