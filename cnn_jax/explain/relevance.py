"""Layer-wise relevance propagation: a logit handed back, layer by layer, in shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.explain.answers import check_images, chosen, logits_of, working_dtype
from cnn_jax.explain.guided import is_relu
from cnn_jax.ops import CONVOLUTION


def layer_relevance(
    model: nn.Module,
    variables: Mapping[str, Any],
    image: jax.Array,
    target: jax.Array,
    *,
    epsilon: float,
) -> jax.Array:
    """R_j = sum_k a_j w_jk / (z_k + epsilon sign z_k) R_k, from the logit to the pixels.

    LRP-epsilon of Bach et al. 2015, of which epsilon = 0 is their first rule, LRP-0. z_k is the
    sum of a_j w_jk and a bias, and whatever is linear between one ReLU and the next is one layer:
    batch normalisation is folded into its convolution, a branch and what it is added to are
    summed in one, and the last pooling belongs to the head. ReLU hands on what it gets, and
    max pooling gives it to the largest.

    Relevance is conserved, sum R = f, where no layer has a bias (nor a shift of batch
    normalisation) and epsilon is 0; a bias keeps its own share, and epsilon takes some of that
    of units near 0. LRP-0 is `gradient_times_input` (Ancona et al. 2018), with biases, too; an
    epsilon quietens it.

    Args:
      model: a Linen module that returns logits `[B, K]`, or a dict with them, made of
        convolutions, dense layers, batch normalisation, ReLUs, pooling and sums.
      variables: its variables; used as in evaluation.
      image: float `[B, H, W, C]`, normalised.
      target: int32 `[B]`, the class of each image.
      epsilon: a Python number, at least 0, in the unit of the activations.

    Returns:
      `[B, H, W, C]`, signed, in logits; float32, or float64 for images that are.

    Raises:
      ModelError: an operation for which there is no rule, such as another activation, or a
        product of two features; a negative epsilon; images, targets or logits of another shape
        or kind; or a class that is none (NaN under `jit`).
    """
    check_images(image, target)
    if not epsilon >= 0:
        raise ModelError(f"epsilon={epsilon} must be at least 0")
    closed = jax.make_jaxpr(lambda v, x: logits_of(model, v)(x))(variables, image)
    fixed = [_Part(leaf, False) for leaf in jax.tree.leaves(variables)]
    back = _Back(float(epsilon))

    def answer(x: jax.Array) -> jax.Array:
        (logits,) = back.through(closed, [*fixed, _Part(x, True)])
        return chosen(back.settled(logits), target).sum()

    dtype = working_dtype(image)
    return image.astype(dtype) * jax.grad(answer)(image).astype(dtype)


# R = a q at each layer, and q goes back as a gradient does, but for the factor that `_shrunk`
# puts in: q_j = sum_k w_jk z_k / (z_k + epsilon sign z_k) q_k. A ReLU has R_a = R_z, and so
# q_z = q_a a / z, which is its gradient.
@jax.custom_vjp
def _shrunk(z: jax.Array, epsilon: jax.Array) -> jax.Array:
    return z


def _forward(z: jax.Array, epsilon: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return z, (z, epsilon)


def _backward(
    kept: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    z, epsilon = kept
    return cotangent * (jnp.abs(z) / (jnp.abs(z) + epsilon)), jnp.zeros_like(epsilon)


_shrunk.defvjp(_forward, _backward)


@dataclass(frozen=True, eq=False)
class _Part:
    """A value in the making: whether the image is in it, and a sum since the last ReLU."""

    value: Any
    seen: bool
    summed: bool = False


_INLINED = ("jit", "pjit", "closed_call", "remat", "remat2", "checkpoint", "custom_jvp_call")
_PRODUCTS = (CONVOLUTION, "conv_general_dilated", "dot_general", "mul")
_SUMS = ("add", "add_any", "sub", "neg", "reduce_sum", "reduce_window_sum", "cumsum")
_PLACES = (
    *("reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims", "slice", "pad", "rev"),
    *("concatenate", "stack", "split", "copy", "convert_element_type", "reduce_precision"),
)
_CHOICES = ("reduce_max", "reduce_window_max")


class _Back:
    """Runs a program, with what the way back needs put in."""

    def __init__(self, epsilon: float) -> None:
        self._epsilon = epsilon

    def through(self, closed: ClosedJaxpr, inputs: Sequence[_Part]) -> list[_Part]:
        """The results of a program."""
        jaxpr = closed.jaxpr
        known = dict(zip(jaxpr.invars, inputs, strict=True))
        known.update(
            (variable, _Part(value, False))
            for variable, value in zip(jaxpr.constvars, closed.consts, strict=True)
        )

        def read(variable: Any) -> _Part:
            return _Part(variable.val, False) if isinstance(variable, Literal) else known[variable]

        for equation in jaxpr.eqns:
            parts = [read(variable) for variable in equation.invars]
            known.update(zip(equation.outvars, self._results(jaxpr, equation, parts), strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def settled(self, part: _Part) -> jax.Array:
        """The value; with the factor of its layer, if it ends one."""
        value: jax.Array = part.value
        if not part.summed or not self._epsilon:
            return value
        return _shrunk(value, jnp.asarray(self._epsilon, value.dtype))

    def _results(self, jaxpr: Jaxpr, equation: JaxprEqn, parts: Sequence[_Part]) -> list[_Part]:
        name, params = equation.primitive.name, equation.params
        values = [part.value for part in parts]
        seen = [part for part in parts if part.seen]
        if not seen:
            return [_Part(value, False) for value in _run(jaxpr, equation, values)]
        if name in _PLACES and not (name == "pad" and parts[1].seen):
            summed = any(part.summed for part in parts)
            return [_Part(value, True, summed) for value in _run(jaxpr, equation, values)]
        of_one = name in _PRODUCTS and len(seen) == 1
        if of_one or name in _SUMS or (name == "div" and not parts[1].seen):
            return [_Part(value, True, True) for value in _run(jaxpr, equation, values)]
        if _chooses(equation, len(seen)):
            settled = [self.settled(part) for part in parts]
            return [_Part(value, True) for value in _run(jaxpr, equation, settled)]
        if name in _INLINED:
            body = params["call_jaxpr" if "call_jaxpr" in params else "jaxpr"]
            return self.through(
                body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ()), parts
            )
        raise ModelError(
            f"layer_relevance has no rule for the operation {name!r} "
            f"{'of several features' if name in (*_PRODUCTS, 'div') else 'of features'}: it is for "
            "convolutions, dense layers, batch normalisation, ReLU, pooling and sums; take "
            "integrated_gradients"
        )


def _chooses(equation: JaxprEqn, seen: int) -> bool:
    """Whether each result is one of the operands, or 0: ReLU and max pooling."""
    name = equation.primitive.name
    if name == "max":
        return seen == 2 or is_relu(equation)
    if name.startswith("custom_jvp"):
        body = equation.params["call_jaxpr"].jaxpr
        return is_relu(equation) or all(
            inner.primitive.name in _PLACES
            or _chooses(inner, sum(not isinstance(v, Literal) for v in inner.invars))
            for inner in body.eqns
        )
    return name in _CHOICES


def _run(jaxpr: Jaxpr, equation: JaxprEqn, values: Sequence[Any]) -> list[Any]:
    """The results of one operation of a program, with its own derivative."""
    places: dict[Any, Any] = {
        variable: value
        for variable, value in zip(equation.invars, values, strict=True)
        if not isinstance(variable, Literal)
    }
    alone = jaxpr.replace(
        constvars=(), invars=list(places), outvars=equation.outvars, eqns=[equation]
    )
    found: list[Any] = jaxpr_as_fun(ClosedJaxpr(alone, ()))(*places.values())
    return found
