"""The principles, measured on one run: what `cnn-jax principles` does."""

from cnn_jax.measuring.page import measure, show, write_principles_page
from cnn_jax.measuring.subject import Subject

__all__ = ["Subject", "measure", "show", "write_principles_page"]
