"""Compare finished runs by what they predicted; needs no data set."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from cnn_jax import evaluation
from cnn_jax.errors import RunError
from cnn_jax.evaluation import Answers
from cnn_jax.population import Population
from cnn_jax.population.folder import PopulationFolder
from cnn_jax.run import Run


def runs_of(words: str) -> list[Run] | Population:
    """What a word of the command line names: a population, or runs by folders or patterns.

    Args:
      words: a folder of a population; or folders or patterns of runs, by commas.

    Raises:
      RunError: there is no such folder, it is no run folder, or it is named twice.
    """
    if PopulationFolder.is_one(words):
        return Population.load(words)
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
    a: Sequence[Run] | Population,
    b: Sequence[Run] | Population,
    metric: str | None = None,
    *,
    part: str = "test",
    level: float = 0.95,
    command: str = "cnn_jax.compare",
) -> evaluation.Verdict:
    """Whether the runs of A are better than those of B; see `evaluation.compare`.

    The saved predictions of a part, or of runs that segment the saved masks, are compared;
    looking at those of `test` is logged in each run. Of a population all finished members are
    taken, folds of a cross-validation as one set of predictions for each seed.

    Args:
      a, b: the runs of each side.
      metric: a figure of all of them; None for the accuracy, of masks the Dice, or of people
        never seen the equal error rate.
      part: `test`, `validation` or `train`.
      level: confidence level.
      command: what the log says.

    Raises:
      RunError: a run is on both sides, or some segment, classify or recognise and others do not.
      EvaluationError: a run has no such predictions, or they do not compare.
    """
    sides = [_runs(side) for side in (a, b)]
    paths = [[run.path.resolve() for run in side] for side in sides]
    if twice := set(paths[0]) & set(paths[1]):
        raise RunError(f"{str(min(twice))!r} is on both sides")
    _check_one_task([*sides[0], *sides[1]])
    of_a, of_b = (_answers(side, part) for side in (a, b))
    verdict = evaluation.compare(of_a, of_b, metric, level=level)
    for run in [*sides[0], *sides[1]]:
        run.log_use(part, len(run.ids(part)), command)
    return verdict


def _runs(side: Sequence[Run] | Population) -> list[Run]:
    return list(side.members.values() if isinstance(side, Population) else side)


def _check_one_task(runs: Sequence[Run]) -> None:
    """Raise RunError where some runs segment and others classify, or recognise."""
    segmenting = [run for run in runs if run.regions]
    recognising = [run for run in runs if run.recognises]
    classifying = [run for run in runs if not (run.regions or run.recognises)]
    if segmenting and classifying:
        raise RunError(
            f"{segmenting[0].shown!r} segments and {classifying[0].shown!r} classifies: masks and "
            "classes have no figure in common; compare runs of one task"
        )
    if recognising and len(recognising) < len(runs):
        other = next(run for run in runs if not run.recognises)
        raise RunError(
            f"{recognising[0].shown!r} recognises people never seen and {other.shown!r} does not: "
            "they have no figure in common; compare runs of one task"
        )


def _answers(side: Sequence[Run] | Population, part: str) -> Sequence[Answers]:
    if isinstance(side, Population):
        return side.answers(part)
    return [run.answers(part) for run in side]
