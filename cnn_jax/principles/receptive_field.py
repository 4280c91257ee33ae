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
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.ops import CONVOLUTION


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
        return _placed(self.support, first, image_shape)


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
    paths = tuple(nn.tap_paths(model, variables, image, train=False)) if at is None else tuple(at)

    def outputs(variables: Any, image: jax.Array) -> dict[str, Any]:
        return nn.tap(model, variables, image, at=paths, train=False)[1]

    closed, shapes = jax.make_jaxpr(outputs, return_shape=True)(variables, image)
    constants = len(closed.jaxpr.invars) - 1
    first = _Seen(np.ones((1, 1), bool), (0, 0), (1, 1), (1, 2))
    found = _Tracer(shape).through(closed.jaxpr, [None] * constants + [first])
    named = jax.tree.unflatten(jax.tree.structure(shapes), [[seen] for seen in found])
    fields = {}
    for path in paths:
        is_leaf = lambda node: isinstance(node, list)  # noqa: E731
        leaves = [box[0] for box in jax.tree.leaves(named[path], is_leaf=is_leaf)]
        seen = functools.reduce(_Tracer(shape).united, leaves)
        if isinstance(seen, _Irregular):
            if at is not None:
                raise ModelError(f"{path!r} has no receptive field: {seen.reason}")
        elif seen is not None:
            fields[path] = Field(seen.support, seen.start, seen.stride)
    return fields


@dataclass(frozen=True, eq=False)
class _Seen:
    """The field of an array in the making, and which of its axes are height and width.

    An axis is None where no axis of the array stands for it any more; the stride is 0 there.
    """

    support: np.ndarray
    start: tuple[int, int]
    stride: tuple[int, int]
    axes: tuple[int | None, int | None]

    @property
    def places(self) -> tuple[int, ...]:
        """The axes that there are."""
        return tuple(axis for axis in self.axes if axis is not None)

    def moved(self, where: Callable[[int], int]) -> _Seen:
        """The same of an array whose axes are elsewhere."""
        y, x = (None if axis is None else where(axis) for axis in self.axes)
        return replace(self, axes=(y, x))


@dataclass(frozen=True)
class _Irregular:
    """Depends on the image, but not in the same way at all positions."""

    reason: str


_Any = _Seen | _Irregular | None  # None: depends on no pixel
_Two = tuple[int, int]


def _placed(support: np.ndarray, first: Sequence[int], image_shape: Sequence[int]) -> np.ndarray:
    """bool `[H, W]`: a support whose corner is at a pixel, as far as it lies in the image."""
    seen = np.zeros(tuple(image_shape[:2]), bool)
    low = [max(start, 0) for start in first]
    high = [
        min(start + size, limit)
        for start, size, limit in zip(first, support.shape, seen.shape, strict=True)
    ]
    inside = tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))
    own = tuple(
        slice(a - start, max(a, b) - start) for a, b, start in zip(low, high, first, strict=True)
    )
    seen[inside] = support[own]
    return seen


class _Tracer:
    """Takes fields through the operations of a network on images of one size."""

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        self._image = image_shape[:2]

    def through(self, jaxpr: Any, inputs: Sequence[_Any]) -> list[_Any]:
        """What the results of a jaxpr see, given what its arguments do."""
        known: dict[Any, _Any] = dict(zip(jaxpr.invars, inputs, strict=True))

        def read(variable: Any) -> _Any:
            return None if isinstance(variable, Literal) else known.get(variable)

        for equation in jaxpr.eqns:
            seen = [read(variable) for variable in equation.invars]
            if any(one is not None for one in seen):
                known.update(zip(equation.outvars, self._results(equation, seen), strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _results(self, equation: Any, seen: list[_Any]) -> list[_Any]:
        name, params = equation.primitive.name, equation.params
        for parameter in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
            # A window that is reduced by a function of its own carries that function, too.
            if parameter in params and name not in (*_LOOPS, *_RULES):
                body = getattr(params[parameter], "jaxpr", params[parameter])
                return self.through(body, seen[len(seen) - len(body.invars) :])
        return [self._result(equation, seen)] * len(equation.outvars)

    def _result(self, equation: Any, seen: list[_Any]) -> _Any:
        name = equation.primitive.name
        if name == "concatenate":  # what is reflected at a border does not make all irregular
            return _joining(self, equation, seen)
        for one in seen:
            if isinstance(one, _Irregular):
                return one
        parts = [one for one in seen if isinstance(one, _Seen)]
        if any(not one.places for one in parts):
            # What sees the same everywhere goes on doing so, whatever is done to it.
            return functools.reduce(self.united, seen)
        if name in _RULES:
            return _RULES[name](self, equation, seen)
        if name in _MIXING or not _keeps_positions(equation, seen):
            return _Irregular(f"the operation {name!r} mixes positions")
        return functools.reduce(self.united, seen)

    def united(self, one: _Any, other: _Any) -> _Any:
        """What two arrays of one shape see together."""
        for each in (one, other):
            if isinstance(each, _Irregular):
                return each
        if not isinstance(one, _Seen) or not isinstance(other, _Seen):
            return other if one is None else one
        for fixed in (one, other):
            if not fixed.places and _placed(fixed.support, fixed.start, self._image).all():
                return fixed
        if one.stride != other.stride or one.axes != other.axes:
            return _Irregular(
                f"branches meet whose positions are {one.stride} and {other.stride} pixels apart"
            )
        start = tuple(map(min, one.start, other.start))
        end = [max(a.start[i] + a.support.shape[i] for a in (one, other)) for i in range(2)]
        support = np.zeros([high - low for high, low in zip(end, start, strict=True)], bool)
        for a in (one, other):
            y, x = (a.start[i] - start[i] for i in range(2))
            support[y : y + a.support.shape[0], x : x + a.support.shape[1]] |= a.support
        return replace(one, support=support, start=(start[0], start[1]))

    def gathered(self, seen: _Seen, shape: Sequence[int], axes: Sequence[int]) -> _Seen:
        """Where some axes of an array are summed over, or laid into another one."""
        size: list[int] = [1, 1]
        stride, places = list(seen.stride), list(seen.axes)
        for i, axis in enumerate(seen.axes):
            if axis in axes:
                assert axis is not None
                size[i], stride[i], places[i] = shape[axis], 0, None
        wide = _dilated(seen, [[seen.stride[i] * t for t in range(size[i])] for i in range(2)])
        wide = replace(wide, stride=(stride[0], stride[1]), axes=(places[0], places[1]))
        if wide.places:
            return wide
        return replace(wide, support=_placed(wide.support, wide.start, self._image), start=(0, 0))


def _keeps_positions(equation: Any, seen: Sequence[_Any]) -> bool:
    """Whether height and width are as many and where they were, whatever the channels do."""
    after = {tuple(variable.aval.shape) for variable in equation.outvars}
    for variable, one in zip(equation.invars, seen, strict=True):
        if isinstance(one, _Seen):
            before = variable.aval.shape
            for shape in after:
                if len(shape) != len(before) or any(shape[i] != before[i] for i in one.places):
                    return False
    return True


def _dilated(seen: _Seen, offsets: Sequence[Sequence[int]]) -> _Seen:
    """The union of the field shifted by each pair of offsets."""
    least, most = ([pick(each) for each in offsets] for pick in (min, max))
    height, width = seen.support.shape
    support = np.zeros((height + most[0] - least[0], width + most[1] - least[1]), bool)
    for y, x in itertools.product(*offsets):
        row, column = y - least[0], x - least[1]
        support[row : row + height, column : column + width] |= seen.support
    return replace(
        seen, support=support, start=(seen.start[0] + least[0], seen.start[1] + least[1])
    )


def _windowed(
    seen: _Seen,
    size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> _Seen:
    """After a window along height and width."""
    offsets = [
        [seen.stride[i] * (dilation[i] * t - padding[i][0]) for t in range(size[i])]
        for i in range(2)
    ]
    apart = (seen.stride[0] * stride[0], seen.stride[1] * stride[1])
    return replace(_dilated(seen, offsets), stride=apart)


def _convolution(tracer: _Tracer, equation: Any, seen: list[_Any]) -> _Any:
    image, kernel = seen
    params = equation.params
    numbers = params["dimension_numbers"]
    spatial, out = tuple(numbers.lhs_spec[2:]), tuple(numbers.out_spec[2:])
    if not isinstance(image, _Seen) or kernel is not None or params.get("members"):
        return _Irregular("a convolution with a kernel that the image makes")
    if any(factor != 1 for factor in params["lhs_dilation"]):
        return _Irregular("a transposed convolution")
    if sorted(spatial) != sorted(image.places):
        return _Irregular("a convolution along other axes than height and width")
    order = [spatial.index(axis) for axis in image.places]
    kernel_shape = equation.invars[1].aval.shape
    size = [kernel_shape[axis] for axis in numbers.rhs_spec[2:]]
    named = ("window_strides", "rhs_dilation", "padding")
    windows = [size, *(params[name] for name in named)]
    seen_by = _windowed(image, *([each[i] for i in order] for each in windows))
    return replace(seen_by, axes=(out[order[0]], out[order[1]]))


def _pooling(tracer: _Tracer, equation: Any, seen: list[_Any]) -> _Any:
    image, params = seen[0], equation.params
    assert isinstance(image, _Seen)
    if len(image.places) < 2 or any(factor != 1 for factor in params["base_dilation"]):
        return _Irregular("a window over something else than height and width")
    named = ("window_dimensions", "window_strides", "window_dilation", "padding")
    return _windowed(image, *([params[name][axis] for axis in image.places] for name in named))


def _without(tracer: _Tracer, equation: Any, image: _Any, axes: Sequence[int]) -> _Any:
    """After axes of an array have gone."""
    assert isinstance(image, _Seen)
    left = tracer.gathered(image, equation.invars[0].aval.shape, axes)
    return left.moved(lambda axis: axis - sum(gone < axis for gone in axes))


def _reduction(tracer: _Tracer, equation: Any, seen: list[_Any]) -> _Any:
    params = equation.params
    return _without(tracer, equation, seen[0], params["axes" if "axes" in params else "dimensions"])


def _squeezing(tracer: _Tracer, equation: Any, seen: list[_Any]) -> _Any:
    return _without(tracer, equation, seen[0], equation.params["dimensions"])


def _broadcast(tracer: _Tracer, equation: Any, seen: list[_Any]) -> _Any:
    image, places = seen[0], equation.params["broadcast_dimensions"]
    assert isinstance(image, _Seen)
    before, after = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    repeated = [axis for axis in image.places if after[places[axis]] != before[axis]]
    return tracer.gathered(image, before, repeated).moved(lambda axis: places[axis])


def _transposition(tracer: _Tracer, equation: Any, seen: list[_Any]) -> _Any:
    image, order = seen[0], equation.params["permutation"]
    assert isinstance(image, _Seen)
    return image.moved(order.index)


def _reshaping(tracer: _Tracer, equation: Any, seen: list[_Any]) -> _Any:
    """Height and width stay axes of their own, or are laid into the last one: a flattening."""
    image = seen[0]
    assert isinstance(image, _Seen)
    before, after = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    found = {}
    for axis in image.places:
        left = int(np.prod(before[:axis], dtype=np.int64))
        fits = [
            i
            for i in range(len(after))
            if after[i] == before[axis] and int(np.prod(after[:i], dtype=np.int64)) == left
        ]
        if fits:
            found[axis] = fits[-1]
    gone = [axis for axis in image.places if axis not in found]
    for axis in gone:
        first = int(np.prod(before[:axis], dtype=np.int64))
        if not int(np.prod(after[:-1], dtype=np.int64)) <= first:
            return _Irregular("height or width that is split, or laid into another axis")
    return tracer.gathered(image, before, gone).moved(found.__getitem__)


def _shifted(image: _Seen, by: Mapping[int, int]) -> _Seen:
    """The position 0 along an axis is what position `by[axis]` was."""
    start = [
        image.start[i] + (0 if axis is None else image.stride[i] * by[axis])
        for i, axis in enumerate(image.axes)
    ]
    return replace(image, start=(start[0], start[1]))


def _cut(tracer: _Tracer, equation: Any, seen: list[_Any]) -> _Any:
    image, params = seen[0], equation.params
    assert isinstance(image, _Seen)
    first = dict(enumerate(params["start_indices"]))
    steps = params["strides"] or (1,) * len(first)
    stride = [
        step * (1 if axis is None else steps[axis])
        for step, axis in zip(image.stride, image.axes, strict=True)
    ]
    return replace(_shifted(image, first), stride=(stride[0], stride[1]))


def _padding(tracer: _Tracer, equation: Any, seen: list[_Any]) -> _Any:
    image, configuration = seen[0], equation.params["padding_config"]
    if not isinstance(image, _Seen):
        return _Irregular("padding with something that the image makes")
    if any(configuration[axis][2] for axis in image.places):
        return _Irregular("zeros between positions")
    return _shifted(image, {axis: -low for axis, (low, _, _) in enumerate(configuration)})


def _joining(tracer: _Tracer, equation: Any, seen: list[_Any]) -> _Any:
    """Along channels the union; along height or width what the largest part sees."""
    along = equation.params["dimension"]
    sizes = [variable.aval.shape[along] for variable in equation.invars]
    main = int(np.argmax(sizes))
    image = seen[main]
    if not any(isinstance(one, _Seen) and along in one.places for one in seen):
        return functools.reduce(tracer.united, seen)
    if not isinstance(image, _Seen) or 2 * sizes[main] <= sum(sizes):
        return _Irregular("positions of several arrays, one beside the other")
    before = dict.fromkeys(image.places, 0)
    return _shifted(image, {**before, along: -sum(sizes[:main])})


def _reversal(tracer: _Tracer, equation: Any, seen: list[_Any]) -> _Any:
    image = seen[0]
    assert isinstance(image, _Seen)
    turned = set(equation.params["dimensions"]) & set(image.places)
    return _Irregular("positions in reverse order") if turned else image


def _splitting(tracer: _Tracer, equation: Any, seen: list[_Any]) -> _Any:
    image = seen[0]
    assert isinstance(image, _Seen)
    if equation.params["axis"] in image.places:
        return _Irregular("an image that is cut into several")
    return image


def _gathering(tracer: _Tracer, equation: Any, seen: list[_Any]) -> _Any:
    """Channels may be picked in any order; positions may not."""
    image, indices = seen[0], seen[1]
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    if not isinstance(image, _Seen) or indices is not None:
        return _Irregular("picking by what the image makes")
    shape = equation.invars[0].aval.shape
    gone = {*numbers.collapsed_slice_dims, *getattr(numbers, "operand_batching_dims", ())}
    chosen = {*numbers.start_index_map, *gone}
    if any(axis in chosen or sizes[axis] != shape[axis] for axis in image.places):
        return _Irregular("positions that are picked")
    kept = [axis for axis in range(len(shape)) if axis not in gone]
    return image.moved(lambda axis: numbers.offset_dims[kept.index(axis)])


def _product(tracer: _Tracer, equation: Any, seen: list[_Any]) -> _Any:
    """A matrix product with weights, of channels."""
    (contracted, _), (batch, _) = equation.params["dimension_numbers"]
    image, weights = seen
    if not isinstance(image, _Seen) or weights is not None:
        return _Irregular("a product of two arrays that the image makes")
    if set(contracted) & set(image.places):
        return _Irregular("a matrix product along height or width")
    axes = range(equation.invars[0].aval.ndim)
    kept = [*batch, *(axis for axis in axes if axis not in (*contracted, *batch))]
    return image.moved(kept.index)


_LOOPS = ("scan", "while", "cond")
# Of one shape before and after, and yet not of each position by itself.
_MIXING = (*_LOOPS, "sort", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "fft")
_RULES: Mapping[str, Callable[[_Tracer, Any, list[_Any]], _Any]] = {
    **dict.fromkeys((CONVOLUTION, "conv_general_dilated"), _convolution),
    **dict.fromkeys(
        ("reduce_window_sum", "reduce_window_max", "reduce_window_min", "reduce_window"), _pooling
    ),
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce", "argmax", "argmin"),
        _reduction,
    ),
    "broadcast_in_dim": _broadcast,
    "transpose": _transposition,
    "squeeze": _squeezing,
    "reshape": _reshaping,
    "slice": _cut,
    "pad": _padding,
    "rev": _reversal,
    "split": _splitting,
    "gather": _gathering,
    "dot_general": _product,
}
