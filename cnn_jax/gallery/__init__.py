"""Enrol, search, reject: faces, products and whatever else has embeddings.

with gallery.Gallery.create("people.gallery", gallery.EmbeddingModel(digest, 512)) as known:
    known.enrol(names, embeddings, sources=files)
    known.fit_threshold(0.01)
    known.identify(others).names
"""

from cnn_jax.gallery.answers import UNKNOWN, Identified, Verified
from cnn_jax.gallery.gallery import Gallery
from cnn_jax.gallery.storage import EmbeddingModel
from cnn_jax.gallery.templates import templates_of
from cnn_jax.gallery.threshold import FittedThreshold

__all__ = [
    "UNKNOWN",
    "EmbeddingModel",
    "FittedThreshold",
    "Gallery",
    "Identified",
    "Verified",
    "templates_of",
]
