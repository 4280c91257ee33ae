"""Carrying a population out: choose a strategy, train, evaluate each member, write it down."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

import jax

from cnn_jax import environment
from cnn_jax.errors import EvaluationError, NonFiniteLossError
from cnn_jax.evaluation import Estimate
from cnn_jax.execution import Chosen, conclude, describe, evaluate_baselines, notes
from cnn_jax.execution import carry_out as carry_out_run
from cnn_jax.population.folder import PopulationFolder
from cnn_jax.population.plan import Plan
from cnn_jax.population.stacking import choose_strategy, stacked, validation_of
from cnn_jax.run_folder import RunFolder
from cnn_jax.training import population
from cnn_jax.training.checkpoints import Checkpoints
from cnn_jax.training.devices import numerics
from cnn_jax.training.keepers import PopulationKeeper
from cnn_jax.training.loop import Outcome, fit
from cnn_jax.training.member import Progress, Row
from cnn_jax.training.population import Stacked
from cnn_jax.training.progress import Reporter, WithoutEpochs
from cnn_jax.training.state import State
from cnn_jax.training.strategy import Choice


def carry_out(folder: PopulationFolder, plan: Plan, reporter: Reporter, command: str) -> None:
    """Train all members to the end, from where they are.

    The status in population.json tells how it ended: `finished`, `interrupted` or `failed`.

    Args:
      folder: locked by the caller, with recipe and population.json written.
      plan: the members.
      reporter: what shows progress.
      command: recorded beside the use of the test part.

    Raises:
      NonFiniteLossError: no member is left whose loss is finite.
      CheckpointError, RunError: as the files do.
    """
    environment.enable_compile_cache()
    started = time.monotonic()
    info = folder.read_info()
    seconds_before = float(info.get("seconds", 0.0))
    for note in notes(plan.assemblies[0], list(plan.dataset.notes)):
        reporter.say(note)
    try:
        with folder.recording():
            choice = (
                Choice(info["strategy"]["name"], "as it began")
                if "strategy" in info
                else choose_strategy(plan, info["wanted"])
            )
            taken = {"name": choice.strategy, "reason": choice.reason}
            reporter.say(f"{len(plan)} members, strategy {taken['name']}: {taken['reason']}")
            folder.update_info(strategy=info.get("strategy", taken))
            if choice.strategy == "loop":
                stopped = _train_loop(folder, plan, reporter, command)
            else:
                with numerics(plan.recipes[0].train.precision):
                    stopped = _train_stacked(choice.strategy, folder, plan, reporter, command)
    finally:
        stacked.cache_clear()  # programs and examples on the devices
    seconds = round(seconds_before + time.monotonic() - started, 1)
    if stopped is None:
        folder.update_info(status="finished", seconds=seconds, reason="")
        return
    reporter.say(folder.stopped(f"stopped by {stopped}; the state is saved", seconds=seconds))


def _train_loop(
    folder: PopulationFolder, plan: Plan, reporter: Reporter, command: str
) -> str | None:
    """One run after another; returns the signal that ended it, or None."""
    failures: dict[str, str] = dict(folder.read_info().get("failures", {}))
    for number, (name, assembly) in enumerate(zip(plan.names, plan.assemblies, strict=True)):
        run = folder.member(name)
        if run.info.exists() and run.read_info()["status"] == "finished":
            continue
        if not run.info.exists():
            _begin(folder, plan, number, command)
        try:
            with run.lock():
                brief = WithoutEpochs(reporter)
                stopped = carry_out_run(run, assembly, brief, command, quiet=True)
        except (NonFiniteLossError, EvaluationError) as error:
            failures[name] = str(error)
            folder.update_info(failures=failures)
            reporter.say(f"{name}: {error}")
            if len(failures) == len(plan):
                raise
            continue
        if stopped and (run.read_info()["status"] != "finished" or number + 1 < len(plan)):
            return stopped
        metric, value = next(iter(run.read_info()["metrics"]["test"].items()))
        figure = f"test {metric.replace('_', ' ')} {Estimate.from_dict(value)}"
        reporter.say(f"{name}, {number + 1} of {len(plan)}: {figure}")
    return None


def _begin(folder: PopulationFolder, plan: Plan, number: int, command: str) -> None:
    """Make the run folder of a member."""
    assembly = plan.assemblies[number]
    run = folder.member(plan.names[number])
    run.path.mkdir(exist_ok=True)
    run.write_recipe(assembly.recipe)
    run.write_splits(assembly.dataset)
    # Baselines know no seed: only the first member of each data set has them.
    of_data = [id(one.dataset) for one in plan.assemblies]
    is_first = of_data.index(of_data[number]) == number
    wanted = bool(folder.read_info()["wants_baselines"]) and is_first
    run.write_info(describe(assembly, command, baselines=wanted))


def _train_stacked(
    name: Stacked, folder: PopulationFolder, plan: Plan, reporter: Reporter, command: str
) -> str | None:
    """All members as one program; returns the signal that ended it, or None."""
    stack = stacked(name, plan)
    first = plan.assemblies[0]
    recipe, placement = first.recipe.train, first.placement
    with Checkpoints(folder.checkpoints, reporter.say) as checkpoints:
        state, chosen = stack.initial_state(), stack.initial_state()
        template = jax.tree.map(lambda x: x[: len(plan)], {"members": state, "chosen": chosen})
        restored = checkpoints.restore(template)
        if restored is None:
            members = [Progress() for _ in plan.names]
        else:
            padded = population.pad(restored[0], placement.count)
            state, chosen = (placement.split(padded[k]) for k in ("members", "chosen"))
            members = [Progress.from_dict(values) for values in restored[1]["members"]]
            done = max(len(member.history) for member in members)
            reporter.say(f"resumed at step {int(state.step[0])}, {done} epochs done")
        keeper = PopulationKeeper(checkpoints, recipe.select, chosen, placement)

        def record(
            histories: Sequence[Sequence[Row]], seconds: float, images_per_second: float
        ) -> None:
            folder.epochs(plan.names, histories, seconds, images_per_second)

        try:
            outcome = fit(
                state,
                members,
                stack.run_chunk,
                validation_of(name, plan),
                stack.feed,
                recipe=recipe,
                seed=stack.seeds,
                keeper=keeper,
                record=record,
                reporter=reporter,
                placement=placement,
            )
        except (NonFiniteLossError, EvaluationError):  # of the last that was left
            reasons = zip(plan.names, members, strict=True)
            folder.update_info(failures={name: m.failure for name, m in reasons if m.failure})
            raise
    if outcome.interrupted is None:
        _conclude(folder, plan, outcome, keeper.chosen, reporter, command)
    return outcome.interrupted


def _conclude(
    folder: PopulationFolder,
    plan: Plan,
    outcome: Outcome,
    chosen: State,
    reporter: Reporter,
    command: str,
) -> None:
    """Write the run folder of each member: its checkpoint, figures and predictions."""
    select = plan.recipes[0].train.select
    failures: dict[str, str] = dict(folder.read_info().get("failures", {}))

    def fail(run: RunFolder, name: str, reason: str) -> None:
        failures[name] = reason
        run.update_info(status="failed", reason=reason)
        folder.update_info(failures=failures)

    reporter.say(f"training ended: {_reasons(outcome)}")
    for number, name in enumerate(plan.names):
        run, assembly = folder.member(name), plan.assemblies[number]
        progress, verdict = outcome.members[number], outcome.verdicts[number]
        told = functools.partial(_say_of, reporter, name)
        if run.info.exists() and run.read_info()["status"] in ("finished", "failed"):
            continue
        _begin(folder, plan, number, command)
        if progress.history:
            run.write_history(progress.history)
            folder.write_share(run, len(progress.history), len(plan))
        if progress.failure is not None:
            fail(run, name, progress.failure)
            continue
        state = assembly.placement.replicate(population.member(chosen, number))
        step, history = int(state.step), progress.history
        with Checkpoints(run.checkpoints, reporter.say) as checkpoints:
            checkpoints.save(state, progress.to_dict(), step=step, best_epoch=None)
        epoch = verdict.best_epoch if select == "best" else len(history)
        selected = Chosen(state.evaluated, step, epoch, str(verdict.reason), history[-1])
        try:
            conclude(run, assembly, selected, command, told)
        except EvaluationError as error:  # finite on validation, but not on test
            fail(run, name, str(error))
            continue
        if run.read_info()["wants_baselines"]:
            evaluate_baselines(run, assembly, reporter, command)
        run.update_info(status="finished")


def _say_of(reporter: Reporter, name: str, sentence: str) -> None:
    reporter.say(f"{name}: {sentence}")


def _reasons(outcome: Outcome) -> str:
    reasons = sorted({str(verdict.reason) for verdict in outcome.verdicts})
    return reasons[0] if len(reasons) == 1 else f"{reasons[0]} (and {len(reasons) - 1} other ways)"
