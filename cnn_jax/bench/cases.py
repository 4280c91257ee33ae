"""What is measured of single operations: shapes, names, and how much they compute and move.

Only the standard library: the process that times PyTorch reads these too.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

CONVOLUTION_PARTS = ("forward", "input gradient", "weight gradient", "gradients")
POOL_PARTS = ("forward", "gradient")

Sizes = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Convolution:
    """A convolution of `[batch, *spatial, channels]`, channels last.

    Attributes:
      batch, spatial, channels: shape of the images.
      features: channels of the output.
      kernel: length along each spatial axis.
      strides, dilation, input_dilation: along each spatial axis.
      padding: (low, high) along each spatial axis.
      groups: groups of channels that do not mix.
    """

    batch: int
    spatial: Sizes
    channels: int
    features: int
    kernel: Sizes
    strides: Sizes
    padding: Pads
    dilation: Sizes
    input_dilation: Sizes
    groups: int = 1

    parts = CONVOLUTION_PARTS

    @property
    def output_spatial(self) -> Sizes:
        """Length of the output along each spatial axis."""
        sizes = zip(
            *(self.spatial, self.kernel, self.strides, self.padding),
            *(self.dilation, self.input_dilation),
            strict=True,
        )
        return tuple(
            ((n - 1) * spread + low + high - (k - 1) * dilation) // stride + 1
            for n, k, stride, (low, high), dilation, spread in sizes
        )

    @property
    def input_shape(self) -> Sizes:
        """`[batch, *spatial, channels]`."""
        return (self.batch, *self.spatial, self.channels)

    @property
    def kernel_shape(self) -> Sizes:
        """`[*kernel, channels // groups, features]`."""
        return (*self.kernel, self.channels // self.groups, self.features)

    @property
    def output_shape(self) -> Sizes:
        """`[batch, *output_spatial, features]`."""
        return (self.batch, *self.output_spatial, self.features)

    @property
    def name(self) -> str:
        """Such as `3x3 64-128 /2 @32x32 n128`; what is usual is left out."""
        depthwise = self.groups == self.channels > 1
        words = [_joined(self.kernel), f"{self.channels}-{self.features}"]
        if depthwise:
            words.insert(0, "depthwise")
        elif self.groups > 1:
            words.append(f"g{self.groups}")
        words += _unusual("/", self.strides) + _unusual("d", self.dilation)
        words += _unusual("i", self.input_dilation)
        usual = _centred(self.kernel, self.dilation)
        words += [] if self.padding == usual else [_padding_word(self.padding)]
        return " ".join([*words, f"@{_joined(self.spatial)}", f"n{self.batch}"])

    def flops(self, part: str) -> int:
        """Two for each multiply-add, N·Ho·Wo·Kh·Kw·(Cin/g)·Cout, for each of the three parts.

        The field's custom: products with padding count like any other. Each gradient has as
        many products as the forward pass; `gradients` is both.
        """
        products = math.prod(self.output_shape) * math.prod(self.kernel_shape[:-1])
        return (4 if part == "gradients" else 2) * products

    def elements_moved(self, part: str) -> int:
        """Elements read and written if each array passes the memory once."""
        images, kernel, output = map(
            math.prod, (self.input_shape, self.kernel_shape, self.output_shape)
        )
        if part == "gradients":
            return 2 * images + 2 * kernel + output
        return images + kernel + output


@dataclass(frozen=True)
class Pool:
    """A pooling of `[batch, *spatial, channels]`: `max`, or `avg` with counted padding."""

    kind: Literal["max", "avg"]
    batch: int
    spatial: Sizes
    channels: int
    window: Sizes
    strides: Sizes
    padding: Pads

    parts = POOL_PARTS

    @property
    def input_shape(self) -> Sizes:
        """`[batch, *spatial, channels]`."""
        return (self.batch, *self.spatial, self.channels)

    @property
    def output_shape(self) -> Sizes:
        """`[batch, *pooled spatial axes, channels]`."""
        sizes = zip(self.spatial, self.window, self.strides, self.padding, strict=True)
        pooled = ((n + low + high - k) // stride + 1 for n, k, stride, (low, high) in sizes)
        return (self.batch, *pooled, self.channels)

    @property
    def name(self) -> str:
        """Such as `max pool 3x3 /2 64 @32x32 n64`."""
        words = [f"{self.kind} pool", _joined(self.window), *_unusual("/", self.strides)]
        if any(map(sum, self.padding)):
            words.append(_padding_word(self.padding))
        return " ".join([*words, str(self.channels), f"@{_joined(self.spatial)}", f"n{self.batch}"])

    def flops(self, part: str) -> int:
        """None: a pooling has no products, and its comparisons are not counted by custom."""
        del part
        return 0

    def elements_moved(self, part: str) -> int:
        """Elements read and written if each array passes the memory once.

        The gradient of a maximum also reads its input; that of a mean does not.
        """
        reads = 2 if part == "gradient" and self.kind == "max" else 1
        return reads * math.prod(self.input_shape) + math.prod(self.output_shape)


Operation = Convolution | Pool


def square(
    size: int,
    channels: int,
    features: int,
    *,
    at: int,
    batch: int,
    stride: int = 1,
    groups: int = 1,
) -> Convolution:
    """A square kernel on square images, padded as PyTorch's networks are."""
    return Convolution(
        batch=batch,
        spatial=(at, at),
        channels=channels,
        features=features,
        kernel=(size, size),
        strides=(stride, stride),
        padding=((size // 2, size // 2),) * 2,
        dilation=(1, 1),
        input_dilation=(1, 1),
        groups=groups,
    )


def standard() -> list[Operation]:
    """The operations that convolutional networks are made of, at usual sizes."""
    pool = Pool("max", 64, (32, 32), 64, (2, 2), (2, 2), ((0, 0),) * 2)
    return [
        square(1, 64, 128, at=32, batch=128),
        square(3, 64, 64, at=32, batch=128),
        square(3, 128, 128, at=16, batch=128),
        square(3, 256, 256, at=8, batch=128),
        square(3, 512, 512, at=4, batch=128),
        square(3, 64, 128, at=32, batch=128, stride=2),
        square(7, 3, 64, at=224, batch=16, stride=2),
        square(3, 64, 64, at=32, batch=128, groups=64),
        square(7, 96, 96, at=56, batch=16, groups=96),
        pool,
        replace(pool, window=(3, 3), padding=((1, 1),) * 2),
    ]


def drawn(count: int = 200, *, seed: int = 0, most_elements: int = 2**21) -> list[Convolution]:
    """Convolutions of random shape: a fixed list for each seed.

    One to three spatial axes, kernels 1 to 7, strides, dilations, groups and padding; each of
    images, kernel and output has at most `most_elements`, and the product at most 2^31
    multiply-adds.
    """
    draw = random.Random(seed)
    found: dict[str, Convolution] = {}
    while len(found) < count:
        case = _drawn_convolution(draw)
        if min(case.output_spatial) < 1:
            continue
        shapes = (case.input_shape, case.kernel_shape, case.output_shape)
        if max(map(math.prod, shapes)) <= most_elements and case.flops("forward") <= 2**32:
            found[case.name] = case
    return list(found.values())


def _drawn_convolution(draw: random.Random) -> Convolution:
    rank = draw.choices((1, 2, 3), weights=(1, 4, 1))[0]
    largest = {1: 512, 2: 64, 3: 16}[rank]

    def sizes(*choices: int) -> Sizes:
        return tuple(draw.choice(choices) for _ in range(rank))

    # A kernel is mostly as long along every axis; so are strides.
    kernel = (draw.randint(1, 7),) * rank if draw.random() < 0.8 else sizes(*range(1, 8))
    strides = (draw.choice((1, 1, 1, 2, 2, 3)),) * rank
    dilation = (draw.choice((1, 1, 1, 1, 2)),) * rank
    groups = draw.choice((1, 1, 1, 2, 4, "all"))
    width = draw.choice((1, 3, 8, 16, 32, 64, 96, 128))
    count = width if groups == "all" else int(groups)
    per_group = 1 if groups == "all" else max(1, width // count)
    features = count * draw.choice((1, 1, 2)) if groups == "all" else count * _features(draw)
    centred = _centred(kernel, dilation)
    padding = draw.choice((centred, centred, ((0, 0),) * rank, ((0, 1),) * rank))
    return Convolution(
        batch=draw.choice((1, 2, 8, 32)),
        spatial=tuple(draw.randint(4, largest) for _ in range(rank)),
        channels=count * per_group,
        features=features,
        kernel=kernel,
        strides=strides,
        padding=padding,
        dilation=dilation,
        input_dilation=(1,) * rank,
        groups=count,
    )


def _features(draw: random.Random) -> int:
    return draw.choice((1, 8, 16, 32, 64))


def as_plain(operation: Operation) -> dict[str, Any]:
    """The operation as values that JSON knows; `from_plain` reads them."""
    return {"type": type(operation).__name__, **asdict(operation)}


def from_plain(values: Mapping[str, Any]) -> Operation:
    """The operation that `as_plain` gave, also after JSON turned its tuples into lists."""
    kinds = {kind.__name__: kind for kind in (Convolution, Pool)}
    rest = {name: _tuples(value) for name, value in values.items() if name != "type"}
    return kinds[values["type"]](**rest)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _centred(kernel: Sizes, dilation: Sizes) -> Pads:
    halves = [(k - 1) * d // 2 for k, d in zip(kernel, dilation, strict=True)]
    return tuple((half, half) for half in halves)


def _joined(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _unusual(sign: str, sizes: Sizes) -> list[str]:
    if set(sizes) == {1}:
        return []
    return [sign + (str(sizes[0]) if len(set(sizes)) == 1 else _joined(sizes))]


def _padding_word(padding: Pads) -> str:
    pairs = [str(low) if low == high else f"{low}+{high}" for low, high in padding]
    return "pad" + (pairs[0] if len(set(pairs)) == 1 else "x".join(pairs))
