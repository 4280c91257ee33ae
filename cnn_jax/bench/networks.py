"""The timed networks as Linen modules, of our layers or of Flax's own, and their steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen

from cnn_jax import models, nn
from cnn_jax.bench import architecture
from cnn_jax.bench.architecture import Layer

LAYERS = {"ours": nn, "stock": linen}  # modules with the same names, fields and variables
_OPTIMIZER = optax.sgd(1e-3, momentum=0.9)

State = tuple[Any, Any, Any]  # params, batch statistics, momentum


class Stack(linen.Module):
    """Layers one after the other, the k-th under the name `layer{k}`.

    Attributes:
      layers: what to apply.
      implementation: `ours` or `stock`.
      dtype: dtype of the computation; parameters are float32.
    """

    layers: tuple[Layer, ...]
    implementation: str
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to what the last layer gives."""
        for index, layer in enumerate(self.layers):
            x = self._apply(layer, f"layer{index}", x, train)
        return x

    @linen.nowrap
    def _apply(self, layer: Layer, name: str, x: jax.Array, train: bool) -> jax.Array:
        library: Any = LAYERS[self.implementation]
        match layer:
            case architecture.Conv():
                y: jax.Array = library.Conv(
                    layer.features,
                    (layer.size, layer.size),
                    strides=layer.stride,
                    padding=layer.pad,
                    feature_group_count=x.shape[-1] if layer.depthwise else 1,
                    use_bias=layer.bias,
                    dtype=self.dtype,
                    name=name,
                )(x)
            case architecture.Norm("batch"):
                norm = library.BatchNorm(
                    use_running_average=not train, momentum=0.9, dtype=self.dtype, name=name
                )
                y = norm(x)
            case architecture.Norm():
                y = library.LayerNorm(dtype=self.dtype, name=name)(x)
            case architecture.Activation():
                y = getattr(library, layer.name)(x)
            case architecture.Pool():
                pool = library.max_pool if layer.kind == "max" else library.avg_pool
                margin = ((layer.padding, layer.padding),) * 2
                y = pool(x, (layer.size, layer.size), (layer.step, layer.step), margin)
            case architecture.GlobalPool():
                y = x.mean((1, 2))
            case architecture.Flatten():
                y = x.reshape(len(x), -1)
            case architecture.Dense():
                y = library.Dense(layer.features, dtype=self.dtype, name=name)(x)
            case architecture.Residual():
                y = self._inner(layer.branch, f"{name}_branch")(x, train=train)
                y += self._inner(layer.shortcut, f"{name}_shortcut")(x, train=train)
        return y

    def _inner(self, layers: tuple[Layer, ...], name: str) -> Stack:
        return Stack(layers, self.implementation, self.dtype, name=name)


def initial_state(network: architecture.Network) -> State:
    """Parameters, statistics and momentum at the start: the same for every implementation."""
    model = Stack(network.layers, "stock")
    variables = models.initialize(model, jax.random.key(0), network.image)
    params = variables["params"]
    return params, variables.get("batch_stats", {}), _OPTIMIZER.init(params)


def batch_of(network: architecture.Network, dtype: Any, seed: int = 0) -> tuple[Any, Any]:
    """Random images `[B, H, W, C]` and labels int32 `[B]`."""
    images_key, labels_key = jax.random.split(jax.random.key(seed))
    images = jax.random.normal(images_key, (network.batch, *network.image), dtype)
    return images, jax.random.randint(labels_key, (network.batch,), 0, 10, jnp.int32)


def training_step(model: Stack) -> Callable[[State, Any, Any], tuple[State, jax.Array]]:
    """Forward in training mode, cross-entropy, backward, and SGD with momentum."""

    def loss_of(params: Any, statistics: Any, images: Any, labels: Any) -> tuple[Any, Any]:
        logits, updates = model.apply(
            {"params": params, "batch_stats": statistics},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
        return losses.mean(), updates.get("batch_stats", {})

    def step(state: State, images: Any, labels: Any) -> tuple[State, jax.Array]:
        params, statistics, momentum = state
        compute = jax.value_and_grad(loss_of, has_aux=True)
        (loss, statistics), gradients = compute(params, statistics, images, labels)
        updates, momentum = _OPTIMIZER.update(gradients, momentum, params)
        return (optax.apply_updates(params, updates), statistics, momentum), loss

    return step


def inference(model: Stack) -> Callable[[State, Any], Any]:
    """Logits of images, with the stored statistics."""

    def predict(state: State, images: Any) -> Any:
        return model.apply({"params": state[0], "batch_stats": state[1]}, images)

    return predict


def forward_flops(network: architecture.Network) -> int:
    """Floating-point operations of the convolutions and products of one forward pass."""
    return network.batch * models.count_flops(Stack(network.layers, "stock"), network.image)
