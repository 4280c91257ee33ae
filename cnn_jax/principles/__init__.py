"""What convolutional networks are said to do, computed: of any registered or own Flax module."""

from cnn_jax.principles.receptive_field import Field, receptive_field, receptive_fields

__all__ = ["Field", "receptive_field", "receptive_fields"]
