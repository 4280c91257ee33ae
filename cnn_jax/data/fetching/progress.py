"""How far a download is: a line that is redrawn on a terminal, else one for each 10 %.

Before the first byte, which may be long in coming, the line says which host is asked.
"""

from __future__ import annotations

import time
from typing import TextIO


class Progress:
    """Writes to a stream; None writes nothing."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._redraws = stream is not None and stream.isatty()
        self._name = ""
        self._start = self._total = 0
        self._since = self._shown_at = 0.0
        self._tenth = 0
        self._host = ""

    def trying(self, name: str, host: str) -> None:
        """A host is asked for a file; a further attempt at the same host is not said again."""
        if self._stream is None or self._host == host:
            return
        self._host = host
        line = f"{name}: trying {host}"
        self._stream.write(f"\r{line:79.79}" if self._redraws else line + "\n")
        self._stream.flush()

    def begin(self, name: str, start: int, total: int) -> None:
        """A file of `total` bytes goes on at `start`."""
        self._name, self._start, self._total = name, start, max(total, 1)
        self._since = self._shown_at = time.monotonic()
        self._tenth = 10 * start // self._total

    def update(self, arrived: int) -> None:
        """The file now has `arrived` bytes."""
        if self._stream is None:
            return
        now = time.monotonic()
        tenth = 10 * arrived // self._total
        finished = arrived >= self._total
        if self._redraws and (finished or now - self._shown_at > 0.2):
            self._shown_at = now
            self._stream.write(f"\r{self._line(arrived, now):79.79}" + "\n" * finished)
            self._stream.flush()
        elif not self._redraws and tenth > self._tenth:
            self._tenth = tenth
            self._stream.write(self._line(arrived, now) + "\n")
            self._stream.flush()

    def _line(self, arrived: int, now: float) -> str:
        speed = (arrived - self._start) / max(now - self._since, 1e-3)
        left = max(self._total - arrived, 0) / max(speed, 1.0)
        return (
            f"{self._name}: {100 * arrived / self._total:.0f} % of {self._total / 1e6:.1f} MB, "
            f"{speed / 1e6:.2f} MB/s, {left:.0f} s left"
        )
