"""Many trainings as one program: the members of a population.

All state, metrics and batches get one more axis, that of the members. They may differ in whatever
the state holds (seed, and with it parameters, data order, augmentation, dropout; every scalar of
`hyper`) and in the examples they train on. How the axis is worked through is the *strategy*:
`vmap` computes all members at once; `map` takes them in turns within one program, or up to eight
at once where there are more. On several devices each works on its own members. The third, `loop`,
is no program of many members but one run after another, and needs nothing of this module.

After a step a member is what a run of its own would be, to rounding (other sums are taken in
another order); its batches and the random numbers of its augmentation are the same bit for bit.
After many steps rounding has grown, as it does between two machines.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from cnn_jax.training.devices import Placement
from cnn_jax.training.feed import Feed
from cnn_jax.training.preprocess import Preprocess
from cnn_jax.training.state import Batch, PyTree, State
from cnn_jax.training.step import ApplyFn, Metrics, TrainStep, chunk_of, eval_of, over_batches
from cnn_jax.training.task import Task, reweighted

_CHUNK_ON_CPU = 8  # steps
AT_ONCE = 8  # members that `map` takes at once where there are more: what caches still hold

Stacked = Literal["vmap", "map"]
Strategy = Literal["loop", "vmap", "map"]


def stack(members: Sequence[PyTree], count: int) -> PyTree:
    """Trees as one, its leaves with a leading axis of at least `len(members)`.

    The last member is repeated until the axis is a multiple of `count`, the devices it is
    split over; nobody looks at those.
    """
    return pad(jax.tree.map(lambda *leaves: jnp.stack(leaves), *members), count)


def pad(tree: PyTree, count: int) -> PyTree:
    """A stacked tree whose last member is repeated until `count` divides their number."""

    def longer(leaf: Any) -> Any:
        rows = np.minimum(np.arange(-(-len(leaf) // count) * count), len(leaf) - 1)
        return leaf if len(rows) == len(leaf) else leaf[rows]

    return jax.tree.map(longer, tree)


def member(tree: PyTree, number: int) -> PyTree:
    """One member of a stacked tree."""
    return jax.tree.map(lambda leaf: leaf[number], tree)


def step_of(step: TrainStep, own: Mapping[str, jax.Array]) -> TrainStep:
    """The step of a member whose training examples are its own.

    Args:
      step: of another member.
      own: float32 `mean` and `std` `[C]` of its training images, and `class_weights` or
        `log_priors` `[K]` if the task has them; nothing where all members train on the same
        examples.
    """
    if not own:
        return step
    preprocess: Any = (own["mean"], own["std"])
    step = dataclasses.replace(step, preprocess=Preprocess(*preprocess))
    of_task = {name: own[name] for name in ("class_weights", "log_priors") if name in own}
    if of_task:
        step = dataclasses.replace(step, task=reweighted(step.task, of_task))
    return step


def over_members(
    function: Callable[..., Any],
    strategy: Stacked,
    placement: Placement,
    in_axes: tuple[int | None, ...],
    out_axis: int = 0,
) -> Callable[..., Any]:
    """A function of one member as a function of all.

    Args:
      function: of arrays.
      strategy: how the axis of the members is worked through.
      placement: devices over which it is split.
      in_axes: of each argument the axis of the members, None where all share it.
      out_axis: where the result has it.
    """

    def mapped(*arguments: PyTree) -> PyTree:
        if strategy == "vmap":
            return jax.vmap(function, in_axes, out_axis)(*arguments)
        own = [
            _first(x, axis) for x, axis in zip(arguments, in_axes, strict=True) if axis is not None
        ]

        def one(own: list[PyTree]) -> PyTree:
            rest = iter(own)
            return function(
                *(
                    x if axis is None else next(rest)
                    for x, axis in zip(arguments, in_axes, strict=True)
                )
            )

        result = lax.map(one, own, batch_size=_group(len(jax.tree.leaves(own)[0])))
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, out_axis), result) if out_axis else result

    if placement.count == 1:
        return mapped
    return jax.shard_map(
        mapped,
        mesh=placement.mesh,
        in_specs=tuple(_spec(axis) for axis in in_axes),
        out_specs=_spec(out_axis),
        check_vma=False,
    )


def _group(members: int) -> int | None:
    """How many of so many members are computed at once where they are taken in turns."""
    if members <= AT_ONCE:
        return None
    return max(size for size in range(1, AT_ONCE + 1) if members % size == 0)


def _first(tree: PyTree, axis: int) -> PyTree:
    return jax.tree.map(lambda x: jnp.moveaxis(x, axis, 0), tree) if axis else tree


def _spec(axis: int | None) -> PartitionSpec:
    return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "data")


class PopulationChunk:
    """K steps of all members, compiled once for each K, before they are taken or with the first.

    What `jax.jit` compiles ahead of time it compiles again when it is called: so it is kept here.
    """

    def __init__(self, jitted: Any) -> None:
        self._jitted = jitted
        self._programs: dict[tuple[tuple[int, ...], int | None], Any] = {}

    def program(self, state: State, resident: Batch, items: Batch, side: int | None = None) -> Any:
        """The compiled program for such arguments; `memory_analysis()` tells what it needs."""
        key = items["index"].shape, side
        if key not in self._programs:
            lowered = self._jitted.lower(state, resident, items, side=side)
            self._programs[key] = lowered.compile()
        return self._programs[key]

    def __call__(
        self, state: State, resident: Batch, items: Batch, *, side: int | None = None
    ) -> tuple[State, Metrics]:
        """The state after the steps and their metrics `[M]`; the state is donated."""
        program = self.program(state, resident, items, side)
        stepped: tuple[State, Metrics] = program(state, resident, items)
        return stepped

    @property
    def compilations(self) -> int:
        """How many programs there are."""
        return len(self._programs)


def make_population_chunk(
    step: TrainStep,
    strategy: Stacked,
    placement: Placement,
    own: Mapping[str, np.ndarray] | None = None,
    compiler_options: Mapping[str, Any] | None = None,
) -> PopulationChunk:
    """K steps of all members as one compiled call; see `step.chunk_of`. The state is donated.

    Args:
      step: of a member whose scalars come from its state.
      strategy, placement: how and where.
      own: see `step_of`; leaves `[M, ...]`.
      compiler_options: of XLA, for this function alone.

    Returns:
      `run_chunk(state, resident, items)` with leaves `[M, ...]` of the state and `[K, M, B]`
      of the items; metrics are `[M]`.
    """

    def run_chunk(
        state: State, resident: Batch, items: Batch, *, side: int | None = None
    ) -> tuple[State, Metrics]:
        def one(
            state: State, resident: Batch, items: Batch, own: Mapping[str, jax.Array]
        ) -> tuple[State, Metrics]:
            return chunk_of(step_of(step, own))(state, resident, items, side=side)

        every = over_members(one, strategy, placement, (0, None, 1, 0))
        stepped: tuple[State, Metrics] = every(
            state, resident, items, pad(dict(own or {}), placement.count)
        )
        return stepped

    options = dict(compiler_options) if compiler_options else None
    jitted = jax.jit(run_chunk, donate_argnums=0, static_argnames="side", compiler_options=options)
    return PopulationChunk(jitted)


def make_population_eval_step(
    apply: ApplyFn, task: Task, preprocess: Preprocess, strategy: Stacked, placement: Placement
) -> Callable[[Mapping[str, PyTree], Batch, Batch], dict[str, jax.Array]]:
    """`eval_step(variables, resident, items)` of all members on the same examples, compiled.

    The predictions have the axis of the members third, `[S, B, M, ...]`; see
    `step.over_batches`.
    """
    one = eval_of(apply, task, preprocess)
    every = over_members(one, strategy, placement, (0, None, None), out_axis=1)
    return jax.jit(over_batches(every))


class PopulationFeed:
    """The training batches of all members, from one resident copy of the examples.

    Args:
      feeds: of each member; one feed may stand for several.
      resident: the examples of all of them on every device.
      rows: for each member, where in `resident` the examples of its feed lie; None where they
        lie in the same order.
      placement: devices over which the members are split.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        resident: Batch,
        placement: Placement,
        rows: Sequence[np.ndarray] | None = None,
    ) -> None:
        self._feeds = feeds
        self._rows = rows
        self._placement = placement
        self.resident = resident
        self.batch_size = feeds[0].batch_size
        self.steps = feeds[0].steps

    def __len__(self) -> int:
        return len(self._feeds[0])

    @property
    def devices(self) -> int:
        """Over how many the members are split."""
        return self._placement.count

    def chunk_steps(self, wanted: int | None, first_step: int = 0) -> int:
        """As of one run (see `Feed.chunk_steps`), but several steps also on a CPU.

        Our convolutions are as fast inside a loop; a network of stock ones, whose gradients are
        not, is better off with the strategy `loop`, and `auto` finds that out.
        """
        if wanted is None and jax.default_backend() == "cpu":
            wanted = _CHUNK_ON_CPU
        return self._feeds[0].chunk_steps(wanted, first_step)

    def train_chunks(
        self, *, seed: Sequence[int], epoch: int, first_step: int, chunk_steps: int
    ) -> Iterator[Batch]:
        """Chunks `[K, M, B]` of an epoch; each member's order is that of its own seed."""
        orders = [f.order(seed=s, epoch=epoch) for f, s in zip(self._feeds, seed, strict=True)]
        for start in range(first_step, self.steps, chunk_steps):
            items = []
            for number, (feed, order) in enumerate(zip(self._feeds, orders, strict=True)):
                item = feed.positions(order, start, chunk_steps)
                if self._rows is not None:
                    item["index"] = self._rows[number][item["index"]].astype(np.int32)
                items.append(item)
            items += [items[-1]] * (-len(items) % self._placement.count)
            chunk = {name: np.stack([item[name] for item in items], axis=1) for name in items[0]}
            yield self._placement.split(chunk, axis=1)
