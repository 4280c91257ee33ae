"""Where images come from: sources, splits and the order of an epoch. Knows nothing of models."""

from cnn_jax.data.arrays import from_arrays
from cnn_jax.data.dataset import Dataset, ImageSource, Split, TargetKind
from cnn_jax.data.decode import Fit, decode_image
from cnn_jax.data.files import list_images
from cnn_jax.data.load import load
from cnn_jax.data.order import epoch_order

__all__ = [
    "Dataset",
    "Fit",
    "ImageSource",
    "Split",
    "TargetKind",
    "decode_image",
    "epoch_order",
    "from_arrays",
    "list_images",
    "load",
]
