"""How learning reaches each layer: sizes of gradients, and backpropagation against differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cnn_jax import nn
from cnn_jax.errors import ModelError

Loss = Callable[[jax.Array, jax.Array], jax.Array]  # outputs and labels to a scalar


@dataclass(frozen=True)
class GradientNorm:
    """The gradient of a loss at the parameters of one layer.

    Attributes:
      gradient: its Euclidean norm.
      parameters: that of the parameters.
      count: how many they are.
    """

    gradient: float
    parameters: float
    count: int

    @property
    def relative(self) -> float:
        """`gradient` over `parameters`, what a step of size 1 would change; NaN for zeros."""
        return self.gradient / self.parameters if self.parameters else float("nan")


def logits_in(outputs: Any) -> Any:
    """The logits of a model's output, or of those in a dict, in whatever dtype they are."""
    return outputs["logits"] if isinstance(outputs, Mapping) else outputs


def cross_entropy(outputs: Any, labels: jax.Array) -> jax.Array:
    """Mean softmax cross-entropy of logits `[B, K]`, or of those of a dict, in nats."""
    logits = logits_in(outputs)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -chosen.mean()


def gradient_norms(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: Any,
    labels: Any,
    *,
    loss: Loss = cross_entropy,
) -> dict[str, GradientNorm]:
    """Norms of the gradient by layer, in the order of the parameters.

    A layer is a scope that holds parameters itself, such as `stage1/conv`. The network is used as
    in evaluation: batch normalisation by its kept moments, no dropout.

    Args:
      model, variables: `model.apply(variables, image, train=False)`.
      images: float `[B, H, W, C]`, normalised.
      labels: int `[B]`, or whatever `loss` takes.
      loss: of the model's outputs and the labels.

    Raises:
      ModelError: the model has no parameters.
    """
    fixed = {name: value for name, value in variables.items() if name != "params"}
    parameters = variables.get("params", {})
    if not jax.tree.leaves(parameters):
        raise ModelError(f"{type(model).__name__} has no parameters: it has no gradients")

    def of(parameters: Any, fixed: Any, images: jax.Array, labels: Any) -> jax.Array:
        outputs: Any = model.apply({**fixed, "params": parameters}, images, train=False)
        return loss(outputs, labels)

    gradient = jax.jit(jax.grad(of))(parameters, fixed, jnp.asarray(images), jnp.asarray(labels))
    sums: dict[str, list[float]] = {}
    flat = traverse_util.flatten_dict(gradient)
    for names, values in traverse_util.flatten_dict(parameters).items():
        layer = sums.setdefault("/".join(names[:-1]), [0.0, 0.0, 0])
        layer[0] += float((np.asarray(flat[names], np.float64) ** 2).sum())
        layer[1] += float((np.asarray(values, np.float64) ** 2).sum())
        layer[2] += np.size(values)
    return {
        path: GradientNorm(float(np.sqrt(of_gradient)), float(np.sqrt(of_values)), int(count))
        for path, (of_gradient, of_values, count) in sums.items()
    }


def gradient_error(
    function: Callable[[Any], jax.Array],
    at: Any,
    *,
    directions: int = 5,
    step: float = 1e-5,
    seed: int = 0,
) -> float:
    """How far backpropagation is from finite differences, in float64.

    Along random directions d of length 1 the derivative by `jax.grad` is held against
    (f(x + h d) - f(x - h d)) / 2h, whose error is of the order h² where f is smooth. A kink between
    the two points, of a ReLU say, shows as an error too.

    Args:
      function: from a tree of arrays to a scalar. It must compute in the dtype that it is given: a
        network that casts to float32 has errors of 1e-3 here.
      at: the tree; its floating arrays become float64, others stay.
      directions: how many.
      step: h.
      seed: of the directions.

    Returns:
      The largest difference, over the largest of all derivatives.

    Raises:
      ModelError: nothing to differentiate by, or no directions.
    """
    if directions < 1 or not step > 0:
        raise ModelError(f"a direction and a step are needed, not {directions} and {step}")
    with jax.enable_x64(True):
        leaves, tree = jax.tree.flatten(at)
        points = [
            jnp.asarray(np.asarray(leaf), jnp.float64)
            if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
            else jnp.asarray(leaf)
            for leaf in leaves
        ]
        chosen = [i for i, point in enumerate(points) if point.dtype == jnp.float64]
        if not chosen:
            raise ModelError("nothing to differentiate by: the tree holds no floating array")

        @jax.jit
        def of(values: list[jax.Array]) -> jax.Array:
            full = list(points)
            for i, value in zip(chosen, values, strict=True):
                full[i] = value
            return function(jax.tree.unflatten(tree, full)).astype(jnp.float64)

        start = [points[i] for i in chosen]
        gradient = jax.jit(jax.grad(of))(start)
        rng = np.random.default_rng(seed)
        wrong, sizes = [], []
        for _ in range(directions):
            drawn = [rng.normal(size=value.shape) for value in start]
            length = np.sqrt(sum(float((each**2).sum()) for each in drawn))
            drawn = [each / length for each in drawn]
            ahead, behind = (
                of([value + sign * step * each for value, each in zip(start, drawn, strict=True)])
                for sign in (1, -1)
            )
            numeric = float(ahead - behind) / (2 * step)
            analytic = sum(
                float((np.asarray(g) * each).sum()) for g, each in zip(gradient, drawn, strict=True)
            )
            wrong.append(abs(numeric - analytic))
            sizes.append(max(abs(numeric), abs(analytic)))
        return float(max(wrong) / max(sizes)) if max(sizes) > 0 else 0.0
