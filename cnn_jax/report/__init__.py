"""The self-contained HTML page of a run: `write(Page(...), path)`."""

from cnn_jax.report.page import (
    Baseline,
    ConfusedClasses,
    ErrorsOfClass,
    HardExample,
    MaskCase,
    Page,
)
from cnn_jax.report.render import render, write

__all__ = [
    "Baseline",
    "ConfusedClasses",
    "ErrorsOfClass",
    "HardExample",
    "MaskCase",
    "Page",
    "render",
    "write",
]
