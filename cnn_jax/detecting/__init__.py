"""Finding what is not normal: a detector that has seen normal images only, and its alarm.

found = detect(dataset, "good")
found.save("found")
Detector.load("found").predict(["image.png"]).alarms
"""

from cnn_jax.detecting.detection import (
    Detection,
    auroc_gain,
    check_new,
    judge,
    uses_beside,
)
from cnn_jax.detecting.detector import Detector, Scored
from cnn_jax.detecting.fitting import PIXELS, detect
from cnn_jax.detecting.scorer import Method

__all__ = [
    "PIXELS",
    "Detection",
    "Detector",
    "Method",
    "Scored",
    "auroc_gain",
    "check_new",
    "detect",
    "judge",
    "uses_beside",
]
