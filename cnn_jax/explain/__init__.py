"""What in an image a network answers to: heat maps that obey laws, and audits of them."""

from cnn_jax.explain.faithfulness import (
    Curve,
    Probability,
    deletion,
    edges,
    insertion,
    paired_gain,
    pointing_game,
    random_maps,
    road,
)
from cnn_jax.explain.grad_cam import grad_cam, hires_cam, last_maps
from cnn_jax.explain.gradients import gradient, gradient_times_input, saliency, smooth_grad
from cnn_jax.explain.guided import guided_backpropagation
from cnn_jax.explain.integrated import IntegratedGradients, integrated_gradients
from cnn_jax.explain.methods import METHODS, Method, method
from cnn_jax.explain.occlusion import occlusion
from cnn_jax.explain.randomisation import Randomisation, randomisation_check
from cnn_jax.explain.relevance import layer_relevance
from cnn_jax.explain.rise import rise

__all__ = [
    "METHODS",
    "Curve",
    "IntegratedGradients",
    "Method",
    "Probability",
    "Randomisation",
    "deletion",
    "edges",
    "grad_cam",
    "gradient",
    "gradient_times_input",
    "guided_backpropagation",
    "hires_cam",
    "insertion",
    "integrated_gradients",
    "last_maps",
    "layer_relevance",
    "method",
    "occlusion",
    "paired_gain",
    "pointing_game",
    "random_maps",
    "randomisation_check",
    "rise",
    "road",
    "saliency",
    "smooth_grad",
]
