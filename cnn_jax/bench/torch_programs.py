"""The same operations and networks in PyTorch, channels last; used by its own process.

Functions of tensors that mirror `operations` and `networks`. PyTorch is imported inside them,
as it is optional.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cnn_jax.bench import architecture
from cnn_jax.bench.architecture import Layer, Network
from cnn_jax.bench.cases import Convolution, Operation

if TYPE_CHECKING:
    from torch import Tensor

Call = Callable[[], Any]


def can_compute(operation: Operation) -> bool:
    """Whether PyTorch has the operation: it pads both sides alike and dilates no input."""
    if any(low != high for low, high in operation.padding):
        return False
    if isinstance(operation, Convolution):
        return set(operation.input_dilation) == {1}
    halves = zip(operation.padding, operation.window, strict=True)
    return all(low <= size // 2 for (low, _), size in halves)


def channels_last(x: Tensor) -> Tensor:
    """The same values with the second axis innermost in memory."""
    import torch

    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats.get(x.ndim, torch.contiguous_format))


def operation_call(operation: Operation, part: str, dtype: str, device: str) -> Call:
    """A call of one part of an operation on random tensors."""
    import torch

    def draw(batch: int, channels: int, spatial: tuple[int, ...]) -> Tensor:
        x = torch.randn(batch, channels, *spatial, dtype=getattr(torch, dtype), device=device)
        return channels_last(x)

    operands = [draw(operation.batch, operation.channels, operation.spatial)]
    if isinstance(operation, Convolution):
        per_group = operation.channels // operation.groups
        operands.append(draw(operation.features, per_group, operation.kernel))
    output = operation.output_shape
    return part_call(operation, part, operands, draw(output[0], output[-1], output[1:-1]))


def part_call(operation: Operation, part: str, operands: list[Tensor], cotangent: Tensor) -> Call:
    """A call that returns the output, or the gradients in the order of the operands.

    The forward pass is made once, before: unlike JAX's, these gradients need not repeat it.
    """
    import torch

    forward = _forward(operation)
    if part == "forward":

        def call() -> Tensor:
            with torch.no_grad():
                return forward(*operands)

        return call
    chosen = {"input gradient": operands[:1], "weight gradient": operands[1:]}
    wanted = [x.requires_grad_() for x in chosen.get(part, operands)]
    output = forward(*operands)
    return lambda: torch.autograd.grad(output, wanted, cotangent, retain_graph=True)


def _forward(operation: Operation) -> Callable[..., Tensor]:
    from torch.nn import functional

    rank = len(operation.spatial)
    padding = [low for low, _ in operation.padding]
    if isinstance(operation, Convolution):
        convolve = getattr(functional, f"conv{rank}d")
        strides, dilation = operation.strides, operation.dilation
        return lambda x, w: convolve(x, w, None, strides, padding, dilation, operation.groups)
    pool = getattr(functional, f"{operation.kind}_pool{rank}d")
    return lambda x: pool(x, operation.window, operation.strides, padding)


class Tensors(dict[str, Any]):
    """Parameters and statistics by path, made when they are first asked for, as Linen does."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = device

    def parameter(self, path: str, shape: tuple[int, ...], value: float | None = None) -> Any:
        """A trained tensor: normal with variance 1 / fan-in, or of one value."""
        import torch

        if path not in self:
            fan_in = max(1, torch.Size(shape[1:]).numel())
            x = torch.randn(shape) / fan_in**0.5 if value is None else torch.full(shape, value)
            self[path] = channels_last(x.to(self._device)).requires_grad_()
        return self[path]

    def statistic(self, path: str, size: int, value: float) -> Any:
        """A running statistic of `size` channels."""
        import torch

        return self.setdefault(path, torch.full((size,), value, device=self._device))

    @property
    def trained(self) -> list[Tensor]:
        """The parameters."""
        return [x for x in self.values() if x.requires_grad]


def apply(layers: tuple[Layer, ...], tensors: Tensors, x: Tensor, train: bool, at: str = "") -> Any:
    """What the layers make of `x` `[B, C, H, W]`; `at` is the path of the stack."""
    for index, layer in enumerate(layers):
        x = _apply(layer, f"{at}layer{index}", tensors, x, train)
    return x


def _apply(layer: Layer, path: str, tensors: Tensors, x: Any, train: bool) -> Any:
    from torch.nn import functional

    channels = x.shape[1]
    match layer:
        case architecture.Conv():
            groups = channels if layer.depthwise else 1
            shape = (layer.features, channels // groups, layer.size, layer.size)
            kernel = tensors.parameter(f"{path}/kernel", shape)
            bias = tensors.parameter(f"{path}/bias", (layer.features,), 0.0) if layer.bias else None
            return functional.conv2d(x, kernel, bias, layer.stride, layer.pad, groups=groups)
        case architecture.Norm():
            scale = tensors.parameter(f"{path}/scale", (channels,), 1.0)
            bias = tensors.parameter(f"{path}/bias", (channels,), 0.0)
            if layer.kind == "layer":
                x = functional.layer_norm(x.movedim(1, -1), (channels,), scale, bias, eps=1e-6)
                return x.movedim(-1, 1)
            mean = tensors.statistic(f"{path}/mean", channels, 0.0)
            variance = tensors.statistic(f"{path}/var", channels, 1.0)
            return functional.batch_norm(x, mean, variance, scale, bias, training=train)
        case architecture.Activation("gelu"):
            return functional.gelu(x, approximate="tanh")
        case architecture.Activation():
            return getattr(x, layer.name)()
        case architecture.Pool():
            pool = getattr(functional, f"{layer.kind}_pool2d")
            return pool(x, layer.size, layer.step, layer.padding)
        case architecture.GlobalPool():
            return x.mean((2, 3))
        case architecture.Flatten():
            return x.movedim(1, -1).flatten(1)
        case architecture.Dense():
            kernel = tensors.parameter(f"{path}/kernel", (layer.features, channels))
            bias = tensors.parameter(f"{path}/bias", (layer.features,), 0.0)
            return functional.linear(x, kernel, bias)
        case architecture.Residual():
            branch = apply(layer.branch, tensors, x, train, f"{path}_branch/")
            return branch + apply(layer.shortcut, tensors, x, train, f"{path}_shortcut/")


def network_call(network: Network, part: str, dtype: str, device: str, compiled: bool) -> Call:
    """A call that makes a training step, or predicts, on random images."""
    import torch

    tensors = Tensors(device)
    height, width, channels = network.image
    images = channels_last(torch.randn(network.batch, channels, height, width, device=device))
    labels = torch.randint(0, 10, (network.batch,), device=device)

    def logits(train: bool) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            return apply(network.layers, tensors, images, train).float()

    def loss() -> Tensor:
        return torch.nn.functional.cross_entropy(logits(train=True), labels)

    logits(train=False)  # makes the parameters
    optimizer = torch.optim.SGD(tensors.trained, lr=1e-3, momentum=0.9)
    compute = torch.compile(loss) if compiled else loss
    predict = torch.compile(logits) if compiled else logits

    def step() -> Tensor:
        optimizer.zero_grad()
        value = compute()
        value.backward()
        optimizer.step()
        return value

    def infer() -> Tensor:
        with torch.no_grad():
            return predict(train=False)

    return step if part == "training" else infer
