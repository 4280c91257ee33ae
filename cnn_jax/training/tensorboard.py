"""The figures of training as TensorBoard reads them; needs the extra `tensorboard`."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
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
    written by tensorboardX, so that TensorFlow is not needed, and an epoch's are on disk
    before its checkpoint is: a run that is killed and resumed has every epoch. The first
    epoch that is written voids what an earlier process left of it and of later ones.

    Args:
      inner: what shows progress.
      folder: where the event files go; `tensorboard --logdir` takes it or any folder above.

    Raises:
      RunError: tensorboardX is not installed.
    """

    def __init__(self, inner: Reporter, folder: str | os.PathLike[str]) -> None:
        check_installed()
        # Its `SummaryWriter` writes from a queue, which a kill would lose.
        from tensorboardX.event_file_writer import EventsWriter

        self._inner = inner
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # Its file names tell seconds, and two processes may begin within one.
        number = sum(1 for _ in folder.iterdir())
        self._writer = EventsWriter(str(folder / "events"), f".{number}")
        self._begun = False

    def say(self, sentence: str) -> None:
        """Passed on."""
        self._inner.say(sentence)

    def chunk(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Passed on."""
        self._inner.chunk(epoch, step, steps, loss)

    def epoch(self, rows: Sequence[Mapping[str, float]], images_per_second: float) -> None:
        """Write a scalar for each figure of the run, at the number of the epoch, and pass on."""
        (row,) = rows
        figures = {_tag(name): value for name, value in row.items() if name != "epoch"}
        figures["images_per_second"] = images_per_second
        values = [{"tag": tag, "simple_value": value} for tag, value in figures.items()]
        if not self._begun:
            self._write(row, session_log={"status": "START"})
            self._begun = True
        self._write(row, summary={"value": values})
        self._writer.flush()
        self._inner.epoch(rows, images_per_second)

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, row: Mapping[str, float], **content: Any) -> None:
        from tensorboardX.proto import event_pb2

        # protobuf makes its classes while it is imported, where no type checker sees them.
        messages: Any = event_pb2
        event = messages.Event(step=int(row["epoch"]), wall_time=time.time(), **content)
        self._writer.write_event(event)


def _tag(name: str) -> str:
    """`train_loss` as `loss/train`, so that train and validation share a section."""
    part, _, figure = name.partition("_")
    return f"{figure}/{part}" if part in ("train", "validation") else name
