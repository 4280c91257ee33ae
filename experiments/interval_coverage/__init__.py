"""How often the intervals of `cnn_jax.evaluation` hold the truth."""
