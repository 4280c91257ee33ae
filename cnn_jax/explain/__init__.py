"""What in an image a network answers to: heat maps, each with a law that it obeys."""

from cnn_jax.explain.grad_cam import grad_cam, hires_cam, last_maps
from cnn_jax.explain.gradients import gradient, gradient_times_input, saliency, smooth_grad
from cnn_jax.explain.guided import guided_backpropagation
from cnn_jax.explain.integrated import IntegratedGradients, integrated_gradients
from cnn_jax.explain.occlusion import occlusion
from cnn_jax.explain.relevance import layer_relevance
from cnn_jax.explain.rise import rise

__all__ = [
    "IntegratedGradients",
    "grad_cam",
    "gradient",
    "gradient_times_input",
    "guided_backpropagation",
    "hires_cam",
    "integrated_gradients",
    "last_maps",
    "layer_relevance",
    "occlusion",
    "rise",
    "saliency",
    "smooth_grad",
]
