"""The command line: parses and calls, nothing else.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from cnn_jax.cli.entry import main

__all__ = ["main"]
