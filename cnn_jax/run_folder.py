"""The folder of a run: what lies in it, and how it is written without losing anything."""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

from cnn_jax import environment
from cnn_jax.data import Dataset
from cnn_jax.errors import RunError
from cnn_jax.recipe import Recipe
from cnn_jax.whole_files import write_whole

SCHEMA = 1

# What every run.json has from its beginning.
_IDENTITY = ("name", "digest", "classes", "kind", "image_shape", "parts", "licence", "citation")
_REQUIRED: dict[str, Any] = {
    **dict.fromkeys(("status", "command", "seed", "recipe_digest", "wants_baselines", "started")),
    "data": dict.fromkeys((*_IDENTITY, "notes")),
    "model": dict.fromkeys(("name", "parameters", "flops")),
    "preprocess": dict.fromkeys(("mean", "std")),
    "environment": dict.fromkeys(("versions", "devices", "hardware", "commit")),
}

_TEST_USE = ("date", "split", "step", "n", "command")
_TIMINGS = ("epoch", "seconds", "images_per_second")


class RunFolder:
    """Files of a run.

    recipe.toml      the resolved recipe
    run.json         schema, status, data identity, environment, figures
    splits.json      ids of each part
    metrics.csv      a row an epoch; the same for a resumed and an unbroken run
    timings.csv      a row an epoch and process: what may differ between the two
    test_use.csv     each time the test part was looked at
    checkpoints/     verified checkpoints (`training.checkpoints`)
    predictions/     one .npz for each evaluated part
    report.html      the page
    """

    info_name = "run.json"
    verb = "train"
    required: Mapping[str, Any] = _REQUIRED

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self.recipe = self.path / "recipe.toml"
        self.info = self.path / self.info_name
        self.splits = self.path / "splits.json"
        self.metrics = self.path / "metrics.csv"
        self.timings = self.path / "timings.csv"
        self.test_use = self.path / "test_use.csv"
        self.checkpoints = self.path / "checkpoints"
        self.predictions = self.path / "predictions"
        self.report = self.path / "report.html"

    @classmethod
    def create(cls, out: str | os.PathLike[str] | None, name: str, *, overwrite: bool) -> Self:
        """Make a new run folder.

        Args:
          out: the folder; None for `runs/NAME-001`, or the next free number.
          name: what the run is about.
          overwrite: whether a run that is already there may be moved aside, to
            `OUT.old-1` and so on; nothing is deleted.

        Raises:
          RunError: the folder exists and is not empty, or cannot be made.
        """
        try:
            if out is None:
                return cls(_next_free(Path("runs"), name))
            folder = cls(out)
            path = folder.path
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                if not overwrite:
                    raise RunError(
                        f"{str(out)!r} exists already: choose another --out, go on with it by "
                        "--resume, or give --overwrite to move it aside"
                    )
                folder._move_aside()
            path.mkdir(parents=True, exist_ok=True)
            return folder
        except OSError as error:
            where = out or "runs"
            raise RunError(
                f"cannot make a run folder in {str(where)!r}: {error.strerror}"
            ) from error

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """A run folder that exists.

        Raises:
          RunError: it is not there, is none, or was written by a newer version.
        """
        folder = cls(path)
        if not folder.path.is_dir():
            raise RunError(f"no run folder {str(path)!r}")
        if not folder.info.exists() or not folder.recipe.exists():
            raise RunError(cls._not_one(folder.path, str(path)))
        schema = folder.read_info().get("schema")
        if schema != SCHEMA:
            raise RunError(
                f"{str(path)!r} has schema {schema}, this version of cnn_jax reads {SCHEMA}"
            )
        return folder

    @classmethod
    def _not_one(cls, path: Path, shown: str) -> str:
        members = sorted(p.parent.name for p in path.glob("*/run.json"))
        if (path / "population.json").exists() and members:
            return (
                f"{shown!r} holds {len(members)} runs: name one of them, such as "
                f"{str(Path(shown) / members[0])!r}"
            )
        return f"{shown!r} is not a run folder: it has no {cls.info_name} and recipe.toml"

    def _move_aside(self) -> None:
        if Path.cwd().is_relative_to(self.path):
            raise RunError(f"{str(self.path)!r} holds the working folder: it is not moved aside")
        held = self.lock() if (self.path / "lock").exists() else contextlib.nullcontext()
        with held:  # a run that is being trained stays where it is
            number = 1
            while self.path.with_name(f"{self.path.name}.old-{number}").exists():
                number += 1
            self.path.rename(self.path.with_name(f"{self.path.name}.old-{number}"))

    @property
    def shown(self) -> str:
        """The path as a person would type it: relative where it is below the working folder."""
        here = Path.cwd()
        return str(self.path.relative_to(here) if self.path.is_relative_to(here) else self.path)

    @property
    def go_on(self) -> str:
        """The command that goes on with what was interrupted here."""
        return f"cnn-jax {self.verb} --resume {shlex.quote(self.shown)}"

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Write down how what happens inside ends, if it raises; it is raised again."""
        self.update_info(status="running")
        try:
            yield
        except BaseException as error:  # whatever ends it
            stopped = isinstance(error, KeyboardInterrupt)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self.update_info(status="interrupted" if stopped else "failed", reason=reason)
            raise

    def stopped(self, reason: str, **changes: Any) -> str:
        """Write down that a signal ended it and all is saved; returns what to tell the user."""
        self.update_info(status="interrupted", reason=reason, **changes)
        return f"{reason}; go on with: {self.go_on}"

    def lock(self) -> AbstractContextManager[Any]:
        """Held by the process that trains; the system frees it if the process dies.

        Raises:
          RunError: another process holds it.
        """
        import filelock

        lock = filelock.FileLock(self.path / "lock", timeout=0)
        try:
            return lock.acquire()
        except filelock.Timeout as error:
            raise RunError(
                f"another process is training in {str(self.path)!r}: wait for it, "
                "or choose another --out"
            ) from error

    def read_info(self) -> dict[str, Any]:
        """What run.json holds.

        Raises:
          RunError: it is damaged.
        """
        try:
            info = json.loads(self.info.read_text("utf-8"))
            if info["schema"] == SCHEMA:
                _require(info, self.required)
            return dict(info)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunError(f"cannot read {str(self.info)!r}: {error}") from error

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replace run.json as a whole."""
        write_text(self.info, json.dumps(info, indent=1, allow_nan=False) + "\n")

    def update_info(self, **changes: Any) -> dict[str, Any]:
        """Change some entries of run.json and return all."""
        info = {**self.read_info(), **changes}
        self.write_info(info)
        return info

    def write_recipe(self, recipe: Recipe) -> None:
        """Write recipe.toml."""
        write_text(self.recipe, recipe.to_toml())

    def read_splits(self) -> dict[str, list[str]]:
        """Part -> the ids of its examples.

        Raises:
          RunError: they cannot be read.
        """
        try:
            found: dict[str, list[str]] = json.loads(self.splits.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {str(self.splits)!r}: {error}") from error
        return found

    def write_splits(self, dataset: Dataset) -> None:
        """Write the ids of each part."""
        ids = {name: split.ids.tolist() for name, split in dataset.splits.items()}
        write_text(self.splits, json.dumps(ids, indent=0) + "\n")

    def epoch(
        self, history: Sequence[dict[str, float]], seconds: float, images_per_second: float
    ) -> None:
        """Write all rows of metrics.csv, and append one to timings.csv."""
        self.write_history(history)
        timing = (int(history[-1]["epoch"]), round(seconds, 3), round(images_per_second, 1))
        append_row(self.timings, _TIMINGS, timing)

    def write_history(self, history: Sequence[dict[str, float]]) -> None:
        """Write metrics.csv, a row for each epoch."""
        write_text(self.metrics, csv_text(history[0].keys(), history))

    def read_table(self, path: Path) -> list[dict[str, str]]:
        """Rows of a CSV file of this folder; none if it was not written yet.

        Raises:
          RunError: it is damaged.
        """
        if not path.exists():
            return []
        try:
            with open(path, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file, strict=True))
            if any(None in row or None in row.values() for row in rows):
                raise ValueError("a row has another number of columns than the header")
        except (OSError, ValueError, csv.Error) as error:
            raise RunError(f"cannot read {str(path)!r}: {error}") from error
        return rows

    def read_numbers(self, path: Path) -> list[dict[str, float]]:
        """Rows of a CSV file of numbers.

        Raises:
          RunError: it is damaged.
        """
        try:
            return [{k: float(v) for k, v in row.items()} for row in self.read_table(path)]
        except ValueError as error:
            raise RunError(f"cannot read {str(path)!r}: {error}") from error

    def log_test_use(self, split: str, step: int, n: int, command: str) -> None:
        """Record that a part was evaluated."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        append_row(self.test_use, _TEST_USE, (now, split, step, n, command))


def _require(found: Any, required: Mapping[str, Any]) -> None:
    if not isinstance(found, dict):
        raise TypeError(f"{str(found)[:40]!r} is no table")
    for name, inner in required.items():
        if name not in found:
            raise KeyError(f"no entry {name!r}")
        if inner is not None:
            _require(found[name], inner)


def begun(recipe: Recipe, command: str) -> dict[str, Any]:
    """What the JSON file of every folder says when it begins."""
    return {
        "schema": SCHEMA,
        "status": "running",
        "command": command,
        "recipe_digest": recipe.digest(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "environment": {
            "versions": environment.versions(),
            "devices": environment.devices(),
            "hardware": environment.hardware(),
            "commit": environment.commit(),
        },
    }


def write_text(path: Path, text: str) -> None:
    """Write a file so that it appears whole or not at all.

    Raises:
      RunError: it cannot be written.
    """
    try:
        write_whole(path, text)
    except OSError as error:
        raise RunError(f"cannot write {str(path)!r}: {error.strerror}") from error


def append_row(path: Path, header: Sequence[str], row: Sequence[Any]) -> None:
    """Append a row to a CSV file, with its header if the file is new.

    Raises:
      RunError: it cannot be written.
    """
    try:
        with open(path, "a", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            if file.tell() == 0:
                table.writerow(header)
            table.writerow(row)
    except OSError as error:
        raise RunError(f"cannot write {str(path)!r}: {error.strerror}") from error


def csv_text(header: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table as CSV."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(header), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _next_free(parent: Path, name: str) -> Path:
    safe = re.sub(r"[^\w.]+", "-", name).strip("-.") or "run"
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = parent / f"{safe}-{number:03d}"
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1
