"""Augmentation as pure functions of (key, batch), compiled into the training step."""

from cnn_jax.augment.pipeline import Augment, example_keys
from cnn_jax.augment.transforms import cutout, flip, mixup, translate

__all__ = ["Augment", "cutout", "example_keys", "flip", "mixup", "translate"]
