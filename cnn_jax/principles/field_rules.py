"""How receptive fields go through the operations of a network: one rule for each of them.

See `receptive_field`, which traces a network and asks.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jax.extend.core import Literal

from cnn_jax.ops import CONVOLUTION


@dataclass(frozen=True, eq=False)
class Seen:
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

    def moved(self, where: Callable[[int], int]) -> Seen:
        """The same of an array whose axes are elsewhere."""
        y, x = (None if axis is None else where(axis) for axis in self.axes)
        return replace(self, axes=(y, x))


@dataclass(frozen=True)
class Irregular:
    """Depends on the image, but not in the same way at all positions."""

    reason: str


_Any = Seen | Irregular | None  # None: depends on no pixel
_Two = tuple[int, int]


def placed(support: np.ndarray, first: Sequence[int], image_shape: Sequence[int]) -> np.ndarray:
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


class Tracer:
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
        if all(variable.aval.size == 0 for variable in equation.outvars):  # a border of no width
            return None
        if name == "concatenate":  # what is reflected at a border does not make all irregular
            return _joining(self, equation, seen)
        for one in seen:
            if isinstance(one, Irregular):
                return one
        parts = [one for one in seen if isinstance(one, Seen)]
        if any(not one.places for one in parts):
            # What sees the same everywhere goes on doing so, whatever is done to it.
            return functools.reduce(self.united, seen)
        if name in _RULES:
            return _RULES[name](self, equation, seen)
        if name in _MIXING or not _keeps_positions(equation, seen):
            return Irregular(f"the operation {name!r} mixes positions")
        return functools.reduce(self.united, seen)

    def united(self, one: _Any, other: _Any) -> _Any:
        """What two arrays of one shape see together."""
        for each in (one, other):
            if isinstance(each, Irregular):
                return each
        if not isinstance(one, Seen) or not isinstance(other, Seen):
            return other if one is None else one
        for fixed in (one, other):
            if not fixed.places and placed(fixed.support, fixed.start, self._image).all():
                return fixed
        if one.axes != other.axes:
            return Irregular("branches meet whose height and width are other axes")
        if one.stride != other.stride:
            return Irregular(
                f"branches meet whose positions are {one.stride} and {other.stride} pixels apart"
            )
        start = tuple(map(min, one.start, other.start))
        end = [max(a.start[i] + a.support.shape[i] for a in (one, other)) for i in range(2)]
        support = np.zeros([high - low for high, low in zip(end, start, strict=True)], bool)
        for a in (one, other):
            y, x = (a.start[i] - start[i] for i in range(2))
            support[y : y + a.support.shape[0], x : x + a.support.shape[1]] |= a.support
        return replace(one, support=support, start=(start[0], start[1]))

    def gathered(self, seen: Seen, shape: Sequence[int], axes: Sequence[int]) -> Seen:
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
        return replace(wide, support=placed(wide.support, wide.start, self._image), start=(0, 0))


def _keeps_positions(equation: Any, seen: Sequence[_Any]) -> bool:
    """Whether height and width are as many and where they were, whatever the channels do."""
    after = {tuple(variable.aval.shape) for variable in equation.outvars}
    for variable, one in zip(equation.invars, seen, strict=True):
        if isinstance(one, Seen):
            before = variable.aval.shape
            for shape in after:
                if len(shape) != len(before) or any(shape[i] != before[i] for i in one.places):
                    return False
    return True


def _dilated(seen: Seen, offsets: Sequence[Sequence[int]]) -> Seen:
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
    seen: Seen,
    size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> Seen:
    """After a window along height and width."""
    offsets = [
        [seen.stride[i] * (dilation[i] * t - padding[i][0]) for t in range(size[i])]
        for i in range(2)
    ]
    apart = (seen.stride[0] * stride[0], seen.stride[1] * stride[1])
    return replace(_dilated(seen, offsets), stride=apart)


def _convolution(tracer: Tracer, equation: Any, seen: list[_Any]) -> _Any:
    image, kernel = seen
    params = equation.params
    numbers = params["dimension_numbers"]
    spatial, out = tuple(numbers.lhs_spec[2:]), tuple(numbers.out_spec[2:])
    if not isinstance(image, Seen) or kernel is not None or params.get("members"):
        return Irregular("a convolution with a kernel that the image makes")
    if any(factor != 1 for factor in params["lhs_dilation"]):
        return Irregular("a transposed convolution")
    if sorted(spatial) != sorted(image.places):
        return Irregular("a convolution along other axes than height and width")
    order = [spatial.index(axis) for axis in image.places]
    kernel_shape = equation.invars[1].aval.shape
    size = [kernel_shape[axis] for axis in numbers.rhs_spec[2:]]
    named = ("window_strides", "rhs_dilation", "padding")
    windows = [size, *(params[name] for name in named)]
    seen_by = _windowed(image, *([each[i] for i in order] for each in windows))
    return replace(seen_by, axes=(out[order[0]], out[order[1]]))


def _pooling(tracer: Tracer, equation: Any, seen: list[_Any]) -> _Any:
    image, params = seen[0], equation.params
    assert isinstance(image, Seen)
    if len(image.places) < 2 or any(factor != 1 for factor in params["base_dilation"]):
        return Irregular("a window over something else than height and width")
    named = ("window_dimensions", "window_strides", "window_dilation", "padding")
    return _windowed(image, *([params[name][axis] for axis in image.places] for name in named))


def _without(tracer: Tracer, equation: Any, image: _Any, axes: Sequence[int]) -> _Any:
    """After axes of an array have gone."""
    assert isinstance(image, Seen)
    left = tracer.gathered(image, equation.invars[0].aval.shape, axes)
    return left.moved(lambda axis: axis - sum(gone < axis for gone in axes))


def _reduction(tracer: Tracer, equation: Any, seen: list[_Any]) -> _Any:
    params = equation.params
    return _without(tracer, equation, seen[0], params["axes" if "axes" in params else "dimensions"])


def _squeezing(tracer: Tracer, equation: Any, seen: list[_Any]) -> _Any:
    return _without(tracer, equation, seen[0], equation.params["dimensions"])


def _broadcast(tracer: Tracer, equation: Any, seen: list[_Any]) -> _Any:
    image, places = seen[0], equation.params["broadcast_dimensions"]
    assert isinstance(image, Seen)
    before, after = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    repeated = [axis for axis in image.places if after[places[axis]] != before[axis]]
    return tracer.gathered(image, before, repeated).moved(lambda axis: places[axis])


def _transposition(tracer: Tracer, equation: Any, seen: list[_Any]) -> _Any:
    image, order = seen[0], equation.params["permutation"]
    assert isinstance(image, Seen)
    return image.moved(order.index)


def _reshaping(tracer: Tracer, equation: Any, seen: list[_Any]) -> _Any:
    """Height and width stay axes of their own, or are laid into the last one: a flattening."""
    image = seen[0]
    assert isinstance(image, Seen)
    before, after = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    found: dict[int, int] = {}
    for axis in sorted(image.places, reverse=True):
        left = int(np.prod(before[:axis], dtype=np.int64))
        fits = [
            i
            for i in range(min(found.values(), default=len(after)))  # which keeps their order
            if after[i] == before[axis] and int(np.prod(after[:i], dtype=np.int64)) == left
        ]
        if fits:
            found[axis] = fits[-1]
    gone = [axis for axis in image.places if axis not in found]
    for axis in gone:
        first = int(np.prod(before[:axis], dtype=np.int64))
        if not int(np.prod(after[:-1], dtype=np.int64)) <= first:
            return Irregular("height or width that is split, or laid into another axis")
    return tracer.gathered(image, before, gone).moved(found.__getitem__)


def _shifted(image: Seen, by: Mapping[int, int]) -> Seen:
    """The position 0 along an axis is what position `by[axis]` was."""
    start = [
        image.start[i] + (0 if axis is None else image.stride[i] * by[axis])
        for i, axis in enumerate(image.axes)
    ]
    return replace(image, start=(start[0], start[1]))


def _cut(tracer: Tracer, equation: Any, seen: list[_Any]) -> _Any:
    image, params = seen[0], equation.params
    assert isinstance(image, Seen)
    first = dict(enumerate(params["start_indices"]))
    steps = params["strides"] or (1,) * len(first)
    stride = [
        step * (1 if axis is None else steps[axis])
        for step, axis in zip(image.stride, image.axes, strict=True)
    ]
    return replace(_shifted(image, first), stride=(stride[0], stride[1]))


def _padding(tracer: Tracer, equation: Any, seen: list[_Any]) -> _Any:
    image, configuration = seen[0], equation.params["padding_config"]
    if not isinstance(image, Seen):
        return Irregular("padding with something that the image makes")
    if any(configuration[axis][2] for axis in image.places):
        return Irregular("zeros between positions")
    return _shifted(image, {axis: -low for axis, (low, _, _) in enumerate(configuration)})


def _joining(tracer: Tracer, equation: Any, seen: list[_Any]) -> _Any:
    """Along channels the union; along height or width what the largest part sees."""
    along = equation.params["dimension"]
    sizes = [variable.aval.shape[along] for variable in equation.invars]
    main = int(np.argmax(sizes))
    image = seen[main]
    if not any(isinstance(one, Seen) and along in one.places for one in seen):
        return functools.reduce(tracer.united, seen)
    if not isinstance(image, Seen) or 2 * sizes[main] <= sum(sizes):
        return Irregular("positions of several arrays, one beside the other")
    before = dict.fromkeys(image.places, 0)
    return _shifted(image, {**before, along: -sum(sizes[:main])})


def _stacking(tracer: Tracer, equation: Any, seen: list[_Any]) -> _Any:
    """Side by side along a new axis: what any of them sees."""
    image, new = functools.reduce(tracer.united, seen), equation.params["axis"]
    return image.moved(lambda axis: axis + (axis >= new)) if isinstance(image, Seen) else image


def _sorting(tracer: Tracer, equation: Any, seen: list[_Any]) -> _Any:
    """Channels may be sorted; positions may not."""
    along = equation.params["dimension"]
    if any(isinstance(one, Seen) and along in one.places for one in seen):
        return Irregular("positions that are sorted")
    return functools.reduce(tracer.united, seen)


def _reversal(tracer: Tracer, equation: Any, seen: list[_Any]) -> _Any:
    image = seen[0]
    assert isinstance(image, Seen)
    turned = set(equation.params["dimensions"]) & set(image.places)
    return Irregular("positions in reverse order") if turned else image


def _splitting(tracer: Tracer, equation: Any, seen: list[_Any]) -> _Any:
    image = seen[0]
    assert isinstance(image, Seen)
    if equation.params["axis"] in image.places:
        return Irregular("an image that is cut into several")
    return image


def _gathering(tracer: Tracer, equation: Any, seen: list[_Any]) -> _Any:
    """Channels may be picked in any order; positions may not."""
    image, indices = seen[0], seen[1]
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    if not isinstance(image, Seen) or indices is not None:
        return Irregular("picking by what the image makes")
    shape = equation.invars[0].aval.shape
    gone = {*numbers.collapsed_slice_dims, *getattr(numbers, "operand_batching_dims", ())}
    chosen = {*numbers.start_index_map, *gone}
    if any(axis in chosen or sizes[axis] != shape[axis] for axis in image.places):
        return Irregular("positions that are picked")
    kept = [axis for axis in range(len(shape)) if axis not in gone]
    return image.moved(lambda axis: numbers.offset_dims[kept.index(axis)])


def _product(tracer: Tracer, equation: Any, seen: list[_Any]) -> _Any:
    """A matrix product with weights, of channels."""
    (contracted, _), (batch, _) = equation.params["dimension_numbers"]
    image, weights = seen
    if not isinstance(image, Seen) or weights is not None:
        return Irregular("a product of two arrays that the image makes")
    if set(contracted) & set(image.places):
        return Irregular("a matrix product along height or width")
    axes = range(equation.invars[0].aval.ndim)
    kept = [*batch, *(axis for axis in axes if axis not in (*contracted, *batch))]
    return image.moved(kept.index)


_LOOPS = ("scan", "while", "cond")
# Of one shape before and after, and yet not of each position by itself.
_MIXING = (*_LOOPS, "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "fft")
_RULES: Mapping[str, Callable[[Tracer, Any, list[_Any]], _Any]] = {
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
    "stack": _stacking,
    "sort": _sorting,
    "rev": _reversal,
    "split": _splitting,
    "gather": _gathering,
    "dot_general": _product,
}
