"""The published recipes of the records, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from cnn_jax import nn
from experiments.speedrun.network import Airbench, uniform_fan_in, unit_deviation


@dataclass(frozen=True)
class Muon:
    """Muon for the 3x3 kernels and SGD for the rest; every rate falls linearly to 0.

    Attributes:
      learning_rate, momentum: of Muon, which has three Newton-Schulz steps, projects each
        kernel on the norm sqrt(O) and has no weight decay.
      bias_rate, head_rate: of SGD with Nesterov momentum `other_momentum`, for the sum of
        the losses of a batch.
      decay: what SGD's weight decay times its peak rate comes to, for each example.
    """

    learning_rate: float = 0.24
    momentum: float = 0.6
    bias_rate: float = 0.053
    head_rate: float = 0.67
    other_momentum: float = 0.85
    decay: float = 2e-6


@dataclass(frozen=True)
class Nesterov:
    """SGD with Nesterov momentum, weights averaged every five steps as training goes on.

    Attributes:
      learning_rate: for 1,024 losses and a momentum's whole sum:
        the rate of the sum of losses is learning_rate / (1024 (1 + 1 / (1 - momentum))).
      decay: weight decay in the same measure.
      bias_factor: how many times faster the biases of batch norms move, with the same decay.
      momentum: see above.
      warmup: share of the steps over which the rate rises, from `first` of its peak.
      first, last: of the peak, at the first and the last step.
    """

    learning_rate: float
    decay: float
    warmup: float
    last: float
    first: float = 0.2
    momentum: float = 0.85
    bias_factor: float = 64.0

    @property
    def scale(self) -> float:
        """What turns `learning_rate` and `decay` into those of one example."""
        return 1024 * (1 + 1 / (1 - self.momentum))


@dataclass(frozen=True)
class Record:
    """One record: what is trained, on how much, and how.

    Attributes:
      name: as the tables call it.
      widths, convolutions, momentum: see `network.Airbench`.
      epochs: passes over the train part; the last may be a part of one.
      batch_size: examples of a step; an epoch drops what is left.
      translate: largest shift of an image, pixels.
      cutout: side of the square that is covered, 0 for none.
      optimizer: how it is trained.
      whitening_epochs: how long the bias of the whitening layer is trained.
      label_smoothing: share of the target that is spread over all classes.
      published: mean accuracy and number of runs, of the README of the published code.
    """

    name: str
    widths: tuple[int, ...]
    epochs: float
    batch_size: int
    optimizer: Muon | Nesterov
    published: tuple[float, int]
    convolutions: int = 2
    momentum: float = 0.6
    translate: int = 2
    cutout: int = 0
    whitening_epochs: int = 3
    label_smoothing: float = 0.2

    def steps_per_epoch(self, examples: int) -> int:
        """Whole batches in so many examples."""
        return examples // self.batch_size

    def steps(self, examples: int) -> int:
        """Steps of a run on so many examples."""
        return math.ceil(self.epochs * self.steps_per_epoch(examples))

    def network(self, dtype: Any = jnp.float32) -> Airbench:
        """The network, for ten classes."""
        muon = isinstance(self.optimizer, Muon)

        def bias(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            return uniform_fan_in(key, shape, dtype, fan_in=12)

        return Airbench(
            num_classes=10,
            widths=self.widths,
            convolutions=self.convolutions,
            momentum=self.momentum,
            whitening_bias_init=bias if muon else nn.initializers.zeros,
            head_init=unit_deviation if muon else uniform_fan_in,
            logit_scale=1 / self.widths[-1] if muon else 1 / 9,
            dtype=dtype,
        )


RECORDS: Mapping[str, Mapping[Literal["muon", "nesterov"], Record]] = {
    "airbench94": {
        "muon": Record(
            "airbench94, Muon",
            widths=(64, 256, 256),
            epochs=8,
            batch_size=2000,
            optimizer=Muon(),
            published=(0.9401, 200),
        ),
        "nesterov": Record(
            "airbench94, Nesterov",
            widths=(64, 256, 256),
            epochs=9.9,
            batch_size=1024,
            optimizer=Nesterov(11.5, 0.0153, warmup=0.23, last=0.07),
            published=(0.9401, 1000),
        ),
    },
    "airbench95": {
        "nesterov": Record(
            "airbench95, Nesterov",
            widths=(128, 384, 384),
            epochs=15,
            batch_size=1024,
            optimizer=Nesterov(10.0, 0.0153, warmup=0.23, last=0.07),
            published=(0.9501, 200),
        ),
    },
    "airbench96": {
        "nesterov": Record(
            "airbench96, Nesterov",
            widths=(128, 384, 512),
            epochs=37,
            batch_size=1024,
            optimizer=Nesterov(9.0, 0.012, warmup=0.1, last=0.0),
            convolutions=3,
            momentum=0.9,
            translate=4,
            cutout=12,
            published=(0.9603, 400),
        ),
    },
}
