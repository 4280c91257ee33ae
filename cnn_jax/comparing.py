"""Compare finished runs by what they predicted; needs no data set."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from cnn_jax import evaluation
from cnn_jax.errors import RunError
from cnn_jax.run import Run


def runs_of(words: str) -> list[Run]:
    """The runs that a word of the command line names: folders or patterns, by commas.

    Raises:
      RunError: there is no such folder, it is no run folder, or it is named twice.
    """
    paths: list[str] = []
    for word in [words] if Path(words).exists() else words.split(","):
        found = sorted(glob.glob(word)) if glob.has_magic(word) else [word]  # noqa: PTH207
        if not found:
            raise RunError(f"no run folder matches {word!r}")
        paths += found
    if len(set(paths)) < len(paths):
        raise RunError(f"{words!r} names a run twice")
    return [Run.load(path) for path in paths]


def compare(
    a: Sequence[Run],
    b: Sequence[Run],
    metric: str = "accuracy",
    *,
    part: str = "test",
    level: float = 0.95,
    command: str = "cnn_jax.compare",
) -> evaluation.Verdict:
    """Whether the runs of A are better than those of B; see `evaluation.compare`.

    The saved predictions of a part are compared; looking at those of `test` is logged in
    each run.

    Raises:
      RunError: a run is on both sides.
      EvaluationError: a run has no such predictions, or they do not compare.
    """
    paths = [[run.path.resolve() for run in side] for side in (a, b)]
    if twice := set(paths[0]) & set(paths[1]):
        raise RunError(f"{str(min(twice))!r} is on both sides")
    predictions = [[run.predictions(part) for run in side] for side in (a, b)]
    verdict = evaluation.compare(predictions[0], predictions[1], metric, level=level)
    for run, made in zip([*a, *b], [*predictions[0], *predictions[1]], strict=True):
        run.log_use(part, len(made), command)
    return verdict
