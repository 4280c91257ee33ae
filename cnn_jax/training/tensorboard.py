"""The figures of training as TensorBoard reads them; needs the extra `tensorboard`."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import Any

from cnn_jax.errors import RunError
from cnn_jax.training.progress import Reporter


def check_installed() -> None:
    """Raise `RunError` unless tensorboardX is there; it is not imported, which takes seconds."""
    if "tensorboardX" not in sys.modules and importlib.util.find_spec("tensorboardX") is None:
        raise RunError("train.tensorboard needs tensorboardX: pip install 'cnn_jax[tensorboard]'")


class TensorBoard:
    """Passes all on to another reporter, and writes each epoch's figures as scalars.

    The events lie in files of their own; nothing of a run is read from them. They are
    written by tensorboardX, so that TensorFlow is not needed.

    Args:
      inner: what shows progress.
      folder: where the event files go; `tensorboard --logdir` takes it or any folder above.
      epochs_done: epochs of the run so far; events of later ones, left by a run that was
        killed, are marked as void.

    Raises:
      RunError: tensorboardX is not installed.
    """

    def __init__(
        self, inner: Reporter, folder: str | os.PathLike[str], epochs_done: int = 0
    ) -> None:
        check_installed()
        from tensorboardX.writer import SummaryWriter

        self._inner = inner
        purge = epochs_done + 1 if epochs_done else None
        self._writer: Any = SummaryWriter(os.fspath(folder), purge_step=purge)

    def say(self, sentence: str) -> None:
        """Passed on."""
        self._inner.say(sentence)

    def chunk(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Passed on."""
        self._inner.chunk(epoch, step, steps, loss)

    def epoch(self, row: Mapping[str, float], images_per_second: float) -> None:
        """Write a scalar for each figure, at the number of the epoch, and pass on."""
        epoch = int(row["epoch"])
        for name, value in row.items():
            part, _, figure = name.partition("_")
            tag = f"{figure}/{part}" if part in ("train", "validation") else name
            if name != "epoch":
                self._writer.add_scalar(tag, value, epoch)
        self._writer.add_scalar("images_per_second", images_per_second, epoch)
        self._writer.flush()
        self._inner.epoch(row, images_per_second)

    def close(self) -> None:
        """Write what is left and close the file."""
        self._writer.close()
