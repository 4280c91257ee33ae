"""Convolutional networks for image recognition in JAX and Flax.

    import cnn_jax
    run = cnn_jax.train(epochs=5)
    run.evaluate("test")["accuracy"]

Names are imported when they are first used: `import cnn_jax` does not import jax.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnn_jax import (
        anomaly,
        augment,
        data,
        decision,
        evaluation,
        explain,
        gallery,
        models,
        nn,
        ops,
        report,
        training,
    )
    from cnn_jax.classifier import Classified, Classifier
    from cnn_jax.comparing import compare
    from cnn_jax.detecting import Detector, detect
    from cnn_jax.errors import CnnJaxError
    from cnn_jax.evaluation import Estimate, Predictions
    from cnn_jax.kept_memory import keep_freed_memory
    from cnn_jax.learning_rates import RangeTest, range_test
    from cnn_jax.population import Population, train_population
    from cnn_jax.pretraining import Pretrained, pretrain
    from cnn_jax.recipe import Recipe
    from cnn_jax.run import Run, train
    from cnn_jax.segmenter import Segmented, Segmenter
    from cnn_jax.sweeps import Sweep, sweep

_HOME = {
    "Classified": "classifier",
    "Classifier": "classifier",
    "CnnJaxError": "errors",
    "Detector": "detecting",
    "Estimate": "evaluation",
    "Population": "population",
    "Pretrained": "pretraining",
    "Predictions": "evaluation",
    "RangeTest": "learning_rates",
    "Recipe": "recipe",
    "Run": "run",
    "Segmented": "segmenter",
    "Segmenter": "segmenter",
    "Sweep": "sweeps",
    "compare": "comparing",
    "detect": "detecting",
    "keep_freed_memory": "kept_memory",
    "pretrain": "pretraining",
    "range_test": "learning_rates",
    "sweep": "sweeps",
    "train": "run",
    "train_population": "population",
}
_ROOMS = (
    "anomaly",
    "augment",
    "data",
    "decision",
    "evaluation",
    "explain",
    "gallery",
    "models",
    "nn",
    "ops",
    "report",
    "training",
)

__all__ = [
    "Classified",
    "Classifier",
    "CnnJaxError",
    "Detector",
    "Estimate",
    "Population",
    "Predictions",
    "Pretrained",
    "RangeTest",
    "Recipe",
    "Run",
    "Segmented",
    "Segmenter",
    "Sweep",
    "anomaly",
    "augment",
    "compare",
    "data",
    "decision",
    "detect",
    "evaluation",
    "explain",
    "gallery",
    "keep_freed_memory",
    "models",
    "nn",
    "ops",
    "pretrain",
    "range_test",
    "report",
    "sweep",
    "train",
    "train_population",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"cnn_jax.{_HOME[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"cnn_jax.{name}")
    raise AttributeError(f"module 'cnn_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
