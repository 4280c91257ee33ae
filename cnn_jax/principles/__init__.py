"""What convolutional networks are said to do, computed: of any registered or own Flax module."""

from cnn_jax.principles.effective_field import EffectiveField, effective_field
from cnn_jax.principles.gabor import GaborFits, gabor_fits
from cnn_jax.principles.gradients import (
    GradientNorm,
    cross_entropy,
    gradient_error,
    gradient_norms,
)
from cnn_jax.principles.layers import Layer, layers
from cnn_jax.principles.maximisation import Maximised, maximise_activation
from cnn_jax.principles.patches import TopPatches, top_patches
from cnn_jax.principles.pooling import POOLINGS, shift_distances
from cnn_jax.principles.probes import Probe, linear_probe
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
    turn,
)

__all__ = [
    "POOLINGS",
    "Activity",
    "Cost",
    "EffectiveField",
    "Equivariance",
    "Field",
    "GaborFits",
    "GradientNorm",
    "Layer",
    "Maximised",
    "Probe",
    "TopPatches",
    "accuracy_by_rotation",
    "accuracy_by_shift",
    "activity",
    "aliasing_energy",
    "class_selectivity",
    "convolution_matrix",
    "costs",
    "cross_entropy",
    "effective_field",
    "equivariance",
    "gabor_fits",
    "gradient_error",
    "gradient_norms",
    "layers",
    "linear_cka",
    "linear_probe",
    "maximise_activation",
    "receptive_field",
    "receptive_fields",
    "shift",
    "shift_consistency",
    "shift_distances",
    "top_patches",
    "turn",
]
