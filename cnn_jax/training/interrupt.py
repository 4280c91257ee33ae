"""SIGINT and SIGTERM as a flag that the loop reads between chunks."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_STDERR = 2
_SAID = b"\nstopping after this step\n"


class Interrupt:
    """While entered, a first SIGINT or SIGTERM sets `name` and says so; a second acts as usual.

    The stop button of a notebook sends SIGINT, so it is safe too. Outside the main thread
    signals cannot be caught, and nothing is changed.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._caught)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _caught(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        # The signal may have come in the middle of a print, which must not be entered twice.
        with contextlib.suppress(OSError):
            os.write(_STDERR, _SAID)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
