"""The benchmarks by name: which trials each consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax.bench import (
    cases,
    loops,
    networks,
    operations,
    programs,
    roofline,
    torch_process,
    torch_programs,
    zoo,
)
from cnn_jax.bench.architecture import NETWORKS, Network
from cnn_jax.bench.served import Server
from cnn_jax.bench.timing import Rival
from cnn_jax.bench.trials import Trial


@dataclass(frozen=True)
class Setting:
    """How rivals are made.

    Attributes:
      dtype: `float32` or `bfloat16`, of the computation.
      most_examples: larger batches are cut to this; None leaves them.
      torch: the process that times PyTorch, or None.
      torch_device: `cpu` or `cuda`.
      torch_compiled: also time networks through `torch.compile`.
    """

    dtype: str = "float32"
    most_examples: int | None = None
    torch: Server | None = None
    torch_device: str = "cpu"
    torch_compiled: bool = False

    def cut(self, batch: int) -> int:
        """The batch size to time."""
        return batch if self.most_examples is None else min(batch, self.most_examples)

    def forget(self) -> None:
        """Let PyTorch's process drop the rivals of earlier trials."""
        if self.torch is not None:
            self.torch.release()

    def torch_rival(self, request: Mapping[str, Any]) -> Rival:
        """What PyTorch is asked to prepare."""
        assert self.torch is not None
        return self.torch.prepare({**request, "dtype": self.dtype, "device": self.torch_device})


def trials(benchmark: str, setting: Setting) -> Iterable[Trial]:
    """The trials of a benchmark, one of `BENCHMARKS`."""
    return _TRIALS[benchmark](setting)


def _operation_trials(
    operations_of: Callable[[], Iterable[cases.Operation]], setting: Setting
) -> Iterator[Trial]:
    cut = (replace(one, batch=setting.cut(one.batch)) for one in operations_of())
    for operation in dict.fromkeys(cut):
        with_torch = setting.torch is not None and torch_programs.can_compute(operation)
        for part in operation.parts:
            yield Trial(
                operation.name,
                part,
                partial(_operation_rivals, operation, part, with_torch, setting),
                [("ours", "stock"), *([("ours", "torch")] if with_torch else [])],
                flops=operation.flops(part),
                bytes_moved=operation.elements_moved(part) * jnp.dtype(setting.dtype).itemsize,
            )


def _operation_rivals(
    operation: cases.Operation, part: str, with_torch: bool, setting: Setting
) -> dict[str, Rival]:
    setting.forget()
    arguments = operations.arguments_of(operation, setting.dtype)
    rivals: dict[str, Rival] = {
        name: programs.pure(operations.function_of(operation, part, name), arguments)
        for name in operations.IMPLEMENTATIONS
    }
    if with_torch:
        rivals["torch"] = setting.torch_rival(torch_process.operation_request(operation, part))
    return rivals


def _network_trials(setting: Setting) -> Iterator[Trial]:
    torch_names = [] if setting.torch is None else ["torch"]
    if setting.torch is not None and setting.torch_compiled:
        torch_names.append("torch compiled")
    for name, whole in NETWORKS.items():
        network = replace(whole, batch=setting.cut(whole.batch))
        if network.large and jax.default_backend() == "cpu":
            continue  # 6 TFLOP a training step: half a minute of two cores
        forward = networks.forward_flops(network)
        # By custom: the gradient of each operand has as many products as the forward pass.
        for part, flops in (("training", 3 * forward), ("inference", forward)):
            yield Trial(
                f"{name} n{network.batch}",
                part,
                partial(_network_rivals, name, network, part, torch_names, setting),
                [("ours", "stock"), *(("ours", other) for other in torch_names)],
                flops=flops,
            )


def _network_rivals(
    name: str, network: Network, part: str, torch_names: list[str], setting: Setting
) -> dict[str, Rival]:
    setting.forget()
    state = networks.initial_state(network)
    batch = networks.batch_of(network, setting.dtype)
    rivals: dict[str, Rival] = {}
    for implementation in networks.LAYERS:
        model = networks.Stack(network.layers, implementation, jnp.dtype(setting.dtype))
        rivals[implementation] = (
            programs.stepping(networks.training_step(model), state, [batch])
            if part == "training"
            else programs.pure(networks.inference(model), (state, batch[0]))
        )
    for torch_name in torch_names:
        compiled = torch_name == "torch compiled"
        request = torch_process.network_request(name, network.batch, part, compiled)
        rivals[torch_name] = setting.torch_rival(request)
    return rivals


_TRIALS: Mapping[str, Callable[[Setting], Iterable[Trial]]] = {
    "ops": partial(_operation_trials, cases.standard),
    "zoo": partial(_operation_trials, zoo.operations),
    "random": partial(_operation_trials, cases.drawn),
    "models": _network_trials,
    "scan": lambda setting: loops.scan_trials(setting.dtype, setting.cut),
    "vmap": lambda setting: loops.vmap_trials(setting.dtype, setting.cut),
    "roofline": lambda setting: roofline.trials(setting.dtype, setting.cut),
}
BENCHMARKS = tuple(_TRIALS)
WITH_TORCH = ("ops", "zoo", "random", "models")
