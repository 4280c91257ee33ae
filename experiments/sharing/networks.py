"""Networks that share their weights, those that do not, and what they cost.

The networks of LeCun (1989, *Generalization and network design strategies*) in today's terms:
strided layers, ReLU and one dense layer at the end, whose windows share a kernel, or have one each,
or see everything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from cnn_jax import nn
from cnn_jax.models import count_parameters
from cnn_jax.principles import costs

STRIDE = 2


class LocalLayer(nn.Module):
    """`flax.linen.ConvLocal` with bias: a kernel for each window, instead of one for all.

    The same parameters and answers, sooner on a CPU; but kernels begin as large as those of a
    convolution. (The initialisers of Flax count the windows into the inputs of a neuron, so that
    the kernels of 14 x 14 windows begin 14 times too small.)

    Attributes:
      features: channels of the output.
      size, stride: of the square windows, which are padded as by `SAME`.
    """

    features: int
    size: int
    stride: int = STRIDE

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[B, ceil(H / stride), ceil(W / stride), features]`."""
        sides = tuple(-(-side // self.stride) for side in x.shape[1:3])
        spans = [(count - 1) * self.stride + 1 for count in sides]
        missing = [
            max(0, span + self.size - 1 - side)
            for span, side in zip(spans, x.shape[1:3], strict=True)
        ]
        around = [(total // 2, total - total // 2) for total in missing]
        padded = jnp.pad(x, [(0, 0), *around, (0, 0)]).transpose(1, 2, 0, 3)
        windows = jnp.stack(
            [
                padded[i : i + spans[0] : self.stride, j : j + spans[1] : self.stride]
                for i in range(self.size)
                for j in range(self.size)
            ],
            axis=-1,
        )  # [H', W', B, C, size * size]
        inputs = x.shape[3] * self.size**2
        init = nn.initializers.variance_scaling(
            2.0, "fan_in", "truncated_normal", in_axis=-2, out_axis=-1, batch_axis=(0, 1)
        )
        kernel = self.param("kernel", init, (*sides, inputs, self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (*sides, self.features), jnp.float32)
        products = jnp.matmul(windows.reshape(*windows.shape[:3], inputs), kernel)
        return products.transpose(2, 0, 1, 3) + bias[None]


class Convolutional(nn.Module):
    """Convolutions of stride 2, each with bias and ReLU, and a dense layer.

    Attributes:
      num_classes: K, the number of logits.
      widths: channels after each convolution.
      size: side of the kernels.
    """

    num_classes: int
    widths: Sequence[int] = (8, 16, 32)
    size: int = 5

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, K]`; `train` changes nothing."""
        x = image
        for index, width in enumerate(self.widths):
            x = nn.relu(self._layer(width, f"layer{index + 1}")(x))
        return nn.Dense(self.num_classes, name="head")(x.reshape(x.shape[0], -1))

    def _layer(self, width: int, name: str) -> nn.Module:
        return nn.Conv(
            width,
            (self.size, self.size),
            strides=STRIDE,
            kernel_init=nn.initializers.he_normal(),
            name=name,
        )


class LocallyConnected(Convolutional):
    """`Convolutional`, but each window has a kernel and a bias of its own."""

    def _layer(self, width: int, name: str) -> nn.Module:
        return LocalLayer(width, self.size, name=name)


class Dense(nn.Module):
    """One hidden layer with ReLU.

    Attributes:
      num_classes: K, the number of logits.
      hidden: neurons.
    """

    num_classes: int
    hidden: int

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, K]`; `train` changes nothing."""
        layer = nn.Dense(self.hidden, kernel_init=nn.initializers.he_normal(), name="layer1")
        x = nn.relu(layer(image.reshape(image.shape[0], -1)))
        return nn.Dense(self.num_classes, name="head")(x)


def networks(
    image_shape: Sequence[int], num_classes: int, widths: Sequence[int] = (8, 16, 32)
) -> Mapping[str, nn.Module]:
    """The CNN and its rivals, by name; the dense ones are as wide as it costs.

    Args:
      image_shape: (H, W, C).
      num_classes: K.
      widths: of the CNN.
    """
    cnn = Convolutional(num_classes, tuple(widths))
    pixels = math.prod(image_shape)
    of_parameters = (parameters(cnn, image_shape) - num_classes) / (pixels + 1 + num_classes)
    of_products = multiply_adds(cnn, image_shape) / (pixels + num_classes)
    return {
        "CNN": cnn,
        "locally connected network": LocallyConnected(num_classes, tuple(widths)),
        "dense network, parameters as the CNN": Dense(num_classes, round(of_parameters)),
        "dense network, multiply-adds as the CNN": Dense(num_classes, round(of_products)),
    }


def parameters(network: nn.Module, image_shape: Sequence[int]) -> int:
    """How many numbers are learned."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return count_parameters(jax.eval_shape(network.init, jax.random.key(0), image))


def multiply_adds(network: nn.Module, image_shape: Sequence[int]) -> int:
    """Of the forward pass of one image, by `principles.costs`; without biases."""
    if isinstance(network, Dense):
        return (math.prod(image_shape) + network.num_classes) * network.hidden
    assert isinstance(network, Convolutional)
    total, shape = 0, tuple(image_shape)
    for width in network.widths:
        kernel = (network.size, network.size)
        of_layer = costs(shape, width, kernel, strides=(STRIDE, STRIDE))
        total += of_layer["convolution"].multiply_adds  # the locally connected layer has as many
        shape = (-(-shape[0] // STRIDE), -(-shape[1] // STRIDE), width)
    return total + math.prod(shape) * network.num_classes
