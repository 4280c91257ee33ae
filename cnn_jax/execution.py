"""Carrying a run out: train, choose the state, evaluate once, calibrate, write it down."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn_jax import environment, models
from cnn_jax.assembly import Assembly
from cnn_jax.data import Dataset
from cnn_jax.decision import fit_temperature
from cnn_jax.errors import CheckpointError, DataError
from cnn_jax.evaluation import CalibrationPredictions, EmbeddingPredictions
from cnn_jax.run_folder import RunFolder, begun
from cnn_jax.training import checkpoints as saved
from cnn_jax.training.checkpoints import Checkpoints
from cnn_jax.training.collapse import collapse_notes
from cnn_jax.training.devices import numerics
from cnn_jax.training.keepers import RunKeeper
from cnn_jax.training.loop import Outcome, fit
from cnn_jax.training.member import Progress, Row
from cnn_jax.training.otsu import check_otsu
from cnn_jax.training.progress import Reporter


def carry_out(
    folder: RunFolder, assembly: Assembly, reporter: Reporter, command: str, *, quiet: bool = False
) -> str | None:
    """Train from the newest sound checkpoint, or from the start, to the end.

    The status in run.json tells how it ended: `finished`, `interrupted` or `failed`.

    Args:
      folder: locked by the caller, with recipe and run.json written.
      assembly: the parts of the run.
      reporter: what shows progress.
      command: recorded beside the use of the test part.
      quiet: say only what is out of the ordinary.

    Returns:
      The name of the signal that came, or None; status `finished` tells that it came too late
      to end training early.

    Raises:
      NonFiniteLossError, CheckpointError, RunError: as the loop and the files do.
    """
    environment.enable_compile_cache()
    started = time.monotonic()
    info = folder.read_info()
    seconds_before = float(info.get("seconds", 0.0))
    for note in [] if quiet else notes(assembly, info["data"]["notes"]):
        reporter.say(note)
    with (
        folder.recording(),
        numerics(assembly.recipe.train.precision),
        Checkpoints(folder.checkpoints, reporter.say) as checkpoints,
    ):
        outcome = _train(folder, assembly, checkpoints, reporter)
        seconds = round(seconds_before + time.monotonic() - started, 1)
        if outcome.interrupted:
            reason = f"stopped by {outcome.interrupted}; the state is saved"
            told = folder.stopped(reason, seconds=seconds)
            if not quiet:
                reporter.say(told)
            return outcome.interrupted
        if not quiet:
            reporter.say(f"training ended: {outcome.verdicts[0].reason}")
        conclude(folder, assembly, _select(folder, assembly, outcome), command, reporter.say)
        if folder.read_info()["wants_baselines"]:
            evaluate_baselines(folder, assembly, reporter, command)
    folder.update_info(status="finished", seconds=seconds)
    return outcome.signal


def _train(
    folder: RunFolder, assembly: Assembly, checkpoints: Checkpoints, reporter: Reporter
) -> Outcome:
    restored = assembly.restored(checkpoints, reporter.say)
    if restored is None and folder.metrics.exists():
        reporter.say("no sound checkpoint is left: training starts from the beginning")
    state, progress = restored or (assembly.initial_state(), Progress())

    def validate(variables: Any) -> Callable[[int], dict[str, float]]:
        score = assembly.scoring(variables)
        return lambda _: score()

    def record(
        histories: Sequence[Sequence[Row]], seconds: float, images_per_second: float
    ) -> None:
        folder.epoch(histories[0], seconds, images_per_second)

    return fit(
        state,
        [progress],
        assembly.run_chunk,
        validate,
        assembly.feeds["train"],
        recipe=assembly.recipe.train,
        seed=assembly.recipe.seed,
        keeper=RunKeeper(checkpoints),
        record=record,
        reporter=reporter,
        placement=assembly.placement,
    )


@dataclass(frozen=True)
class Chosen:
    """The state of a run that is evaluated, and how training went.

    Attributes:
      variables: what `model.apply` takes.
      step, epoch: of that state.
      reason: why training ended.
      last: the figures of the last epoch.
    """

    variables: Any
    step: int
    epoch: int
    reason: str
    last: Row


def conclude(
    folder: RunFolder,
    assembly: Assembly,
    chosen: Chosen,
    command: str,
    say: Callable[[str], None],
) -> None:
    """Predict validation and test once with the chosen state; calibrate classes on validation.

    Of embeddings that have collapsed `say` is told what helps.
    """
    recipe, step = assembly.recipe, chosen.step
    digest = f"{recipe.digest()[:16]}-{assembly.dataset.digest[:16]}-{step}"
    parts = {
        part: assembly.answers(part, chosen.variables, digest) for part in ("validation", "test")
    }
    folder.log_test_use("test", step, len(parts["test"]), command)
    for part, predictions in parts.items():
        predictions.save(folder.predictions / f"{part}.npz")
    if isinstance(held_back := parts["validation"], EmbeddingPredictions):
        for note in collapse_notes(held_back.embeddings, held_back.subjects):
            say(note)
    calibration: dict[str, Any] = {}
    if isinstance(validation := parts["validation"], CalibrationPredictions):
        temperature = fit_temperature(validation)
        calibration["temperature"] = {"value": temperature.value, "n": temperature.n}
    last = chosen.last
    gap = None  # people who are learned and people never seen have no accuracy in common
    if not recipe.data.unseen_identities:
        gap = last["train_accuracy"] - last["validation_accuracy"]
    folder.update_info(
        reason=chosen.reason,
        selected={"step": step, "epoch": chosen.epoch, "rule": recipe.train.select},
        digest=digest,
        **calibration,
        metrics={
            part: {k: v.to_dict() for k, v in assembly.task.metrics(predictions).items()}
            for part, predictions in parts.items()
        },
        end={
            "train_accuracy": last["train_accuracy"],
            "gradient_norm": last["gradient_norm"],
            "gap": gap,
        },
    )


def _select(folder: RunFolder, assembly: Assembly, outcome: Outcome) -> Chosen:
    """The state that the recipe chooses."""
    state, history, verdict = outcome.state, outcome.members[0].history, outcome.verdicts[0]
    step, epoch = int(state.step), len(history)
    if assembly.recipe.train.select == "best" and verdict.best_epoch != epoch:
        best, epoch = saved.best_step(folder.checkpoints), verdict.best_epoch
        if best is None:
            raise CheckpointError(
                f"the best checkpoint of {str(folder.path)!r} is gone; the last state can still be "
                'had: set select = "last" in its recipe.toml and resume'
            )
        step = best
        state, _ = saved.read(folder.checkpoints, step, assembly.template)
        state = assembly.placement.replicate(state)
    return Chosen(state.evaluated, step, epoch, str(verdict.reason), history[-1])


def evaluate_baselines(
    folder: RunFolder, assembly: Assembly, reporter: Reporter, command: str
) -> None:
    """Predict with nearest neighbour and logistic regression on pixels, and save that.

    Of masks with Otsu's threshold; of people never seen with pixels and eigenfaces.
    """
    from cnn_jax.training.baselines import logistic_regression, nearest_neighbour
    from cnn_jax.training.otsu import otsu
    from cnn_jax.training.recognition_baselines import eigenfaces, pixels

    described = {}
    of_task: tuple[Callable[[Dataset], Any], ...] = (nearest_neighbour, logistic_regression)
    if assembly.dataset.regions:
        of_task = (otsu,)
    if assembly.recipe.data.unseen_identities:
        of_task = (pixels, eigenfaces)
    for make in of_task:
        reporter.say(f"baseline: {make.__name__.replace('_', ' ')}, without a network")
        baseline = make(assembly.dataset)
        described[baseline.name] = baseline.note
        for part, predictions in baseline.predictions.items():
            predictions.save(folder.predictions / f"{baseline.name}-{part}.npz")
            if part == "test":
                folder.log_test_use(part, 0, len(predictions), f"{command} ({baseline.name})")
    folder.update_info(baselines=described)


def notes(assembly: Assembly, of_data: list[str]) -> list[str]:
    """What the user should know before training begins.

    `of_data` are the notes that run.json holds: data that are read again to resume need not
    repeat what was done about their duplicates.
    """
    dataset, wanted = assembly.dataset, assembly.recipe.train.batch_size
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    shape = "×".join(str(n) for n in dataset.image_shape)
    learned = f"{len(dataset.classes['label'])} classes"
    if dataset.regions:
        learned = f"masks of {', '.join(dataset.regions[1:])}"
    if assembly.recipe.data.unseen_identities:
        people = {
            name: len(np.unique(split.targets["label"])) for name, split in dataset.splits.items()
        }
        learned = (
            f"{people['train']} people to learn from, {people['validation']} to choose by, "
            f"{people['test']} never seen; an epoch's validation figure is 1 - EER of all pairs"
        )
    said = [f"{dataset.name}: {sizes} images of {shape}, {learned}", *of_data]
    if assembly.feeds["train"].batch_size < wanted:
        said.append(
            f"the batch size is {assembly.feeds['train'].batch_size}, all there is, not {wanted}"
        )
    return said


def check_baselines(dataset: Dataset) -> None:
    """Raise `DataError` for volumes and masks of several regions: there are no baselines."""
    if dataset.regions:
        check_otsu(dataset)
    if len(dataset.image_shape) != 3:
        raise DataError(
            f"the baselines take images [H, W, C], not {list(dataset.image_shape)}: leave them out"
        )


def describe(assembly: Assembly, command: str, *, baselines: bool) -> dict[str, Any]:
    """run.json before training.

    Raises:
      DataError: baselines are wanted where there are none.
    """
    dataset, recipe = assembly.dataset, assembly.recipe
    if baselines:
        check_baselines(dataset)
    preprocess = assembly.preprocess
    return {
        **begun(recipe, command),
        "wants_baselines": baselines,
        "seed": recipe.seed,
        "data": {
            "name": dataset.name,
            "digest": dataset.digest,
            "classes": list(dataset.classes["label"]),
            "kind": dataset.kinds["label"],
            **({"regions": list(dataset.regions)} if dataset.regions else {}),
            "image_shape": list(dataset.image_shape),
            "parts": {name: len(split) for name, split in dataset.splits.items()},
            "licence": dataset.licence,
            "citation": dataset.citation,
            "notes": list(dataset.notes),
        },
        "model": {
            "name": recipe.model.name,
            "parameters": models.count_parameters({"params": assembly.template.params}),
            "flops": models.count_flops(assembly.model, dataset.image_shape),
        },
        "preprocess": {"mean": list(preprocess.mean), "std": list(preprocess.std)},
    }
