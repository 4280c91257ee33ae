"""Theoretical receptive fields: which pixels can change a feature, exactly.

A network is traced to its operations, and through each of them goes what the positions of an array
see of the image: a set of offsets that is the same for all positions, and how far apart the fields
of neighbours are. A window of size k and dilation d adds the offsets d t j - p j, t = 0..k-1, where
j is the distance before it and p its padding; a stride multiplies the distance (Araujo, Norris and
Sim 2019, Computing receptive fields of convolutional neural networks). Where branches meet the sets
are united, so that the set is exact, holes of dilation included, and not only its extent. Layers
whose positions do not all see the same set, moved on, have no field, and are told apart from those
that have: after a transposed convolution, say, or where rows are picked or put in another order.

Arithmetic is not looked at: a weight of zero counts, and so does a maximum that another pixel wins.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.principles.field_rules import Irregular, Seen, Tracer, placed


@dataclass(frozen=True, eq=False)
class Field:
    """What each position of a layer sees of the image.

    The position (y, x) sees the pixels `start + stride * (y, x) + (r, c)` where `support[r, c]`.
    It is exact where these lie within the image. Nearer to the border it sees none but those of
    them that do where layers are padded with zeros, and others besides where they are padded by
    reflection.

    Attributes:
      support: bool `[h, w]`.
      start: the pixel of `support[0, 0]`, of the position (0, 0), along each axis.
      stride: pixels between the fields of neighbours, along each axis; 0 where all positions see
        the same, as after global pooling.
    """

    support: np.ndarray
    start: tuple[int, int]
    stride: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the smallest rectangle that holds it, padding included."""
        return self.support.shape[0], self.support.shape[1]

    def pixels(self, position: tuple[int, int], image_shape: Sequence[int]) -> np.ndarray:
        """bool `[H, W]`: the pixels of an image that one position sees."""
        first = [
            at + step * place
            for at, step, place in zip(self.start, self.stride, position, strict=True)
        ]
        return placed(self.support, first, image_shape)


def receptive_field(
    model: nn.Module, variables: Mapping[str, Any], image_shape: Sequence[int], at: str
) -> Field:
    """The field of one submodule's output; see `receptive_fields`."""
    return receptive_fields(model, variables, image_shape, (at,))[at]


def receptive_fields(
    model: nn.Module,
    variables: Mapping[str, Any],
    image_shape: Sequence[int],
    at: Sequence[str] | None = None,
) -> dict[str, Field]:
    """What the outputs of submodules see of the image, in evaluation.

    Nothing is computed, so that `variables` may be shapes.

    Args:
      model: any Linen module of the contract, `model.apply(variables, image, train=False)`.
      variables: its variables, or their shapes.
      image_shape: (H, W, C). Fields of layers with height and width do not depend on it.
      at: paths as `nn.tap` has them; None for all that have a field.

    Returns:
      Path -> field, in the order of `at`, or of the variables. What does not depend on the image is
      left out; where `at` is None also what has no field.

    Raises:
      ModelError: an unknown path; an image that is no (H, W, C); or a layer of `at` whose
        positions see sets of different shape, after a transposed convolution for example (the
        operation is named).
    """
    shape = tuple(image_shape)
    if len(shape) != 3:
        raise ModelError(f"a receptive field is of images (H, W, C), not of {list(shape)}")
    image = jax.ShapeDtypeStruct((1, *shape), np.float32)
    # Modules that do the same in training and in evaluation may leave the argument out.
    known = inspect.signature(type(model).__call__).parameters
    mode: dict[str, Any] = {"train": False} if "train" in known else {}
    paths = tuple(nn.tap_paths(model, variables, image, **mode)) if at is None else tuple(at)

    def outputs(variables: Any, image: jax.Array) -> dict[str, Any]:
        return nn.tap(model, variables, image, at=paths, **mode)[1]

    closed, shapes = jax.make_jaxpr(outputs, return_shape=True)(variables, image)
    constants = len(closed.jaxpr.invars) - 1
    first = Seen(np.ones((1, 1), bool), (0, 0), (1, 1), (1, 2))
    found = Tracer(shape).through(closed.jaxpr, [None] * constants + [first])
    named = jax.tree.unflatten(jax.tree.structure(shapes), [[seen] for seen in found])
    fields = {}
    for path in paths:
        is_leaf = lambda node: isinstance(node, list)  # noqa: E731
        leaves = [box[0] for box in jax.tree.leaves(named[path], is_leaf=is_leaf)]
        seen = functools.reduce(Tracer(shape).united, leaves)
        if isinstance(seen, Irregular):
            if at is not None:
                raise ModelError(f"{path!r} has no receptive field: {seen.reason}")
        elif seen is not None:
            fields[path] = Field(seen.support, seen.start, seen.stride)
    return fields
