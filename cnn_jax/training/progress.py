"""What a person sees while training runs."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Protocol, TextIO


class Reporter(Protocol):
    """Told by the loop what happens; see `Console`."""

    def say(self, sentence: str) -> None:
        """Something the user should know."""
        ...

    def chunk(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """`step` of `steps` in `epoch` is done; `loss` is the epoch's mean so far."""
        ...

    def epoch(self, rows: Sequence[Mapping[str, float]], images_per_second: float) -> None:
        """An epoch was trained and validated; a row for each member that is still training."""
        ...


class Silent:
    """Says nothing."""

    def say(self, sentence: str) -> None:
        """Ignored."""

    def chunk(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Ignored."""

    def epoch(self, rows: Sequence[Mapping[str, float]], images_per_second: float) -> None:
        """Ignored."""


class WithoutEpochs:
    """Passes on what is said and the live line, but no epochs: of many runs they would be pages."""

    def __init__(self, inner: Reporter) -> None:
        self.say = inner.say
        self.chunk = inner.chunk

    def epoch(self, rows: Sequence[Mapping[str, float]], images_per_second: float) -> None:
        """Ignored."""


class Console:
    """A line an epoch; on a terminal and in a notebook, a live line below.

    Piped output is plain lines, without control characters.
    """

    def __init__(self, epochs: int, stream: TextIO | None = None) -> None:
        self._epochs = epochs
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty() or _in_notebook()
        self._shown = 0.0
        self._width = 0

    def say(self, sentence: str) -> None:
        """Print a line of its own."""
        self._clear()
        print(sentence, file=self._stream, flush=True)

    def chunk(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Refresh the live line, at most ten times a second."""
        now = time.monotonic()
        if not self._live or now - self._shown < 0.1:
            return
        self._shown = now
        filled = 20 * step // steps
        bar = "█" * filled + "░" * (20 - filled)
        text = f"epoch {epoch}/{self._epochs} {bar} {step}/{steps}  loss {loss:.4f}"
        text = text[: max(10, shutil.get_terminal_size().columns - 1)]
        print("\r" + text.ljust(self._width), end="", file=self._stream, flush=True)
        self._width = len(text)

    def epoch(self, rows: Sequence[Mapping[str, float]], images_per_second: float) -> None:
        """Print the figures of an epoch, shortened to what the terminal holds.

        Of several members: the means, and the range of their validation accuracies.
        """
        self._clear()
        loss, train, validation = (
            [row[name] for row in rows]
            for name in ("train_loss", "train_accuracy", "validation_accuracy")
        )
        spread = f" ({100 * min(validation):.1f}-{100 * max(validation):.1f})" * (len(rows) > 1)
        parts = [
            f"epoch {int(rows[0]['epoch']):>{len(str(self._epochs))}}/{self._epochs}",
            f"loss {_mean(loss):.4f}",
            f"train {100 * _mean(train):5.2f} %",
            f"validation {100 * _mean(validation):5.2f} %{spread}",
            f"{images_per_second:,.0f} images/s",
        ]
        columns = shutil.get_terminal_size().columns if self._live else 200
        while len("  ".join(parts)) >= columns and len(parts) > 2:
            parts.pop()
        print("  ".join(parts), file=self._stream, flush=True)

    def _clear(self) -> None:
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=self._stream, flush=True)
            self._width = 0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _in_notebook() -> bool:
    """Whether an IPython kernel shows the output; IPython is not imported to find out."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")
