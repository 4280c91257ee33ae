"""A network learns from images without labels, for the features it then gives.

found = pretrain(Recipe(), dataset, "rotation", folder="pretrained")
found.embedding(images)
"""

from cnn_jax.pretraining.execution import pretrain
from cnn_jax.pretraining.plan import Objective
from cnn_jax.pretraining.trained import Pretrained

__all__ = ["Objective", "Pretrained", "pretrain"]
