"""Rivals in a second process, asked over pipes: a line of JSON each way.

Requests are `{"do": "prepare", ...}`, answered by `{"id": n}`; `{"do": "time", "id": n,
"repeats": r}` by `{"seconds": s}`; `{"do": "release"}` by `{}`; `{"do": "cuda"}` by `{"cuda": 0}`
or 1. Any answer may be `{"error": "one line"}`. What else the process prints belongs on its
stderr, whose last line is quoted if it dies.
"""

from __future__ import annotations

import json
import queue
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

from cnn_jax.errors import BenchmarkError

ANSWER_SECONDS = 600.0  # a compilation may take minutes


class Server:
    """A process that prepares and times rivals; a context manager that ends it."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        name: str,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """Start `command`, which is called `name` in messages.

        Raises:
          BenchmarkError: it cannot be started.
        """
        self._name, self._answer_seconds = name, answer_seconds
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=dict(environment),
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            self._stderr.close()
            raise BenchmarkError(f"the process of {name} cannot be started: {error}") from error
        self._answers: queue.Queue[str] = queue.Queue()
        assert self._process.stdout is not None
        threading.Thread(
            target=_read_lines, args=(self._process.stdout, self._answers), daemon=True
        ).start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._stderr):
            try:
                if pipe is not None:
                    pipe.close()
            except BrokenPipeError:  # a request that a dead process never read
                pass

    def prepare(self, request: Mapping[str, Any]) -> ServedRival:
        """Let the process prepare what the request describes.

        Raises:
          BenchmarkError: it died, hung, or answered with an error.
        """
        return ServedRival(self, int(self.ask({"do": "prepare", **request}, "id")))

    def release(self) -> None:
        """Let the process forget what it has prepared."""
        self.ask({"do": "release"})

    def ask(self, request: Mapping[str, Any], key: str | None = None) -> Any:
        """Send a request; what its answer has under `key`.

        Raises:
          BenchmarkError: the process died, hung, or answered with an error or nonsense.
        """
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise BenchmarkError(self._obituary()) from None
        try:
            line = self._answers.get(timeout=self._answer_seconds)
        except queue.Empty:
            raise BenchmarkError(
                f"the process of {self._name} did not answer within {self._answer_seconds:g} s"
            ) from None
        if not line:
            raise BenchmarkError(self._obituary())
        return self._checked(line, key)

    def _checked(self, line: str, key: str | None) -> Any:
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if isinstance(answer, dict) and "error" in answer:
            raise BenchmarkError(f"{self._name}: {answer['error']}")
        if not isinstance(answer, dict) or (
            key is not None and not isinstance(answer.get(key), int | float)
        ):
            raise BenchmarkError(f"the process of {self._name} answered {line.strip()[:80]!r}")
        return None if key is None else answer[key]

    def _obituary(self) -> str:
        status = self._process.wait()
        self._stderr.seek(0)
        words = self._stderr.read().strip().splitlines()
        last = f": {words[-1].strip()}" if words else ""
        return f"the process of {self._name} ended with status {status}{last}"


class ServedRival:
    """A rival that a server has prepared."""

    def __init__(self, server: Server, identity: int) -> None:
        self._server, self._identity = server, identity

    def time(self, repeats: int) -> float:
        """Seconds of `repeats` calls, by the clock of the process that makes them.

        Raises:
          BenchmarkError: as `Server.ask`.
        """
        request = {"do": "time", "id": self._identity, "repeats": repeats}
        return float(self._server.ask(request, "seconds"))


def _read_lines(pipe: IO[str], answers: queue.Queue[str]) -> None:
    with pipe:
        for line in pipe:
            answers.put(line)
    answers.put("")  # the end: no answer will come
