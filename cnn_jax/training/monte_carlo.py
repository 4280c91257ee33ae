"""Monte-Carlo dropout: what a network says with other units dropped each time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from cnn_jax import nn
from cnn_jax.training.evaluate import predict_examples
from cnn_jax.training.feed import Feed
from cnn_jax.training.preprocess import Preprocess
from cnn_jax.training.state import purpose_key
from cnn_jax.training.step import ApplyFn, make_eval_step
from cnn_jax.training.task import Task

_KEY = "monte_carlo"


def dropout_logits(
    model: nn.Module,
    task: Task,
    preprocess: Preprocess,
    variables: Mapping[str, Any],
    feed: Feed,
    *,
    samples: int,
    seed: int,
) -> list[np.ndarray]:
    """Logits float32 `[N, K]` of every example with dropout, once for each sample.

    One program serves all samples. Rows of a batch are dropped independently; the same row of two
    batches is dropped alike within a sample, which no mean over samples of an example sees.

    Raises:
      ModelError: the model has no dropout.
    """
    step = make_eval_step(_dropping(model), task, preprocess)
    root = purpose_key(jax.random.key(seed), "monte_carlo_dropout")
    return [
        predict_examples(step, {**variables, _KEY: jax.random.fold_in(root, number)}, feed)
        for number in range(samples)
    ]


def _dropping(model: nn.Module) -> ApplyFn:
    def apply(
        variables: Mapping[str, Any], image: jax.Array, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[Any, Any]:
        own = {name: value for name, value in variables.items() if name != _KEY}
        with nn.keep_dropping():
            outputs = model.apply(own, image, train=False, rngs={"dropout": variables[_KEY]})
        return outputs, {}

    return apply
