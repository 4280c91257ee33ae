"""What is learned where every pixel has an answer: cross-entropy and the Dice loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import EvaluationError, ModelError
from cnn_jax.evaluation import (
    CALIBRATION_SPLITS,
    Estimate,
    MaskPredictions,
    segmentation_metrics,
)
from cnn_jax.training.task import Batch, Hyper

# Added to both sides of the Dice ratio, in pixels: without it an empty mask has no gradient.
_SMOOTH = 1.0
# Probabilities are kept as float16, which rounds what is nearer to 1 than this to 1.
_SMALLEST = 2.0**-12


def pixel_logits(outputs: Any) -> jax.Array:
    """The logits `[B, spatial axes, R]` of a model's output, float32.

    Raises:
      ModelError: the output is no such array, nor a dict with one called `logits`.
    """
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if logits is None or jnp.ndim(logits) not in (4, 5):
        shape = "nothing called 'logits'" if logits is None else f"shape {list(jnp.shape(logits))}"
        raise ModelError(f"the model must return logits for each pixel, [B, H, W, R]; got {shape}")
    return logits.astype(jnp.float32)


@dataclass(frozen=True)
class Segmentation:
    """One of R regions for each pixel, the first of them the background.

    loss = mean over pixels of the cross-entropy + `dice` * (1 - mean over regions of D), with
    D = (2 sum p g + 1) / (sum p + sum g + 1), p the softmax of a region, g 1 where the mask has
    it, sums over the pixels of one image, and the background left out (Milletari et al. 2016;
    the sum of both as in nnU-Net, Isensee et al. 2021).

    Attributes:
      regions: R names.
      dice: weight of the Dice loss.
    """

    regions: tuple[str, ...]
    dice: float = 1.0

    @property
    def num_outputs(self) -> int:
        """R."""
        return len(self.regions)

    def loss(
        self, outputs: Any, batch: Batch, hyper: Hyper, *, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Cross-entropy and Dice loss, and weight 1, float32 `[B]`."""
        log_p = jax.nn.log_softmax(pixel_logits(outputs))
        g = jax.nn.one_hot(batch["mask"], self.num_outputs, dtype=jnp.float32)
        smooth = hyper["label_smoothing"]
        q = (1 - smooth) * g + smooth / self.num_outputs
        pixels = tuple(range(1, log_p.ndim - 1))
        loss = -(q * log_p).sum(axis=-1).mean(axis=pixels)
        if self.dice:
            overlap = _ratio(jnp.exp(log_p)[..., 1:], g[..., 1:], pixels, _SMOOTH)
            loss = loss + self.dice * (1 - overlap.mean(axis=-1))
        return loss, jnp.ones(len(loss), jnp.float32)

    def correct(self, outputs: Any, batch: Batch) -> jax.Array:
        """Mean Dice of the regions, each 1 where neither mask nor answer has any of it."""
        answer = pixel_logits(outputs).argmax(axis=-1)
        p = jax.nn.one_hot(answer, self.num_outputs, dtype=jnp.float32)[..., 1:]
        g = jax.nn.one_hot(batch["mask"], self.num_outputs, dtype=jnp.float32)[..., 1:]
        # A thousandth of a pixel makes 0 / 0 into 1 and changes nothing else.
        return _ratio(p, g, tuple(range(1, p.ndim - 1)), 1e-3).mean(axis=-1)

    def predictions(self, outputs: Any) -> dict[str, jax.Array]:
        """Probabilities of the regions but the background, float16 `[B, spatial axes, R - 1]`."""
        p = jax.nn.softmax(pixel_logits(outputs))[..., 1:]
        return {"probabilities": p.astype(jnp.float16)}

    def score(self, predictions: MaskPredictions) -> dict[str, float]:
        """Mean loss (no smoothing) as `loss`, and as `accuracy` the mean Dice of all images.

        Probabilities below 2^-12, which float16 cannot tell from 0 beside 1, count as that.

        Raises:
          EvaluationError: the predictions are not of a part to choose on.
        """
        if predictions.split not in CALIBRATION_SPLITS:
            raise EvaluationError(
                f"a choice of state sees the validation part, not {predictions.split!r}"
            )
        found = predictions.predicted()
        examples = list(zip(predictions.probabilities, found, predictions.masks, strict=True))
        loss = [self._loss_of(p.astype(np.float64), mask) for p, _, mask in examples]
        dice = [self._dice_of(answer, mask) for _, answer, mask in examples]
        return {"loss": float(np.mean(loss)), "accuracy": float(np.mean(dice))}

    def metrics(self, predictions: MaskPredictions) -> dict[str, Estimate]:
        """See `evaluation.segmentation_metrics`."""
        return segmentation_metrics(predictions)

    def _loss_of(self, p: np.ndarray, mask: np.ndarray) -> float:
        """The loss of one image in float64; p `[spatial axes, R - 1]`."""
        background = 1 - p.sum(axis=-1)
        of_mask = np.where(mask == 0, background, 0)
        overlap = []
        for r in range(1, len(self.regions)):
            g = mask == r
            of_mask = np.where(g, p[..., r - 1], of_mask)
            ratio = 2 * p[g, r - 1].sum() + _SMOOTH
            overlap.append(ratio / (p[..., r - 1].sum() + g.sum() + _SMOOTH))
        entropy = -np.log(np.clip(of_mask, _SMALLEST, 1)).mean()
        return float(entropy + self.dice * (1 - np.mean(overlap)))

    def _dice_of(self, answer: np.ndarray, mask: np.ndarray) -> float:
        """Mean over the regions of the Dice of one image, 1 where neither has any of it."""
        both = np.bincount(mask[answer == mask], minlength=self.num_outputs)
        of_answer = np.bincount(answer.ravel(), minlength=self.num_outputs)
        of_mask = np.bincount(mask.ravel(), minlength=self.num_outputs)
        total = (of_answer + of_mask)[1:]
        return float(np.where(total > 0, 2 * both[1:] / np.maximum(total, 1), 1.0).mean())


def _ratio(p: jax.Array, g: jax.Array, pixels: tuple[int, ...], smooth: float) -> jax.Array:
    """(2 sum p g + s) / (sum p + sum g + s) over the pixels; `[B, R - 1]`."""
    both = (p * g).sum(axis=pixels)
    return (2 * both + smooth) / (p.sum(axis=pixels) + g.sum(axis=pixels) + smooth)
