"""Augmentation as pure functions of (key, batch), compiled into the training step."""

from cnn_jax.augment.batch import example_keys
from cnn_jax.augment.blurring import blur, noise
from cnn_jax.augment.covering import cutout, erase
from cnn_jax.augment.mixing import cutmix, mixup
from cnn_jax.augment.moving import alternating_flip, flip, translate
from cnn_jax.augment.patches import window_of
from cnn_jax.augment.pipeline import Augment

__all__ = [
    "Augment",
    "alternating_flip",
    "blur",
    "cutmix",
    "cutout",
    "erase",
    "example_keys",
    "flip",
    "mixup",
    "noise",
    "translate",
    "window_of",
]
