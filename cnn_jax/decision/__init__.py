"""What is fitted on the predictions of a validation split, and never on those of test."""

from cnn_jax.decision.temperature import Temperature, fit_temperature

__all__ = ["Temperature", "fit_temperature"]
