"""The members of a plan as one program, and the choice between that and a loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import jax

from cnn_jax import environment
from cnn_jax.population.plan import Plan
from cnn_jax.training import population, strategy
from cnn_jax.training.devices import numerics
from cnn_jax.training.evaluate import EvalStep, begin_predicting
from cnn_jax.training.loop import Validate, scored_late
from cnn_jax.training.population import PopulationChunk, PopulationFeed, Stacked
from cnn_jax.training.state import PyTree, State

Wanted = Literal["auto", "loop", "vmap", "map"]


@dataclass(frozen=True)
class Stack:
    """What trains all members of a plan at once.

    Attributes:
      name: the strategy.
      run_chunk: K steps of all members, compiled at its first call.
      eval_step: of all members on the same examples, likewise.
      feed, seeds: their batches, and what the order of each is drawn from.
      initial_state: the state before the first step, made anew at each call.
    """

    name: Stacked
    run_chunk: PopulationChunk
    eval_step: EvalStep
    feed: PopulationFeed
    seeds: tuple[int, ...]
    initial_state: Callable[[], State]

    def memory(self, chunk_steps: int | None, *, late: bool) -> int:
        """Bytes that a chunk of steps holds at once, after compiling it; 0 if not known.

        `late` is whether an epoch is scored while the next one is trained.
        """
        steps = self.feed.chunk_steps(chunk_steps)
        chunk = next(
            self.feed.train_chunks(seed=self.seeds, epoch=0, first_step=0, chunk_steps=steps)
        )
        state = self.initial_state()
        analysis = self.run_chunk.program(state, self.feed.resident, chunk).memory_analysis()
        if analysis is None:
            return 0
        # Beside the states that are trained lie those that are chosen, twice while one is taken,
        # and those that are scored.
        states = 3 if late else 2
        beside = states * sum(leaf.nbytes for leaf in jax.tree.leaves(state)) // self.feed.devices
        return int(analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + beside)


def choose_strategy(plan: Plan, wanted: Wanted) -> strategy.Choice:
    """The strategy that is wanted, or the fastest that fits into memory.

    Raises:
      RecipeError: what is wanted does not fit.
    """
    obstacle = plan.obstacle()
    if wanted == "loop" or obstacle:
        return strategy.Choice("loop", obstacle or "as wanted")
    free = environment.free_memory()
    with numerics(plan.recipes[0].train.precision):
        if wanted != "auto":
            strategy.check_memory(_candidate(wanted, plan), free)
            return strategy.Choice(wanted, "as wanted")
        return strategy.choose(candidates_of(plan), free)


def candidates_of(plan: Plan) -> list[strategy.Candidate]:
    """Each strategy that could be the fastest, to be measured; the loop first."""
    first = plan.assemblies[0]
    alone = strategy.Candidate(
        "loop", first.run_chunk, first.initial_state, first.feeds["train"], first.recipe.seed, 1
    )
    names: tuple[Stacked, ...] = get_args(Stacked)
    if jax.default_backend() == "cpu" and len(plan) > population.AT_ONCE:
        names = ("map",)  # which computes as many at once as caches hold
    return [alone, *(_candidate(name, plan) for name in names)]


def _candidate(name: Stacked, plan: Plan) -> strategy.Candidate:
    stack = stacked(name, plan)
    recipe = plan.recipes[0].train
    memory = stack.memory(recipe.chunk_steps, late=scored_late(recipe))
    return strategy.Candidate(
        name, stack.run_chunk, stack.initial_state, stack.feed, stack.seeds, len(plan), memory
    )


@functools.lru_cache(maxsize=2)  # what was compiled to be tried is then used
def stacked(name: Stacked, plan: Plan) -> Stack:
    """The members of a plan as one program."""
    first = plan.assemblies[0]
    resident, rows = plan.resident()
    feeds = [assembly.feeds["train"] for assembly in plan.assemblies]
    feed = PopulationFeed(feeds, resident, first.placement, rows)

    def initial_state() -> State:
        states = first.initial_states(plan.recipes)
        return first.placement.split(population.stack(states, first.placement.count))

    seeds = tuple(recipe.seed for recipe in plan.recipes)
    return Stack(name, *_programs(name, plan), feed, seeds, initial_state)


def _programs(name: Stacked, plan: Plan) -> tuple[PopulationChunk, EvalStep]:
    """Steps and evaluation of all members; those of earlier plans of one program and data."""
    first = plan.assemblies[0]
    made: tuple[PopulationChunk, EvalStep] | None = first.population_programs.get(name)
    if made is not None and plan.same_data:
        return made
    run_chunk = population.make_population_chunk(
        plan.step(), name, first.placement, plan.own(), first.compiler_options
    )
    eval_step = population.make_population_eval_step(
        first.apply, first.task, first.preprocess, name, first.placement
    )
    if plan.same_data:
        first.population_programs[name] = run_chunk, eval_step
    return run_chunk, eval_step


def validation_of(name: Stacked, plan: Plan) -> Validate:
    """Validation loss and accuracy of each member."""
    first = plan.assemblies[0]
    if not plan.same_data:

        def validate_each(variables: Mapping[str, PyTree]) -> Callable[[int], dict[str, float]]:
            scores = [
                assembly.scoring(population.member(variables, number))
                for number, assembly in enumerate(plan.assemblies)
            ]
            return lambda number: scores[number]()

        return validate_each
    eval_step = stacked(name, plan).eval_step

    def validate(variables: Mapping[str, PyTree]) -> Callable[[int], dict[str, float]]:
        ahead = first.predicted_ahead
        collect = functools.cache(
            begin_predicting(eval_step, variables, first.feeds["validation"], ahead=ahead)
        )
        return lambda number: first.task.score(first.answers_of("validation", collect()[:, number]))

    return validate
