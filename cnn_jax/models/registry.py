"""Models by name: `create`, `names`, `segments`, and `initialize`."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.models.compact import Compact
from cnn_jax.models.iresnet import IResNet
from cnn_jax.models.lenet import LeNet5
from cnn_jax.models.mobilefacenet import MobileFaceNet
from cnn_jax.models.preact_resnet import PreactResNet
from cnn_jax.models.resnet import ResNet
from cnn_jax.models.unet import UNet
from cnn_jax.models.vgg import VGG, AlexNet

LARGEST_SMALL_IMAGE = 64  # pixels; the ImageNet stem would leave less than 16 x 16 of it
LARGEST_FACE_MAP = 7  # of the networks for faces, at the 112 pixels they were made for

# A name, the module, and the fields that make it that model; other fields are options.
_MODELS: Mapping[str, tuple[type[nn.Module], Mapping[str, Any]]] = {
    "lenet5": (LeNet5, {}),
    "compact": (Compact, {}),
    "alexnet": (AlexNet, {}),
    "vgg16": (VGG, {"depths": (2, 2, 3, 3, 3), "widths": (64, 128, 256, 512, 512)}),
    "resnet18": (ResNet, {"block": "basic", "depths": (2, 2, 2, 2)}),
    "resnet34": (ResNet, {"block": "basic", "depths": (3, 4, 6, 3)}),
    "resnet50": (ResNet, {"block": "bottleneck", "depths": (3, 4, 6, 3)}),
    "resnet101": (ResNet, {"block": "bottleneck", "depths": (3, 4, 23, 3)}),
    "resnet152": (ResNet, {"block": "bottleneck", "depths": (3, 8, 36, 3)}),
    "preact_resnet18": (PreactResNet, {"depths": (2, 2, 2, 2)}),
    "wide_resnet16_4": (PreactResNet, {"depths": (2, 2, 2), "stem_width": 16, "width": 64}),
    "wide_resnet28_10": (PreactResNet, {"depths": (4, 4, 4), "stem_width": 16, "width": 160}),
    "iresnet18": (IResNet, {"depths": (2, 2, 2, 2)}),
    "iresnet34": (IResNet, {"depths": (3, 4, 6, 3)}),
    "iresnet50": (IResNet, {"depths": (3, 4, 14, 3)}),
    "iresnet100": (IResNet, {"depths": (3, 13, 30, 3)}),
    "mobilefacenet": (MobileFaceNet, {"depths": (5, 1, 6, 1, 2)}),
    "unet": (UNet, {}),
}

# Modules that answer for every pixel; all others answer once for an image.
_OF_PIXELS = (UNet,)


def names() -> tuple[str, ...]:
    """The names `create` knows."""
    return tuple(_MODELS)


def segments(name: str) -> bool:
    """Whether a model answers for every pixel: logits `[B, spatial axes, K]`, not `[B, K]`.

    Raises:
      ModelError: no model of that name.
    """
    return issubclass(_find(name)[0], _OF_PIXELS)


def option_names(name: str) -> tuple[str, ...]:
    """The options of a model, in the order of its fields.

    Raises:
      ModelError: no model of that name.
    """
    module, fixed = _find(name)
    taken = {*fixed, "num_classes", "dtype", "parent", "name"}
    return tuple(f.name for f in dataclasses.fields(module) if f.init and f.name not in taken)


def create(
    name: str,
    *,
    num_classes: int,
    image_size: int | Sequence[int],
    dtype: Any = jnp.float32,
    **options: Any,
) -> nn.Module:
    """A model, called as `model.apply(variables, image, train=False)`.

    It takes floating images `[B, H, W, C]` and returns logits float32 `[B, K]`; networks for
    faces return them in a dict, with the `embedding`. Where `segments` says so it also takes
    volumes `[B, D, H, W, C]`, and returns logits for every pixel, `[B, H, W, K]` or
    `[B, D, H, W, K]`. The shapes of its parameters do not depend on H and W. `image_size` only
    chooses options that may also be given: the stem of residual networks, `small_stem` (3x3 up
    to 64 pixels); the stride of the compact network's, `stem_stride` (a map of 16 to 31 pixels
    is left); and of networks for faces `first_stride` (1 up to 64 pixels) and `map_size`, the
    side of the map that the embedding is made from (at most 7).

    Args:
      name: one of `names()`.
      num_classes: K, at least 1; of a model that `segments`, regions with the background.
      image_size: pixels along each side, or (H, W) or (D, H, W); the smallest one counts.
      dtype: dtype of the computation; parameters are float32 unless `param_dtype` says other.
      **options: fields of the model, `option_names(name)`.

    Raises:
      ModelError: an unknown name or option, or a number below 1.
    """
    module, fixed = _find(name)
    allowed = option_names(name)
    for option in options:
        if option not in allowed:
            raise ModelError(f"{name} has no option {option!r}; it has {', '.join(allowed)}")
    smallest = image_size if isinstance(image_size, int) else min(image_size)
    if num_classes < 1 or smallest < 1:
        raise ModelError(
            f"num_classes={num_classes} and image_size={image_size} must be at least 1"
        )
    if "small_stem" in allowed:
        options.setdefault("small_stem", smallest <= LARGEST_SMALL_IMAGE)
    if "stem_stride" in allowed:
        options.setdefault("stem_stride", _stem_stride(smallest))
    if "first_stride" in allowed:
        options.setdefault("first_stride", 1 if smallest <= LARGEST_SMALL_IMAGE else 2)
    if "map_size" in allowed:
        options.setdefault("map_size", _face_map(smallest, options["first_stride"]))
    return module(num_classes=num_classes, dtype=dtype, **fixed, **options)


def initialize(
    model: nn.Module, key: jax.Array, image_shape: Sequence[int], batch_size: int = 1
) -> dict[str, Any]:
    """The variables of a model: `params`, and `batch_stats` if it normalises batches.

    Bit for bit what `model.init` gives, but some times sooner on a CPU, where LLVM would
    otherwise spend seconds on optimising the random numbers of each shape.

    Args:
      model: a module that is called with images.
      key: random key.
      image_shape: (H, W, C), or (D, H, W, C) of volumes.
      batch_size: B of the zeros the model is called with.
    """
    return initializer(model, image_shape, batch_size)(key)


def initializer(
    model: nn.Module, image_shape: Sequence[int], batch_size: int = 1
) -> Callable[[jax.Array], dict[str, Any]]:
    """`initialize` as a function of the key that is compiled once, for many keys."""

    def init(key: jax.Array) -> dict[str, Any]:
        return dict(model.init(key, jnp.zeros((batch_size, *image_shape), jnp.float32)))

    on_cpu = jax.default_backend() == "cpu"
    options = {"xla_backend_optimization_level": 1} if on_cpu else None
    return jax.jit(init, compiler_options=options)


def _stem_stride(image_size: int) -> int:
    """The largest power of two that leaves a map of at least 16 pixels."""
    return max(1, 2 ** int(math.log2(max(image_size, 1) / 16))) if image_size >= 16 else 1


def _face_map(image_size: int, first_stride: int) -> int:
    """The side of the last map of a network for faces, as far as its head looks at it."""
    # A stride that is no stride is for the model to refuse.
    whole = -(-image_size // (8 * max(1, first_stride)))
    return min(LARGEST_FACE_MAP, whole)


def _find(name: str) -> tuple[type[nn.Module], Mapping[str, Any]]:
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=1, cutoff=0.0)[0]
        raise ModelError(
            f"no model {name!r}; did you mean {near!r}? The models are {', '.join(_MODELS)}"
        )
    return _MODELS[name]
