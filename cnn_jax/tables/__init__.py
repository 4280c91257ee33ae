"""What the command line prints: aligned text, CSV or JSON."""

from cnn_jax.tables.answers import answers, compared, fates, relabelled, segmented
from cnn_jax.tables.data_and_models import audit, dataset, learning_rates, models
from cnn_jax.tables.detection import detection, scored
from cnn_jax.tables.explanations import audits
from cnn_jax.tables.figures import (
    decision,
    figures,
    gains,
    population,
    settings,
    verdict,
)
from cnn_jax.tables.principles import probes
from cnn_jax.tables.stock import stock

__all__ = [
    "answers",
    "audit",
    "audits",
    "compared",
    "dataset",
    "decision",
    "detection",
    "fates",
    "figures",
    "gains",
    "learning_rates",
    "models",
    "population",
    "probes",
    "relabelled",
    "scored",
    "segmented",
    "settings",
    "stock",
    "verdict",
]
