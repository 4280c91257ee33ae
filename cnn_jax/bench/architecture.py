"""The networks that are timed, as data: Linen and PyTorch build the same from one description.

Only the standard library: the process that times PyTorch reads this too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Conv:
    """A square convolution; padded by half its size unless `padding` says other."""

    features: int
    size: int
    stride: int = 1
    padding: int | None = None
    depthwise: bool = False
    bias: bool = False

    @property
    def pad(self) -> int:
        """Zeros on each side."""
        return self.size // 2 if self.padding is None else self.padding


@dataclass(frozen=True)
class Norm:
    """Normalisation of each channel over the batch, or of each position over the channels."""

    kind: Literal["batch", "layer"] = "batch"


@dataclass(frozen=True)
class Activation:
    """A nonlinearity; `gelu` is the approximation by tanh."""

    name: Literal["relu", "tanh", "gelu"] = "relu"


@dataclass(frozen=True)
class Pool:
    """Pooling by square windows, side by side unless `stride` says other."""

    kind: Literal["max", "avg"]
    size: int
    stride: int | None = None
    padding: int = 0

    @property
    def step(self) -> int:
        """From one window to the next."""
        return self.size if self.stride is None else self.stride


@dataclass(frozen=True)
class GlobalPool:
    """The mean over all positions."""


@dataclass(frozen=True)
class Flatten:
    """All positions and channels in one axis, channels last."""


@dataclass(frozen=True)
class Dense:
    """A matrix product with a bias."""

    features: int


@dataclass(frozen=True)
class Residual:
    """The input, or its shortcut, plus a branch."""

    branch: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()


Layer = Conv | Norm | Activation | Pool | GlobalPool | Flatten | Dense | Residual


@dataclass(frozen=True)
class Network:
    """Layers from images `[batch, *image]` to logits.

    Attributes:
      image, batch, layers: see above.
      large: whether it is timed on accelerators alone.
    """

    image: tuple[int, int, int]
    batch: int
    layers: tuple[Layer, ...]
    large: bool = False


def _lenet5() -> tuple[Layer, ...]:
    convolution = (Activation("tanh"), Pool("avg", 2))
    return (
        *(Conv(6, 5, padding=0, bias=True), *convolution),
        *(Conv(16, 5, padding=0, bias=True), *convolution),
        *(Flatten(), Dense(120), Activation("tanh"), Dense(84), Activation("tanh"), Dense(10)),
    )


def _basic_block(features: int, stride: int) -> tuple[Layer, ...]:
    branch = (
        *(Conv(features, 3, stride), Norm(), Activation()),
        *(Conv(features, 3), Norm()),
    )
    shortcut = (Conv(features, 1, stride), Norm()) if stride > 1 else ()
    return (Residual(branch, shortcut), Activation())


def _resnet18() -> tuple[Layer, ...]:
    blocks = [(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)]
    body = [layer for features, stride in blocks for layer in _basic_block(features, stride)]
    return (Conv(64, 3), Norm(), Activation(), *body, GlobalPool(), Dense(10))


def _bottleneck(width: int, stride: int, first: bool) -> tuple[Layer, ...]:
    branch = (
        *(Conv(width, 1), Norm(), Activation(), Conv(width, 3, stride), Norm(), Activation()),
        *(Conv(4 * width, 1), Norm()),
    )
    shortcut = (Conv(4 * width, 1, stride), Norm()) if first else ()
    return (Residual(branch, shortcut), Activation())


def _resnet50() -> tuple[Layer, ...]:
    """As usually trained, the stride in the 3x3 convolutions (He et al. 2016, and Gross's)."""
    layers: list[Layer] = [Conv(64, 7, 2), Norm(), Activation(), Pool("max", 3, 2, padding=1)]
    for width, depth in [(64, 3), (128, 4), (256, 6), (512, 3)]:
        for index in range(depth):
            stride = 2 if index == 0 and width > 64 else 1
            layers += _bottleneck(width, stride, index == 0)
    return (*layers, GlobalPool(), Dense(1000))


def _mobilenet() -> tuple[Layer, ...]:
    """The blocks of MobileNet (Howard et al. 2017), fewer of them, for 32 x 32 pixels."""
    layers: list[Layer] = [Conv(32, 3), Norm(), Activation()]
    channels = 32
    for features, stride in [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]:
        layers += [Conv(channels, 3, stride, depthwise=True), Norm(), Activation()]
        layers += [Conv(features, 1), Norm(), Activation()]
        channels = features
    return (*layers, GlobalPool(), Dense(10))


def _convnext() -> tuple[Layer, ...]:
    """The blocks of ConvNeXt (Liu et al. 2022), two in each of three stages."""
    layers: list[Layer] = []
    for width, patch in [(64, 4), (128, 2), (256, 2)]:
        layers += [Conv(width, patch, patch, padding=0, bias=True), Norm("layer")]
        branch = (
            *(Conv(width, 7, depthwise=True, bias=True), Norm("layer")),
            *(Conv(4 * width, 1, bias=True), Activation("gelu"), Conv(width, 1, bias=True)),
        )
        layers += [Residual(branch)] * 2
    return (*layers, GlobalPool(), Norm("layer"), Dense(10))


NETWORKS: Mapping[str, Network] = {
    "LeNet-5": Network((32, 32, 1), 128, _lenet5()),
    "ResNet-18": Network((32, 32, 3), 64, _resnet18()),
    "depthwise (MobileNet)": Network((32, 32, 3), 64, _mobilenet()),
    "depthwise (ConvNeXt)": Network((128, 128, 3), 16, _convnext()),
    "ResNet-50": Network((224, 224, 3), 256, _resnet50(), large=True),
}
