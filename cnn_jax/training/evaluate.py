"""Predictions for every example of a split, each exactly once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.training.feed import Feed

EvalStep = Callable[
    [Mapping[str, Any], dict[str, jax.Array], dict[str, jax.Array]], dict[str, jax.Array]
]


def predict_examples(eval_step: EvalStep, variables: Mapping[str, Any], feed: Feed) -> np.ndarray:
    """What the task keeps of each example, in the order of the split.

    Logits float32 `[N, K]`, or probabilities of pixels float16 `[N, spatial axes, R - 1]`; of
    several members with their axis second, `[N, M, ...]`.

    Batches are padded to one shape and the padding is thrown away; that every example
    came out exactly once is counted, not assumed.

    Raises:
      EvaluationError: an example was left out or predicted twice.
    """
    # One call late: the device computes the next batches while the host stores these.
    return begin_predicting(eval_step, variables, feed, ahead=1)()


def begin_predicting(
    eval_step: EvalStep, variables: Mapping[str, Any], feed: Feed, *, ahead: int | None = None
) -> Callable[[], np.ndarray]:
    """`predict_examples` in two: this sets the device to work, what it returns waits for it.

    With `ahead` at most so many batches are left on the device; the others are waited for here.
    """
    counts = np.zeros(len(feed), np.int64)
    kept: np.ndarray | None = None
    pending: deque[tuple[dict[str, np.ndarray], dict[str, jax.Array]]] = deque()

    def keep_oldest() -> None:
        nonlocal kept
        item, outputs = pending.popleft()
        (output,) = outputs.values()  # a task keeps one array
        rows = np.asarray(output)[item["valid"]]
        if kept is None:
            kept = np.zeros((len(feed), *rows.shape[1:]), rows.dtype)
        index = item["index"][item["valid"]]
        kept[index] = rows
        np.add.at(counts, index, 1)

    def collect() -> np.ndarray:
        while pending:
            keep_oldest()
        if kept is None or not (counts == 1).all():
            raise EvaluationError(
                f"{int((counts == 0).sum())} examples were left out and "
                f"{int((counts > 1).sum())} counted twice: evaluation is not exact"
            )
        return kept

    for item, on_device in feed.eval_items():
        # Without the images, which a streamed feed has decoded for this batch alone.
        where = {name: item[name] for name in ("index", "valid")}
        pending.append((where, eval_step(variables, feed.resident, on_device)))
        if ahead is not None and len(pending) > ahead:
            keep_oldest()
    return collect
