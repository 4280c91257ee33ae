"""Explaining a run's answers: maps of new images, and whether the method can be trusted on it."""

from cnn_jax.explaining.audit import (
    AUDITED,
    FEWEST_AUDITED,
    LARGEST_GAP,
    Audit,
    Controls,
    audit_method,
)
from cnn_jax.explaining.explained import Explained, explain_by, explain_run
from cnn_jax.explaining.maps import maps_of

__all__ = [
    "AUDITED",
    "FEWEST_AUDITED",
    "LARGEST_GAP",
    "Audit",
    "Controls",
    "Explained",
    "audit_method",
    "explain_by",
    "explain_run",
    "maps_of",
]
