"""Sweeps: which setting of a recipe is best on validation data.

found = cnn_jax.sweep(vary={"optimizer.learning_rate": [0.03, 0.1, 0.3], "seed": range(4)})
found.settings()[0]
"""

from cnn_jax.sweeps.beginning import sweep
from cnn_jax.sweeps.space import Range, Values
from cnn_jax.sweeps.swept import Setting, Sweep

__all__ = ["Range", "Setting", "Sweep", "Values", "sweep"]
