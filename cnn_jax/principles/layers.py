"""The layers of a network in the order in which they are called, and what sharing saves in each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from cnn_jax import nn
from cnn_jax.nn.interception import intercept_calls
from cnn_jax.principles.sharing import Cost, Kind


@dataclass(frozen=True)
class Layer:
    """One call of one submodule.

    Attributes:
      path: as `nn.tap` has it.
      kind: the module's class, such as `Conv`.
      inputs, outputs: shapes without the batch.
      kernel: shape of its own kernel, `[h, w, C / groups, D]` of a convolution of images; None if
        it has none.
    """

    path: str
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: tuple[int, ...] | None

    @property
    def convolves(self) -> bool:
        """Whether it is a convolution of maps `[h, w, C]`."""
        maps = len(self.inputs) == 3 and len(self.outputs) == 3
        return maps and self.kernel is not None and len(self.kernel) == 4

    def costs(self) -> dict[Kind, Cost]:
        """Its cost, and that of layers with the same input and output that do not share weights.

        Of a convolution alone; products with padding count, biases do not. See `sharing.costs`. Of
        a transposed one every position of the input, which is the smaller map, is a window.
        """
        if not self.convolves or self.kernel is None:
            return {}
        window = math.prod(self.kernel)
        transposed = self.kind.endswith("ConvTranspose")
        positions = math.prod((self.inputs if transposed else self.outputs)[:2])
        dense = math.prod(self.inputs) * math.prod(self.outputs)
        return {
            "convolution": Cost(window, positions * window),
            "locally connected": Cost(positions * window, positions * window),
            "dense": Cost(dense, dense),
        }


def layers(
    model: linen.Module, variables: Mapping[str, Any], image_shape: Sequence[int]
) -> list[Layer]:
    """Every call of a submodule that takes and gives one array of the images, in order of ending.

    Nothing is computed, so that `variables` may be shapes.

    Args:
      model: any Linen module of the contract, `model.apply(variables, image, train=False)`.
      variables: its variables, or their shapes.
      image_shape: (H, W, C).
    """
    image = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    known = nn.tap_paths(model, variables, image, train=False)
    times: dict[str, int] = {}
    found: list[Layer] = []

    def record(
        call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
        module: linen.Module,
    ) -> Any:  # fmt: skip
        output = call(*args, **kwargs)
        base = "/".join(module.path)
        times[base] = times.get(base, -1) + 1
        path = f"{base}#{times[base]}" if times[base] else base
        given: Any = args[0] if args else None
        if path in known and _of_images(given) and _of_images(output):
            kernel: Any = module.get_variable("params", "kernel")
            shape = None if kernel is None else tuple(kernel.shape)
            kind = type(module).__name__
            found.append(Layer(path, kind, given.shape[1:], output.shape[1:], shape))
        return output

    with intercept_calls(record):
        jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, image)
    return found


def main_layers(found: Sequence[Layer]) -> list[Layer]:
    """Those that the model calls itself; of one that calls fewer than three, one level deeper.

    Where a level holds no three layers either, all.
    """
    for depth in range(1, 5):
        level = [layer for layer in found if layer.path.count("/") < depth]
        if len(level) >= 3:
            return level
    return list(found)


def _of_images(value: Any) -> bool:
    return hasattr(value, "shape") and len(value.shape) in (2, 4) and value.shape[0] == 2
