"""Guided backpropagation: the gradient, of which each ReLU lets only positive parts back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.explain.answers import answer_of, check_images, logits_of, working_dtype


def guided_backpropagation(
    model: nn.Module, variables: Mapping[str, Any], image: jax.Array, target: jax.Array
) -> jax.Array:
    """The gradient of the logit, with 1[z > 0] max(g, 0) for what each ReLU of z gives back of g.

    Springenberg et al. 2014; a ReLU itself gives back 1[z > 0] g. **It says little about what the
    network has learned**: the pictures are sharp because they nearly restore the image, and
    hardly change when the weights of the higher layers are drawn anew (Adebayo et al. 2018,
    "Sanity checks for saliency maps"; Nie et al. 2018). Take it for a comparison, not for
    evidence.

    The ReLUs are found in the trace of the model, whatever module calls them, also under
    `jax.checkpoint` and in loops: `jax.nn.relu`, `flax.linen.relu` and `jnp.maximum(x, 0)`. All
    else, other activations too, keeps its gradient, and so does what is inside a function with a
    derivative of its own (`jax.custom_jvp`, `jax.custom_vjp`).

    Args:
      model: a Linen module that returns logits `[B, K]`, or a dict with them.
      variables: its variables; used as in evaluation.
      image: float `[B, H, W, C]`, normalised.
      target: int32 `[B]`, the class of each image.

    Returns:
      `[B, H, W, C]`, signed; float32, or float64 for images that are.

    Raises:
      ModelError: the model has no ReLU; images, targets or logits of another shape or kind; or a
        class that is none (NaN under `jit`).
    """
    check_images(image, target)

    def answer(variables: Mapping[str, Any], image: jax.Array) -> jax.Array:
        return answer_of(logits_of(model, variables), image, target)(image).sum()

    closed = jax.make_jaxpr(answer)(variables, image)
    guided, number = _rewritten(closed.jaxpr)
    if not number:
        raise ModelError(
            f"{type(model).__name__} has no ReLU, and nothing to guide: take saliency or "
            "smooth_grad"
        )
    run = jaxpr_as_fun(ClosedJaxpr(guided, closed.consts))
    leaves = jax.tree.leaves(variables)
    return jax.grad(lambda x: run(*leaves, x)[0])(image).astype(working_dtype(image))


@jax.custom_vjp
def _guided_relu(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 0)


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.maximum(x, 0), x > 0


def _backward(positive: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(positive, jnp.maximum(cotangent, 0), 0),)


_guided_relu.defvjp(_forward, _backward)


def _rewritten(jaxpr: Jaxpr) -> tuple[Jaxpr, int]:
    """A program with guided ReLUs in place of its own, and how many they are."""
    pairs = [_guided(equation) for equation in jaxpr.eqns]
    return jaxpr.replace(eqns=[equation for equation, _ in pairs]), sum(n for _, n in pairs)


def _guided(equation: JaxprEqn) -> tuple[JaxprEqn, int]:
    name = equation.primitive.name
    if is_relu(equation):
        (operand,) = (v for v in equation.invars if not isinstance(v, Literal))
        aval: Any = operand.aval
        (ours,) = jax.make_jaxpr(_guided_relu)(jax.ShapeDtypeStruct(aval.shape, aval.dtype)).eqns
        return ours.replace(invars=[operand], outvars=equation.outvars), 1
    # The rule of such a function, not its body, gives the gradient: softplus has max(x, 0) inside.
    if name.startswith(("custom_jvp", "custom_vjp")):
        return equation, 0
    params, number = {}, 0
    for key, value in equation.params.items():
        params[key], met = _rewritten_parameter(value)
        number += met
    return (equation.replace(params=params), number) if number else (equation, 0)


def _rewritten_parameter(value: Any) -> tuple[Any, int]:
    """A parameter of an operation: a program that it runs, several of them, or something else."""
    if isinstance(value, ClosedJaxpr):
        jaxpr, number = _rewritten(value.jaxpr)
        return (ClosedJaxpr(jaxpr, value.consts), number) if number else (value, 0)
    if isinstance(value, Jaxpr):
        return _rewritten(value)
    if isinstance(value, tuple) and any(isinstance(each, ClosedJaxpr | Jaxpr) for each in value):
        pairs = [_rewritten_parameter(each) for each in value]
        return tuple(each for each, _ in pairs), sum(number for _, number in pairs)
    return value, 0


def is_relu(equation: JaxprEqn) -> bool:
    """Whether it is max(x, 0), or a call, with a derivative of its own, of that alone."""
    if equation.primitive.name == "max":
        scalars = [v.val for v in equation.invars if isinstance(v, Literal) and np.ndim(v.val) == 0]
        result: Any = equation.outvars[0].aval
        floating = jnp.issubdtype(result.dtype, jnp.floating)
        return floating and len(scalars) == 1 and bool(scalars[0] == 0)
    if not equation.primitive.name.startswith("custom_jvp") or len(equation.invars) != 1:
        return False
    body = equation.params["call_jaxpr"].jaxpr
    while len(body.eqns) == 1 and "jaxpr" in body.eqns[0].params:
        body = body.eqns[0].params["jaxpr"].jaxpr
    return len(body.eqns) == 1 and body.eqns[0].primitive.name == "max" and is_relu(body.eqns[0])
