"""What is fitted on the predictions of a validation split, and never on those of test."""

from cnn_jax.decision.alarm import Alarm, PromiseCheck, check_promise, fit_alarm
from cnn_jax.decision.conformal import PredictionSets, SetFigures, fit_prediction_sets
from cnn_jax.decision.crossfit import Calibrator, cross_fitted
from cnn_jax.decision.fitted import FittedOn
from cnn_jax.decision.isotonic import Isotonic, fit_isotonic
from cnn_jax.decision.order_statistics import allowed_beyond
from cnn_jax.decision.presence import presence
from cnn_jax.decision.prevalence import adjust_prevalence
from cnn_jax.decision.referral import Referral, fit_referral
from cnn_jax.decision.stock import Confusion, Count, fit_confusion
from cnn_jax.decision.temperature import Temperature, fit_temperature
from cnn_jax.decision.threshold import Threshold, fit_threshold, is_positive
from cnn_jax.decision.vector_scaling import VectorScaling, fit_vector_scaling
from cnn_jax.decision.verification import PairThreshold, fit_threshold_far

__all__ = [
    "Alarm",
    "Calibrator",
    "Confusion",
    "Count",
    "FittedOn",
    "Isotonic",
    "PairThreshold",
    "PredictionSets",
    "PromiseCheck",
    "Referral",
    "SetFigures",
    "Temperature",
    "Threshold",
    "VectorScaling",
    "adjust_prevalence",
    "allowed_beyond",
    "check_promise",
    "cross_fitted",
    "fit_alarm",
    "fit_confusion",
    "fit_isotonic",
    "fit_prediction_sets",
    "fit_referral",
    "fit_temperature",
    "fit_threshold",
    "fit_threshold_far",
    "fit_vector_scaling",
    "is_positive",
    "presence",
]
