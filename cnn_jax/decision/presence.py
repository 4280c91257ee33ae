"""Whether a region is anywhere in an image: predictions of images from those of their pixels."""

from __future__ import annotations

import numpy as np

from cnn_jax.evaluation import MaskPredictions, Predictions
from cnn_jax.evaluation.predictions import predictions_type


def presence(masks: MaskPredictions) -> Predictions:
    """One answer for each image and region from a segmentation: is the region in the image?

    The score of a region is its highest probability at any pixel, and the truth whether any pixel
    of the reference has it: detection of a lesion, image by image. A highest of many values is
    no probability that was learned: a temperature and a line are to be fitted on it.

    Args:
      masks: of any split.

    Returns:
      Predictions of kind `multilabel`, whose classes are the regions but the background and whose
      logits are log odds of the highest probability; of validation or calibration data
      `CalibrationPredictions`. Probabilities that the type of the saved ones rounds to 0 or 1
      count as halfway to its next value, so that they are finite.
    """
    spatial = tuple(range(1, masks.masks.ndim))
    number = np.finfo(masks.probabilities.dtype)
    highest = masks.probabilities.max(axis=spatial).astype(np.float64)
    p = highest.clip(float(number.smallest_subnormal) / 2, 1 - float(number.epsneg) / 2)
    marked = [(masks.masks == r).any(axis=spatial) for r in range(1, len(masks.regions))]
    return predictions_type(masks.split)(
        split=masks.split,
        ids=masks.ids,
        targets=np.stack(marked, axis=1).astype(np.float32),
        logits=(np.log(p) - np.log1p(-p)).astype(np.float32),
        classes=masks.regions[1:],
        kind="multilabel",
        groups=masks.groups,
        run_digest=masks.run_digest,
    )
