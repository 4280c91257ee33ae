"""How a network that classifies fares on corrupted images: what noise, blur and weather cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cnn_jax.augment.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from cnn_jax.errors import RunError
from cnn_jax.evaluation import Estimate, bootstrap
from cnn_jax.evaluation.weighted import mean_statistic
from cnn_jax.run import Run

_ROWS = 1024  # images read and corrupted at a time


def corruption_metrics(
    run: Run,
    part: str = "test",
    *,
    command: str = "corruption_metrics",
    seed: int = 0,
    reporter: Callable[[str], None] | None = None,
) -> dict[str, Estimate]:
    """Accuracy on images as they are and under each of the fifteen corruptions.

    The accuracy under a corruption is the mean over its five severities; `mean_corrupted` is that
    over all 75. An image whose class is right under three severities of five counts 0.6, so that
    intervals resample images (or groups of them) with all that was made of each.

    Args:
      run: finished, of one class for each image.
      part: whose images are corrupted.
      command: of the record of uses of the part.
      seed: of `augment.corruptions.corrupt`.
      reporter: is told each corruption that is done.

    Returns:
      `clean`, then `mean_corrupted`, then each corruption's name -> accuracy.

    Raises:
      RunError: the run does not tell classes of images apart.
      DataError: images of fewer than 8 pixels, of other than 1 or 3 channels, or volumes.
    """
    if run.regions or run.recognises or run.dataset.kinds["label"] != "class":
        raise RunError(f"{run.shown!r} does not tell classes of images apart: name one that does")
    dataset = run.dataset
    if part not in dataset.splits:
        raise RunError(f"{dataset.name!r} has {', '.join(dataset.splits)}, and no part {part!r}")
    split = dataset.splits[part]
    corrupt(split.read_images(np.arange(1)), CORRUPTIONS[0], 1)  # refused before the part is used
    labels = split.targets["label"]
    right = {name: np.zeros(len(split)) for name in ("clean", "mean_corrupted", *CORRUPTIONS)}
    run.log_use(part, len(split), command)
    for start in range(0, len(split), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(split)))
        images, true = split.read_images(rows), labels[rows]
        right["clean"][rows] = _right(run, images, true)
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                changed = corrupt(images, name, severity, seed=seed + start)
                right[name][rows] += _right(run, changed, true) / len(SEVERITIES)
            if reporter is not None:
                reporter(f"{rows[-1] + 1:,} of {len(split):,} images: {name.replace('_', ' ')}")
            right["mean_corrupted"][rows] += right[name][rows] / len(CORRUPTIONS)
    statistics = {name: mean_statistic(values) for name, values in right.items()}
    found = bootstrap(statistics, len(split), split.groups)
    return {name: replace(estimate, percent=True) for name, estimate in found.items()}


def _right(run: Run, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 `[N]`: 1 where the likeliest class is the true one."""
    answers = run.classifier.logits(images)[1].argmax(axis=1)
    found: np.ndarray = (answers == labels).astype(np.float64)
    return found
