"""Compile the kernels ahead of their first use, and print where they lie."""

from __future__ import annotations

import sys

from cnn_jax.errors import NativeError
from cnn_jax.ops.native.build import build

try:
    print(build())  # noqa: T201
except NativeError as error:
    sys.exit(str(error))
