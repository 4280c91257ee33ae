"""What in an image a network answers to: heat maps, each with a law that it obeys."""

from cnn_jax.explain.grad_cam import grad_cam, last_maps
from cnn_jax.explain.occlusion import occlusion

__all__ = ["grad_cam", "last_maps", "occlusion"]
