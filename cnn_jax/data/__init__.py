"""Where images come from: sources, splits and the order of an epoch. Knows nothing of models."""

from cnn_jax.data.alignment import align_face, similarity_transform
from cnn_jax.data.arrays import from_arrays
from cnn_jax.data.corrections import (
    Correction,
    apply_corrections,
    corrections_table,
    read_corrections,
)
from cnn_jax.data.dataset import Dataset, ImageSource, Split, TargetKind
from cnn_jax.data.decode import Fit, decode_image, read_header
from cnn_jax.data.duplicates import Duplicates, Example, find_duplicates
from cnn_jax.data.fetching.download import download
from cnn_jax.data.files import list_images
from cnn_jax.data.folds import fold
from cnn_jax.data.hierarchy import group_classes
from cnn_jax.data.identities import disjoint_identities, identity_parts
from cnn_jax.data.load import load
from cnn_jax.data.marked_classes import regions_by_class
from cnn_jax.data.near_duplicates import NearDuplicates, find_near_duplicates
from cnn_jax.data.order import balanced_order, check_identities, epoch_order, identity_order
from cnn_jax.data.originals import original_files, original_masks
from cnn_jax.data.pairs import Pairs, read_pairs
from cnn_jax.data.resolve import group_near_duplicates, resolve_duplicates
from cnn_jax.data.subsets import few_shots, fewer_identities
from cnn_jax.data.tfds.folder import tfds_root
from cnn_jax.data.tfds.writing import tfds_place, write_tfds

__all__ = [
    "Correction",
    "Dataset",
    "Duplicates",
    "Example",
    "Fit",
    "ImageSource",
    "NearDuplicates",
    "Pairs",
    "Split",
    "TargetKind",
    "align_face",
    "apply_corrections",
    "balanced_order",
    "check_identities",
    "corrections_table",
    "decode_image",
    "disjoint_identities",
    "download",
    "epoch_order",
    "few_shots",
    "fewer_identities",
    "find_duplicates",
    "find_near_duplicates",
    "fold",
    "from_arrays",
    "group_classes",
    "group_near_duplicates",
    "identity_order",
    "identity_parts",
    "list_images",
    "load",
    "original_files",
    "original_masks",
    "read_corrections",
    "read_header",
    "read_pairs",
    "regions_by_class",
    "resolve_duplicates",
    "similarity_transform",
    "tfds_place",
    "tfds_root",
    "write_tfds",
]
