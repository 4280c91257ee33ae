"""Carrying a run out: train, choose the state, evaluate once, calibrate, write it down."""

from __future__ import annotations

import datetime
import shlex
import time
from typing import Any

from cnn_jax import environment, models
from cnn_jax.assembly import Assembly
from cnn_jax.decision import fit_temperature
from cnn_jax.errors import CheckpointError, DataError
from cnn_jax.run_folder import SCHEMA, RunFolder
from cnn_jax.training import checkpoints as saved
from cnn_jax.training.checkpoints import Checkpoints
from cnn_jax.training.devices import numerics
from cnn_jax.training.loop import Outcome, Progress, fit
from cnn_jax.training.progress import Reporter


def carry_out(folder: RunFolder, assembly: Assembly, reporter: Reporter, command: str) -> None:
    """Train from the newest sound checkpoint, or from the start, to the end.

    The status in run.json tells how it ended: `finished`, `interrupted` or `failed`.

    Args:
      folder: locked by the caller, with recipe and run.json written.
      assembly: the parts of the run.
      reporter: what shows progress.
      command: recorded beside the use of the test part.

    Raises:
      NonFiniteLossError, CheckpointError, RunError: as the loop and the files do.
    """
    environment.enable_compile_cache()
    started = time.monotonic()
    info = folder.read_info()
    seconds_before = float(info.get("seconds", 0.0))
    for note in notes(assembly, info["data"]["notes"]):
        reporter.say(note)
    folder.update_info(status="running")
    try:
        with (
            numerics(assembly.recipe.train.precision),
            Checkpoints(folder.checkpoints, reporter.say) as checkpoints,
        ):
            outcome = _train(folder, assembly, checkpoints, reporter)
            seconds = round(seconds_before + time.monotonic() - started, 1)
            if outcome.interrupted:
                folder.update_info(status="interrupted", reason=outcome.reason, seconds=seconds)
                reporter.say(
                    f"{outcome.reason}; go on with: "
                    f"cnn-jax train --resume {shlex.quote(folder.shown)}"
                )
                return
            reporter.say(f"training ended: {outcome.reason}")
            _evaluate(folder, assembly, outcome, command)
            if folder.read_info()["wants_baselines"]:
                _baselines(folder, assembly, reporter, command)
    except BaseException as error:  # whatever ends it is recorded, and raised again
        stopped = isinstance(error, KeyboardInterrupt)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        folder.update_info(status="interrupted" if stopped else "failed", reason=reason)
        raise
    folder.update_info(status="finished", seconds=seconds)


def _train(
    folder: RunFolder, assembly: Assembly, checkpoints: Checkpoints, reporter: Reporter
) -> Outcome:
    restored = checkpoints.restore(assembly.template)
    if restored is None:
        if folder.metrics.exists():
            reporter.say("no sound checkpoint is left: training starts from the beginning")
        state, progress = assembly.initial_state(), Progress()
    else:
        state = assembly.placement.replicate(restored[0])
        progress = Progress.from_dict(restored[1])
        reporter.say(f"resumed at step {int(state.step)}, {len(progress.history)} epochs done")

    def validate(variables: Any) -> dict[str, float]:
        return assembly.task.score(assembly.predict("validation", variables, final=False))

    return fit(
        state,
        progress,
        assembly.run_chunk,
        validate,
        assembly.feeds["train"],
        recipe=assembly.recipe.train,
        seed=assembly.recipe.seed,
        checkpoints=checkpoints,
        recorder=folder,
        reporter=reporter,
        placement=assembly.placement,
    )


def _evaluate(folder: RunFolder, assembly: Assembly, outcome: Outcome, command: str) -> None:
    """Predict validation and test once with the chosen state; calibrate on validation."""
    recipe = assembly.recipe
    step, epoch, variables = _select(folder, assembly, outcome)
    digest = f"{recipe.digest()[:16]}-{assembly.dataset.digest[:16]}-{step}"
    parts = {p: assembly.predict(p, variables, digest) for p in ("validation", "test")}
    folder.log_test_use("test", step, len(parts["test"]), command)
    for part, predictions in parts.items():
        predictions.save(folder.predictions / f"{part}.npz")
    temperature = fit_temperature(parts["validation"])
    last = outcome.progress.history[-1]
    folder.update_info(
        reason=outcome.reason,
        selected={"step": step, "epoch": epoch, "rule": recipe.train.select},
        digest=digest,
        temperature={"value": temperature.value, "n": temperature.n},
        metrics={
            part: {k: v.to_dict() for k, v in assembly.task.metrics(predictions).items()}
            for part, predictions in parts.items()
        },
        end={
            "train_accuracy": last["train_accuracy"],
            "gradient_norm": last["gradient_norm"],
            "gap": last["train_accuracy"] - last["validation_accuracy"],
        },
    )


def _select(folder: RunFolder, assembly: Assembly, outcome: Outcome) -> tuple[int, int, Any]:
    """Step, epoch and variables of the state that the recipe chooses."""
    state, epochs = outcome.state, len(outcome.progress.history)
    if assembly.recipe.train.select == "last" or outcome.best_epoch == epochs:
        return int(state.step), epochs, state.evaluated
    step = saved.best_step(folder.checkpoints)
    if step is None:
        raise CheckpointError(
            f"the best checkpoint of {str(folder.path)!r} is gone; the last state can still be "
            'had: set select = "last" in its recipe.toml and resume'
        )
    state, _ = saved.read(folder.checkpoints, step, assembly.template)
    return step, outcome.best_epoch, assembly.placement.replicate(state).evaluated


def _baselines(folder: RunFolder, assembly: Assembly, reporter: Reporter, command: str) -> None:
    from cnn_jax.training.baselines import logistic_regression, nearest_neighbour

    described = {}
    for make in (nearest_neighbour, logistic_regression):
        reporter.say(f"baseline: {make.__name__.replace('_', ' ')} on pixels")
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
    k = len(dataset.classes["label"])
    said = [f"{dataset.name}: {sizes} images of {shape}, {k} classes", *of_data]
    if assembly.feeds["train"].batch_size < wanted:
        said.append(
            f"the batch size is {assembly.feeds['train'].batch_size}, all there is, not {wanted}"
        )
    return said


def describe(assembly: Assembly, command: str, *, baselines: bool) -> dict[str, Any]:
    """run.json before training.

    Raises:
      DataError: baselines are wanted for volumes, which they cannot take.
    """
    dataset, recipe = assembly.dataset, assembly.recipe
    if baselines and len(dataset.image_shape) != 3:
        raise DataError(
            f"the baselines take images [H, W, C], not {list(dataset.image_shape)}: leave them out"
        )
    preprocess = assembly.preprocess
    return {
        "schema": SCHEMA,
        "status": "running",
        "command": command,
        "recipe_digest": recipe.digest(),
        "wants_baselines": baselines,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": recipe.seed,
        "data": {
            "name": dataset.name,
            "digest": dataset.digest,
            "classes": list(dataset.classes["label"]),
            "kind": dataset.kinds["label"],
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
        "environment": {
            "versions": environment.versions(),
            "devices": environment.devices(),
            "hardware": environment.hardware(),
            "commit": environment.commit(),
        },
    }
