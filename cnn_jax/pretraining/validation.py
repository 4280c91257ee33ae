"""How well the problems of a part's images are solved, each example once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.training.evaluate import EvalStep, begin_predicting
from cnn_jax.training.feed import Feed
from cnn_jax.training.preprocess import Preprocess
from cnn_jax.training.selfsupervised import Contrastive, CutPaste, Reconstruction, Rotation
from cnn_jax.training.state import Batch, PyTree
from cnn_jax.training.step import ApplyFn, gather_batch
from cnn_jax.training.synthetic import Synthetic

LabelFree = Rotation | CutPaste | Contrastive | Reconstruction | Synthetic


def validation_of(
    apply: ApplyFn, task: LabelFree, preprocess: Preprocess, key: jax.Array
) -> Callable[[Mapping[str, PyTree], Batch, Batch], dict[str, jax.Array]]:
    """How well each example's problem is solved, as a pure function of a batch.

    Args:
      apply, task, preprocess: as of the step.
      key: of the problems; an example's is folded from its position in the split.

    Returns:
      `evaluate(variables, resident, item)`, which gives `figures` float32 `[B, n, 3]`: loss
      (without label smoothing), weight and accuracy of each of the n rows that an example makes.
    """

    def evaluate(
        variables: Mapping[str, PyTree], resident: Batch, item: Batch
    ) -> dict[str, jax.Array]:
        batch = gather_batch(resident, item)
        batch = {**batch, "image": preprocess.to_unit(batch["image"])}

        def alone(example: Batch) -> Batch:
            rows = jax.tree.map(lambda x: x[None], example)
            return dict(task.prepare(rows, key=jax.random.fold_in(key, example["index"])))

        # One by one: an example's problem is the same in a batch of any size.
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.vmap(alone)(batch))
        batch = {**batch, "image": preprocess.normalise(batch["image"])}
        outputs, _ = apply(variables, batch["image"], False, {})
        hyper = {"label_smoothing": jnp.zeros((), jnp.float32)}
        loss, weight = task.loss(outputs, batch, hyper, key=key)
        figures = jnp.stack([loss, weight, task.correct(outputs, batch)], axis=1)
        return {"figures": figures.reshape(len(item["index"]), -1, 3)}

    return evaluate


def begin_score(
    eval_step: EvalStep, variables: Mapping[str, Any], feed: Feed, *, ahead: int | None = None
) -> Callable[[], dict[str, float]]:
    """Begin to score a part; what is returned waits for that.

    It gives the weighted means of `loss` and `accuracy`, each example once, in float64.

    Args:
      eval_step: `validation_of`, over batches.
      variables: what the model takes.
      feed: of the part.
      ahead: as of `training.evaluate.begin_predicting`.

    Raises:
      EvaluationError: a figure is not finite, when it is waited for.
    """
    collect = begin_predicting(eval_step, variables, feed, ahead=ahead)

    def score() -> dict[str, float]:
        figures = collect().astype(np.float64)
        if not np.isfinite(figures).all():
            bad = int((~np.isfinite(figures)).any(axis=(1, 2)).sum())
            raise EvaluationError(
                f"the loss of {bad} of {len(figures)} validation examples is not finite"
            )
        loss, weight, correct = np.moveaxis(figures, -1, 0)
        total = weight.sum()
        return {
            "loss": float((loss * weight).sum() / total),
            "accuracy": float((correct * weight).sum() / total),
        }

    return score
