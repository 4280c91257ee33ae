"""A pytest plugin that runs other people's tests with our convolution and our pools in place.

`pytest -p ours_for_theirs`: `jax.lax`'s convolutions and Flax's pools are ours from the start,
and how often each was called is written, as JSON, to the file that `$CALLS` names.
"""

import functools
import json
import os
import types
from collections import Counter
from pathlib import Path

import flax.linen
import flax.linen.pooling
import jax
import jax._src.lax.convolution

from cnn_jax import ops
from cnn_jax.ops import convolution

CONVOLUTIONS = ("conv_general_dilated", "conv_transpose", "conv_general_dilated_local")
POOLS = ("max_pool", "avg_pool")
calls = Counter(dict.fromkeys((*CONVOLUTIONS, *POOLS), 0))

# Ours asks the stock functions for shapes and derivatives: it keeps them under their names.
convolution.lax = types.SimpleNamespace(**vars(jax.lax))


def put(name, homes):
    ours = getattr(ops, name)

    @functools.wraps(ours)
    def counted(*arguments, **options):
        calls[name] += 1
        return ours(*arguments, **options)

    for home in homes:
        setattr(home, name, counted)


for function in CONVOLUTIONS:
    homes = [jax.lax, jax._src.lax.convolution]
    put(function, [home for home in homes if hasattr(home, function)])
for function in POOLS:
    put(function, [flax.linen, flax.linen.pooling])


def pytest_unconfigure():
    Path(os.environ["CALLS"]).write_text(json.dumps(calls))
