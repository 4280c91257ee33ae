"""How a convolution or a pooling is computed: drop-ins for those of `jax.lax` and Flax.

Signatures and results are theirs; the algorithms are ours, and so is the choice among them,
which `explain` tells.
"""

from cnn_jax.ops.algorithms import ALGORITHMS
from cnn_jax.ops.blur_pooling import blur_pool
from cnn_jax.ops.choice import use_algorithm
from cnn_jax.ops.convolution import (
    Padding,
    conv_general_dilated,
    conv_general_dilated_local,
    conv_transpose,
    depthwise_conv,
)
from cnn_jax.ops.explanation import explain
from cnn_jax.ops.global_pooling import (
    adaptive_avg_pool,
    adaptive_max_pool,
    global_avg_pool,
    global_max_pool,
)
from cnn_jax.ops.polyphase import adaptive_polyphase
from cnn_jax.ops.pooling import avg_pool, max_pool
from cnn_jax.ops.primitive import CONVOLUTION

__all__ = [
    "ALGORITHMS",
    "CONVOLUTION",
    "Padding",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "adaptive_polyphase",
    "avg_pool",
    "blur_pool",
    "conv_general_dilated",
    "conv_general_dilated_local",
    "conv_transpose",
    "depthwise_conv",
    "explain",
    "global_avg_pool",
    "global_max_pool",
    "max_pool",
    "use_algorithm",
]
