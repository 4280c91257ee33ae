"""The network of the airbench records, its first weights, and its whitening.

Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", section 3, and the code that was
published with it. The whitening layer goes back to Page's "How to train your ResNet" (2019), the
identity kernels to Shoji (2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax import nn, ops

PATCH = 2  # pixels along a side of what the whitening layer sees
_FLOOR = 5e-4  # added to the eigenvalues: directions that images hardly have stay small


class WhiteningConv(nn.Module):
    """Projections of each 2x2 patch on the principal axes of such patches, both ways.

    Variables: `kernel` `[2, 2, C, 8 C]` in the collection `whitening`, which is never trained
    and which `whitening_kernel` computes, and the parameter `bias` `[8 C]`.

    Attributes:
      bias_init: initializer of the bias.
      dtype: dtype of the computation.
    """

    bias_init: Any = nn.initializers.zeros
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Images `[B, H, W, C]` to `[B, H - 1, W - 1, 8 C]`."""
        channels = image.shape[-1]
        shape = (PATCH, PATCH, channels, 2 * PATCH * PATCH * channels)
        kernel = self.variable("whitening", "kernel", jnp.zeros, shape, jnp.float32)
        bias = self.param("bias", self.bias_init, shape[-1:], jnp.float32)
        y = ops.conv_general_dilated(
            image.astype(self.dtype),
            kernel.value.astype(self.dtype),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + bias.astype(self.dtype)[None, None, None, :]


class Group(nn.Module):
    """Convolutions of one width, a max-pool after the first, each with batch norm and GELU.

    With three convolutions the output of the first is added to that of the third before the
    last GELU.

    Attributes:
      features: output channels.
      convolutions: 2 or 3.
      momentum: of the running statistics: new = momentum old + (1 - momentum) batch.
      dtype: dtype of convolutions and activations; batch norm is float32.
    """

    features: int
    convolutions: int
    momentum: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, H, W, C]` to `[B, H // 2, W // 2, features]`."""
        initial: Any = identity_first
        first = None
        for index in range(1, self.convolutions + 1):
            conv = nn.Conv(
                self.features,
                (3, 3),
                use_bias=False,
                kernel_init=initial,
                dtype=self.dtype,
                name=f"conv{index}",
            )
            norm = nn.BatchNorm(
                use_running_average=not train,
                momentum=self.momentum,
                epsilon=1e-12,
                use_scale=False,
                dtype=jnp.float32,
                name=f"norm{index}",
            )
            x = conv(x)
            if index == 1:
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
            x = norm(x).astype(self.dtype)
            if index == 3 and first is not None:
                x = x + first
            x = nn.gelu(x, approximate=False)
            first = x if first is None else first
        return x


class Airbench(nn.Module):
    """Whitening, three groups, a max-pool over what is left, a dense layer without bias.

    Attributes:
      num_classes: K, the number of logits.
      widths: channels of the groups.
      convolutions: in each group, 2 or 3.
      momentum: of the running statistics.
      whitening_bias_init, head_init: initializers.
      logit_scale: what the logits are multiplied by.
      dtype: dtype of the computation; batch norm and logits are float32.
    """

    num_classes: int
    widths: Sequence[int]
    convolutions: int
    momentum: float
    whitening_bias_init: Any
    head_init: Any
    logit_scale: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        """Normalised images `[B, 32, 32, C]` to logits float32 `[B, K]`."""
        whiten = WhiteningConv(self.whitening_bias_init, self.dtype, name="whiten")
        x = nn.gelu(whiten(image), approximate=False)
        for index, width in enumerate(self.widths, start=1):
            group = Group(width, self.convolutions, self.momentum, self.dtype, name=f"group{index}")
            x = group(x, train=train)
        x = nn.max_pool(x, (3, 3), strides=(3, 3))
        head = nn.Dense(
            self.num_classes,
            use_bias=False,
            kernel_init=self.head_init,
            dtype=self.dtype,
            name="head",
        )
        logits = head(x.reshape(len(x), -1))
        return logits.astype(jnp.float32) * self.logit_scale


def uniform_fan_in(
    key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, fan_in: int | None = None
) -> jax.Array:
    """Uniform in +-1 / sqrt(fan in), PyTorch's default for kernels `[..., I, O]` and biases."""
    bound = 1 / math.sqrt(math.prod(shape[:-1]) if fan_in is None else fan_in)
    return jax.random.uniform(key, tuple(shape), dtype, -bound, bound)


def identity_first(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """`uniform_fan_in`, but the first I of the O output channels copy the input channels."""
    kernel = uniform_fan_in(key, shape, dtype)
    *size, inputs, outputs = shape
    copied = min(inputs, outputs)
    identity = jnp.zeros((*size, inputs, copied), dtype)
    identity = identity.at[*(n // 2 for n in size)].set(jnp.eye(inputs, copied, dtype=dtype))
    return kernel.at[..., :copied].set(identity)


def unit_deviation(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """`uniform_fan_in`, divided by its own standard deviation."""
    kernel = uniform_fan_in(key, shape, dtype)
    return kernel / kernel.std(ddof=1)


def whitening_kernel(images: jax.Array) -> jax.Array:
    """The kernel `[2, 2, C, 8 C]` that decorrelates the 2x2 patches of images.

    With `E diag(l) E'` the covariance of the patches (about zero, not about their mean), the
    filters are the columns of E, each divided by sqrt(l + 5e-4), and their negatives.

    Args:
      images: float32 `[N, H, W, C]`, normalised.
    """
    height, width, channels = images.shape[1:]
    rows, columns = height - PATCH + 1, width - PATCH + 1
    corners = [images[:, i : i + rows, j : j + columns] for i in range(PATCH) for j in range(PATCH)]
    patches = jnp.concatenate(corners, axis=-1).reshape(-1, PATCH * PATCH * channels)
    covariance = jnp.matmul(patches.T, patches, precision=lax.Precision.HIGHEST) / len(patches)
    values, vectors = jnp.linalg.eigh(covariance)
    filters = vectors / jnp.sqrt(values + _FLOOR)[None, :]
    both = jnp.concatenate([filters, -filters], axis=1)
    return both.reshape(PATCH, PATCH, channels, -1)
