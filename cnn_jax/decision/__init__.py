"""What is fitted on the predictions of a validation split, and never on those of test."""

from cnn_jax.decision.fitted import FittedOn
from cnn_jax.decision.order_statistics import allowed_beyond
from cnn_jax.decision.prevalence import adjust_prevalence
from cnn_jax.decision.temperature import Temperature, fit_temperature
from cnn_jax.decision.threshold import Threshold, fit_threshold, is_positive

__all__ = [
    "FittedOn",
    "Temperature",
    "Threshold",
    "adjust_prevalence",
    "allowed_beyond",
    "fit_temperature",
    "fit_threshold",
    "is_positive",
]
