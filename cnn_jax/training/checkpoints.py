"""Checkpoints that are verified: saved by Orbax, digested leaf by leaf and file by file.

Orbax writes atomically, but loads a flipped bit in array data without a word. Each
checkpoint therefore carries the sha256 of every leaf, and, once it is complete on disk, of
every file. A damaged one is set aside and named; the one before it is used.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import CheckpointError
from cnn_jax.training.state import PyTree
from cnn_jax.whole_files import write_whole

_SUMS = "SHA256SUMS"
_DAMAGED = "damaged"


class Checkpoints:
    """The checkpoints of one run: the last two and the best.

    Saving copies the state to the host, digests it and returns; writing goes on in the
    background. One process writes; use as a context manager or call `close`.

    Args:
      folder: where they lie; made if needed.
      say: is told, in one sentence each, what was found damaged.
    """

    def __init__(self, folder: str | os.PathLike[str], say: Callable[[str], None] = print) -> None:
        # Orbax takes a second to import, and only training needs it.
        from orbax.checkpoint import v1 as ocp

        self._folder = Path(folder).absolute()
        self._say = say
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._cannot_write(error) from error
        self._ocp = ocp
        keep = ocp.training.preservation_policies
        # Orbax logs pages about what we say in one line.
        self._silence = contextlib.ExitStack()
        self._silence.enter_context(_quiet())
        self._set_aside_damaged()
        self._orbax = ocp.training.Checkpointer(
            self._folder,
            # A new best has a higher rank than all before it; other saves have none.
            preservation_policy=keep.AnyPreservationPolicy(
                [keep.LatestN(2), keep.BestN(get_metric_fn=lambda m: m["rank"], n=1)]
            ),
            cleanup_tmp_directories=True,
        )
        self._writer = ThreadPoolExecutor(1, "cnn_jax-checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return _steps(self._folder)

    def save(
        self, state: PyTree, progress: Mapping[str, Any], *, step: int, best_epoch: int | None
    ) -> None:
        """Start saving; wait first for a save that is still going on.

        Args:
          state: the state of training.
          progress: what the loop must know to go on; plain JSON values.
          step: number of steps taken.
          best_epoch: the epoch if this is the best state so far, else None.

        Raises:
          CheckpointError: this save or the one before could not be written.
        """
        self.wait()
        leaves = to_host(state)
        metadata = {"progress": progress, "digests": _digests(leaves, progress)}
        if step in self.steps:
            # The state of a step never changes, so what is there is what we would write.
            return
        try:
            response = self._orbax.save_async(
                step,
                leaves,
                metrics={"rank": -1.0 if best_epoch is None else float(best_epoch)},
                custom_metadata=metadata,
                force=True,
            )
        except OSError as error:
            raise self._cannot_write(error) from error
        self._pending = self._writer.submit(self._finish, response, step)

    def wait(self) -> None:
        """Until everything saved is on disk.

        Raises:
          CheckpointError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except CheckpointError:
            raise
        except (OSError, ValueError) as error:
            raise self._cannot_write(error) from error

    def close(self) -> None:
        """Wait, and let go of the folder."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            self._orbax.close()
            self._silence.close()

    def _finish(self, response: Any, step: int) -> None:
        response.result()
        _write_sums(self._folder / str(step))

    def _cannot_write(self, error: Exception) -> CheckpointError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        good = self.steps if self._folder.is_dir() else []
        last = f"the last good one is of step {good[-1]}" if good else "there is no earlier one"
        return CheckpointError(
            f"cannot write a checkpoint to {str(self._folder)!r} ({reason}); {last}. "
            "Free some space and go on with --resume"
        )

    def _set_aside_damaged(self) -> None:
        """Before Orbax sees them: it would fail on one, and then on all."""
        for step in _steps(self._folder):
            path = self._folder / str(step)
            try:
                if not (path / _SUMS).exists():
                    # Its process was killed before it could sum it: complete that now.
                    _load(path)
                    rank(path)
                    _write_sums(path)
                elif fault := file_fault(path):
                    raise DamagedCheckpointError(fault)
            except DamagedCheckpointError as error:
                self._set_aside(step, str(error))

    def _set_aside(self, step: int, fault: str) -> None:
        """Move it out of Orbax's sight; nothing that was saved is deleted."""
        place = self._folder.with_name(f"{self._folder.name}-{_DAMAGED}")
        place.mkdir(exist_ok=True)
        target = place / str(step)
        number = 1
        while target.exists():
            number += 1
            target = place / f"{step}-{number}"
        (self._folder / str(step)).rename(target)
        self._say(f"checkpoint {step} is damaged ({fault}); moved to {target}")

    def restore(self, template: PyTree) -> tuple[Any, dict[str, Any]] | None:
        """The newest checkpoint that verifies, and its progress; None if there is none.

        Damaged ones are named and set aside.

        Args:
          template: a state (or its `jax.eval_shape`) of the same structure.

        Raises:
          CheckpointError: a sound checkpoint is of another model.
        """
        self.wait()
        for step in reversed(self.steps):
            try:
                found = read(self._folder, step, template)
            except DamagedCheckpointError as error:
                self._set_aside(step, str(error))
                self._orbax.reload()
                continue
            return found
        return None


class DamagedCheckpointError(CheckpointError):
    """What is on disk is not what was saved."""


def read(folder: str | os.PathLike[str], step: int, template: PyTree) -> tuple[Any, dict[str, Any]]:
    """One checkpoint, verified file by file and leaf by leaf.

    Raises:
      DamagedCheckpointError: something is missing or not as it was saved; says what.
      CheckpointError: it is sound, but of another model.
    """
    path = Path(folder).absolute() / str(step)
    if fault := file_fault(path):
        raise DamagedCheckpointError(fault)
    leaves, progress = _load(path)
    return from_host(leaves, template), progress


def _of_the_machine(error: BaseException | None) -> bool:
    """Whether memory, files or rights are wanting: a checkpoint that cannot be read is not damaged
    then, and must not be set aside."""
    if error is None:
        return False
    wanting = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM)
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno in wanting)
        or "RESOURCE_EXHAUSTED" in str(error)
        or _of_the_machine(error.__cause__)
    )


def _load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Leaves and progress of a checkpoint, each as its digest says."""
    from orbax.checkpoint import v1 as ocp

    try:
        with _quiet():
            metadata = ocp.checkpointables_metadata(path).custom_metadata
            leaves = ocp.load(path)
    # Orbax and tensorstore raise many types for damaged files, all of one meaning here.
    except Exception as error:
        if _of_the_machine(error):
            raise
        reason = str(error.__cause__ or error).strip() or type(error).__name__
        raise DamagedCheckpointError(f"cannot be read: {reason.splitlines()[0][:200]}") from error
    try:
        progress, expected = metadata["progress"], metadata["digests"]
        actual = _digests(leaves, progress)
        wrong = sorted(k for k in {*expected, *actual} if expected.get(k) != actual.get(k))
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError("its metadata are not what was written") from error
    if wrong:
        raise DamagedCheckpointError(f"{wrong[0]!r} is not as it was saved ({len(wrong)} such)")
    return leaves, progress


def best_step(folder: str | os.PathLike[str]) -> int | None:
    """Step of the checkpoint saved as the best, or None."""
    epochs = {step: rank(Path(folder) / str(step)) for step in _steps(Path(folder))}
    best = {step: epoch for step, epoch in epochs.items() if epoch > 0}
    return max(best, key=lambda step: best[step]) if best else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the log of Orbax."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def rank(path: Path) -> float:
    """Epoch of which a checkpoint is the best so far; -1 if it was not saved as a best."""
    try:
        return float(json.loads((path / "metrics" / "metrics").read_text("utf-8"))["rank"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpointError("its metrics cannot be read") from error


def to_host(state: PyTree) -> dict[str, np.ndarray]:
    """path -> array, for every leaf; a PRNG key becomes its uint32 data."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        leaves[_name(path)] = np.array(leaf)
    return leaves


def from_host(leaves: Mapping[str, np.ndarray], template: PyTree) -> Any:
    """The inverse of `to_host`.

    Raises:
      CheckpointError: names, shapes or types are not the template's.
    """
    expected = jax.tree_util.tree_leaves_with_path(template)
    names = [_name(path) for path, _ in expected]
    if missing := sorted(set(names) ^ set(leaves)):
        raise CheckpointError(
            f"the checkpoint is of another model: {missing[0]!r} is in only one of the two"
        )
    restored = []
    for name, (_, leaf) in zip(names, expected, strict=True):
        value: Any = leaves[name]
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            value = jax.random.wrap_key_data(value)
        if value.shape != leaf.shape or value.dtype != leaf.dtype:
            raise CheckpointError(
                f"the checkpoint is of another model: {name!r} is {value.dtype} "
                f"{list(value.shape)}, not {leaf.dtype} {list(leaf.shape)}"
            )
        restored.append(value)
    return jax.tree.unflatten(jax.tree.structure(template), restored)


def file_fault(path: Path) -> str | None:
    """What is wrong with the files of a checkpoint, or None.

    One without sums, because its process was killed before it could write them, is
    verified by its leaves alone.
    """
    sums = path / _SUMS
    if not sums.exists():
        return None
    try:
        lines = [line.split("  ", 1) for line in sums.read_text("utf-8").splitlines()]
        expected = {name: digest for digest, name in lines}
    except ValueError:
        return f"{_SUMS} is damaged"
    if not expected:
        return f"{_SUMS} is empty"
    try:
        actual = _file_sums(path)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    # What others left there (.DS_Store, .nfs...) is no damage.
    for name, digest in sorted(expected.items()):
        if name not in actual:
            return f"{name} is missing"
        if actual[name] != digest:
            return f"{name} is not as it was written"
    return None


def _steps(folder: Path) -> list[int]:
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and p.is_dir())


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _digests(leaves: Mapping[str, np.ndarray], progress: Mapping[str, Any]) -> dict[str, str]:
    out = {}
    for name, leaf in leaves.items():
        head = f"{leaf.dtype.name} {leaf.shape} ".encode()
        out[name] = hashlib.sha256(head + np.ascontiguousarray(leaf).tobytes()).hexdigest()
    text = json.dumps(progress, sort_keys=True)
    out["progress"] = hashlib.sha256(text.encode()).hexdigest()
    return out


def _file_sums(path: Path) -> dict[str, str]:
    files = [p for p in sorted(path.rglob("*")) if p.is_file() and _SUMS not in p.name]
    return {
        str(p.relative_to(path).as_posix()): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in files
    }


def _write_sums(path: Path) -> None:
    text = "".join(f"{digest}  {name}\n" for name, digest in _file_sums(path).items())
    write_whole(path / _SUMS, text)
