"""The methods by name, each as a function of a model to one map for each image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.explain.answers import logits_of
from cnn_jax.explain.grad_cam import grad_cam, hires_cam
from cnn_jax.explain.gradients import gradient_times_input, saliency, smooth_grad
from cnn_jax.explain.guided import guided_backpropagation
from cnn_jax.explain.integrated import integrated_gradients
from cnn_jax.explain.occlusion import occlusion
from cnn_jax.explain.relevance import layer_relevance
from cnn_jax.explain.rise import rise

# Model, variables, images `[B, H, W, C]`, classes `[B]` and a key to maps `[B, H, W]`.
Of = Callable[[nn.Module, Mapping[str, Any], jax.Array, jax.Array, jax.Array], jax.Array]

# What the methods by name take, so that an audit, which needs maps of many networks, ends soon; and
# as much for each image, whatever is beside it.
_STEPS, _NOISY, _MASKS = 64, 32, 256


@dataclass(frozen=True)
class Method:
    """A method of explanation.

    Attributes:
      of: the function; maps are higher where the image speaks for the class, or, of gradients
        without a sign, where the answer changes most with it.
      words: what it shows, in a line.
      signed: whether what speaks against the class is negative.
      complete: whether a map adds up to the logit less that of the mean image, but for steps that
        are too long.
    """

    of: Of
    words: str
    signed: bool
    complete: bool = False


def _saliency(model: Any, variables: Any, x: Any, target: Any, key: Any) -> jax.Array:
    return saliency(logits_of(model, variables), x, target)


def _gradient_times_input(model: Any, variables: Any, x: Any, target: Any, key: Any) -> jax.Array:
    return gradient_times_input(logits_of(model, variables), x, target).sum(axis=-1)


def _integrated(model: Any, variables: Any, x: Any, target: Any, key: Any) -> jax.Array:
    logits = logits_of(model, variables)
    found = integrated_gradients(logits, x, target, steps=_STEPS)
    return found.attributions.sum(axis=-1)


def _smooth_grad(model: Any, variables: Any, x: Any, target: Any, key: Any) -> jax.Array:
    # A tenth and a half of the range of values, as the paper takes.
    sigma = 0.15 * (x.max(axis=(1, 2, 3)) - x.min(axis=(1, 2, 3)))
    found = smooth_grad(logits_of(model, variables), x, target, key, samples=_NOISY, sigma=sigma)
    return jnp.abs(found).max(axis=-1)


def _guided(model: Any, variables: Any, x: Any, target: Any, key: Any) -> jax.Array:
    return jnp.abs(guided_backpropagation(model, variables, x, target)).max(axis=-1)


def _relevance(model: Any, variables: Any, x: Any, target: Any, key: Any) -> jax.Array:
    return layer_relevance(model, variables, x, target, epsilon=0.01).sum(axis=-1)


def _grad_cam(model: Any, variables: Any, x: Any, target: Any, key: Any) -> jax.Array:
    return grad_cam(model, variables, x, target)


def _hires_cam(model: Any, variables: Any, x: Any, target: Any, key: Any) -> jax.Array:
    return hires_cam(model, variables, x, target)


def _occlusion(model: Any, variables: Any, x: Any, target: Any, key: Any) -> jax.Array:
    side = max(1, min(x.shape[1:3]) // 4)
    stride = max(1, side // 2)
    return occlusion(logits_of(model, variables), x, target, side=side, stride=stride)


def _rise(model: Any, variables: Any, x: Any, target: Any, key: Any) -> jax.Array:
    cells = max(1, min(7, min(x.shape[1:3]) // 2))
    return rise(logits_of(model, variables), x, target, key, samples=_MASKS, cells=cells)


METHODS: Mapping[str, Method] = {
    "grad_cam": Method(_grad_cam, "where the last maps speak for the class", signed=False),
    "hires_cam": Method(_hires_cam, "the same, pixel by pixel of the maps", signed=True),
    "saliency": Method(_saliency, "how much each pixel can change the answer", signed=False),
    "smooth_grad": Method(_smooth_grad, "the same, averaged over noise", signed=False),
    "gradient_times_input": Method(
        _gradient_times_input, "the gradient times the image", signed=True
    ),
    "integrated_gradients": Method(
        _integrated,
        "shares of the answer, along a path from the mean image",
        signed=True,
        complete=True,
    ),
    "layer_relevance": Method(
        _relevance, "shares of the answer, handed back layer by layer", signed=True
    ),
    "guided_backpropagation": Method(
        _guided, "the gradient, of which only positive parts go back", signed=False
    ),
    "occlusion": Method(_occlusion, "how the answer falls under a cover", signed=True),
    "rise": Method(_rise, "the answer while a pixel is to be seen", signed=False),
}


def method(name: str) -> Method:
    """A method by its name.

    Raises:
      ModelError: there is none.
    """
    if name not in METHODS:
        raise ModelError(f"no method {name!r}: choose one of {', '.join(METHODS)}")
    return METHODS[name]
