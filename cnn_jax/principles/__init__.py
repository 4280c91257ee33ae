"""What convolutional networks are said to do, computed: of any registered or own Flax module."""

from cnn_jax.principles.effective_field import EffectiveField, effective_field
from cnn_jax.principles.receptive_field import Field, receptive_field, receptive_fields
from cnn_jax.principles.representation import (
    Activity,
    activity,
    class_selectivity,
    linear_cka,
)
from cnn_jax.principles.sharing import Cost, convolution_matrix, costs
from cnn_jax.principles.translation import (
    Equivariance,
    accuracy_by_rotation,
    accuracy_by_shift,
    aliasing_energy,
    equivariance,
    shift,
    shift_consistency,
)

__all__ = [
    "Activity",
    "Cost",
    "EffectiveField",
    "Equivariance",
    "Field",
    "accuracy_by_rotation",
    "accuracy_by_shift",
    "activity",
    "aliasing_energy",
    "class_selectivity",
    "convolution_matrix",
    "costs",
    "effective_field",
    "equivariance",
    "linear_cka",
    "receptive_field",
    "receptive_fields",
    "shift",
    "shift_consistency",
]
