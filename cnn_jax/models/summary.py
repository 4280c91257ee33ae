"""How large a model is and how much it computes, without compiling anything."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.models.registry import create
from cnn_jax.ops import CONVOLUTION


@dataclass(frozen=True)
class ModelSummary:
    """A row of the table of models.

    Attributes:
      name: as `create` knows it.
      image_shape: (H, W, C), or (D, H, W, C) of volumes, that the figures are for.
      parameters: number of trained values.
      flops: of one image, forward: twice the multiply-adds of convolutions and products.
      stem: what the first layers are, where `small_stem` chooses them by the size of the image
        (the class has `STEMS`), else `none`.
    """

    name: str
    image_shape: tuple[int, ...]
    parameters: int
    flops: int
    stem: str


def count_parameters(variables: Mapping[str, Any]) -> int:
    """The number of values in the collection `params` (of arrays or of their shapes)."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def count_flops(model: nn.Module, image_shape: Sequence[int], train: bool = False) -> int:
    """Floating-point operations of the forward pass for one image.

    Two for each multiply-add of a convolution or a matrix product, as XLA is asked for them;
    everything else (norms, activations, pooling) is left out, as is the field's custom. A
    product with padding or with the zeros of a dilated input counts like any other.

    Args:
      model: a module that is called with images and `train`.
      image_shape: (H, W, C), or (D, H, W, C) of volumes.
      train: count the call with `train=True`.

    Raises:
      ModelError: the model loops an unknown number of times.
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def forward(variables: Any, image: jax.Array, key: jax.Array) -> Any:
        return model.apply(variables, image, train=train, rngs={"dropout": key}, mutable=True)

    variables = jax.eval_shape(model.init, key, image)
    return 2 * _multiply_adds(jax.make_jaxpr(forward)(variables, image, key).jaxpr)


def describe(
    name: str, *, num_classes: int, image_shape: Sequence[int], **options: Any
) -> ModelSummary:
    """Size and computation of a model for images of `image_shape`, (H, W, C) or (D, H, W, C).

    Raises:
      ModelError: as `create`.
    """
    model = create(name, num_classes=num_classes, image_size=image_shape[:-1], **options)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return ModelSummary(
        name=name,
        image_shape=tuple(image_shape),
        parameters=count_parameters(variables),
        flops=count_flops(model, image_shape),
        stem=model.STEMS[model.small_stem] if hasattr(model, "small_stem") else "none",
    )


def _multiply_adds(jaxpr: Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: JaxprEqn) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name in (CONVOLUTION, "conv_general_dilated", "dot_general"):
        left, right = (_shape(variable) for variable in equation.invars)
        outputs = math.prod(_shape(equation.outvars[0]))
        if name != "dot_general":
            features = right[parameters["dimension_numbers"].rhs_spec[0]]
            return outputs * (math.prod(right) // features)
        (contracted, _), _ = parameters["dimension_numbers"]
        return outputs * math.prod(left[axis] for axis in contracted)
    inner = [_multiply_adds(jaxpr) for jaxpr in _jaxprs_in(parameters)]
    if name == "scan":
        return int(parameters["length"]) * sum(inner)
    if name == "cond":
        return max(inner)
    if name == "while" and any(inner):
        raise ModelError("the model loops an unknown number of times: its FLOPs have no count")
    return sum(inner)


def _jaxprs_in(parameters: Mapping[str, Any]) -> Iterator[Jaxpr]:
    for value in parameters.values():
        for entry in value if isinstance(value, tuple | list) else (value,):
            if isinstance(entry, ClosedJaxpr):
                yield entry.jaxpr
            elif isinstance(entry, Jaxpr):
                yield entry


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(variable.aval.shape)
