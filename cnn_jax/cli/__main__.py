"""`python -m cnn_jax.cli`."""

import sys

from cnn_jax.cli.entry import main

sys.exit(main())
