"""Grad-CAM and HiResCAM: where the maps of a layer speak for a class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.explain.answers import check_images, chosen, working_dtype
from cnn_jax.principles.receptive_field import receptive_fields


def grad_cam(
    model: nn.Module,
    variables: Mapping[str, Any],
    image: jax.Array,
    target: jax.Array,
    *,
    at: str | None = None,
    positive: bool = True,
) -> jax.Array:
    """relu(sum_k a_k A_k), a_k the mean over pixels of the gradient of the logit at the map A_k.

    Selvaraju et al. 2017. Where global average pooling and a linear layer follow, a_k is the
    weight of map k divided by the number of its pixels: then it is the class activation map of
    Zhou et al. 2016, and, before the cut at 0 and before it is enlarged, it sums over the pixels to
    the logit less its bias. An image where nothing speaks for the class gets zeros all over;
    nothing is scaled to 1.

    Args:
      model: a Linen module that returns logits `[B, K]`, or a dict with them.
      variables: its variables; used as in evaluation.
      image: float `[B, H, W, C]`, normalised.
      target: int32 `[B]`, the class of each image.
      at: path of a submodule that gives maps; None for `last_maps`.
      positive: whether negative values, which speak against the class, become 0.

    Returns:
      `[B, H, W]`: the map, linear between the middles of what its pixels see; float32, or float64
      for images that are.

    Raises:
      ModelError: no such path, or its output is no map `[B, h, w, C]`; images, targets or logits
        of another shape or kind; or a class that is none (NaN under `jit`).
    """
    values, gradient = _maps_and_gradient(model, variables, image, target, at)
    weights = gradient.mean(axis=(1, 2), keepdims=True)
    heat = (weights * values).sum(axis=-1)
    path = last_maps(model, variables, image) if at is None else at
    return _enlarged(jax.nn.relu(heat) if positive else heat, model, variables, image, path)


def hires_cam(
    model: nn.Module,
    variables: Mapping[str, Any],
    image: jax.Array,
    target: jax.Array,
    *,
    at: str | None = None,
) -> jax.Array:
    """sum_k A_k dy/dA_k, pixel by pixel, y the logit and A_k the maps (Draelos & Carin 2020).

    Grad-CAM takes the mean of the gradient over the pixels of a map, and so may light up where
    the network does not look. Here, whatever linear layer follows the maps, each pixel has what
    it adds to the logit: over the pixels of the maps, before they are enlarged, it sums to the
    logit less its bias. Where that layer is global average pooling and a linear layer, it is
    Grad-CAM without its cut at 0.

    Args, errors: those of `grad_cam`.

    Returns:
      `[B, H, W]`, signed: the map, enlarged likewise; float32, or float64 for images that are.
    """
    values, gradient = _maps_and_gradient(model, variables, image, target, at)
    path = last_maps(model, variables, image) if at is None else at
    return _enlarged((values * gradient).sum(axis=-1), model, variables, image, path)


def _maps_and_gradient(
    model: nn.Module,
    variables: Mapping[str, Any],
    image: jax.Array,
    target: jax.Array,
    at: str | None,
) -> tuple[jax.Array, jax.Array]:
    """The maps `[B, h, w, C]` of a submodule, and the gradient of each image's logit at them."""
    check_images(image, target)
    path = last_maps(model, variables, image) if at is None else at
    maps = jax.eval_shape(lambda x: nn.tap(model, variables, x, at=(path,))[1][path], image)
    if getattr(maps, "ndim", 0) != 4:
        raise ModelError(f"{path!r} gives no maps [B, h, w, C]: choose a convolutional stage")
    dtype = working_dtype(image)

    def of_target(change: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs, found = nn.tap(model, variables, image, at=(path,), add={path: change})
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs
        return chosen(logits, target).sum().astype(dtype), found[path]

    nothing = jnp.zeros(maps.shape, maps.dtype)
    gradient, values = jax.grad(of_target, has_aux=True)(nothing)
    return values.astype(dtype), gradient.astype(dtype)


def _enlarged(
    heat: jax.Array, model: nn.Module, variables: Mapping[str, Any], image: jax.Array, path: str
) -> jax.Array:
    """`[B, h, w]` to `[B, H, W]`, linear between the middles of the positions' receptive fields.

    These are not spread over the image evenly: a strided layer begins at its border. Beyond the
    outermost the map is as there. Where positions have no field (see
    `principles.receptive_fields`) each stands for an equal part of the image.
    """
    shape = image.shape[1:]
    field = receptive_fields(model, variables, shape).get(path)
    if field is None or 0 in field.stride:
        return jax.image.resize(heat, image.shape[:3], "bilinear")
    rows, columns = (
        jnp.asarray(
            _between(
                field.start[i] + (field.size[i] - 1) / 2,
                field.stride[i],
                heat.shape[1 + i],
                shape[i],
            ),
            heat.dtype,
        )
        for i in range(2)
    )
    return jnp.einsum("yh,bhw,xw->byx", rows, heat, columns, precision="highest")


def _between(first: float, stride: int, count: int, side: int) -> np.ndarray:
    """float64 `[side, count]`: the weight of each position at each pixel."""
    middles = first + stride * np.arange(count)
    each = [np.interp(np.arange(side), middles, one) for one in np.eye(count)]
    return np.stack(each, axis=1)


def last_maps(model: nn.Module, variables: Mapping[str, Any], image: jax.Array) -> str:
    """Path of the submodule whose maps are the nearest to the answer, such as `stage3`.

    Of those that the model calls itself, and that give maps `[B, h, w, C]`, the one with the
    smallest maps; of several the one with the most channels, and of these the last by name.

    Raises:
      ModelError: no submodule gives maps.
    """
    found = {
        path: output.shape
        for path, output in nn.tap_paths(model, variables, image).items()
        if getattr(output, "ndim", 0) == 4 and "/" not in path
    }
    if not found:
        raise ModelError(
            f"no submodule of {type(model).__name__} gives maps [B, h, w, C]: there is nothing to "
            "draw; take occlusion"
        )
    return max(found, key=lambda path: (-found[path][1] * found[path][2], found[path][3], path))
