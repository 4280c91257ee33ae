"""What the loop saves, and when: the checkpoints of one run, or those of a population."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.training.checkpoints import Checkpoints
from cnn_jax.training.devices import Placement
from cnn_jax.training.member import Progress
from cnn_jax.training.state import State


@dataclass(frozen=True)
class Change:
    """What an epoch brought for one member.

    Attributes:
      best: whether its validation score is the best so far.
      ended: whether its training ended with this epoch.
    """

    best: bool
    ended: bool


class Keeper(Protocol):
    """Saves what training has come to."""

    @property
    def steps(self) -> Sequence[int]:
        """Steps of the checkpoints that there are, ascending."""
        ...

    def pause(self, state: State, members: Sequence[Progress]) -> None:
        """Save in the middle of an epoch."""
        ...

    def epoch(
        self, state: State, members: Sequence[Progress], changes: Sequence[Change], *, due: bool
    ) -> bool:
        """Save at the end of an epoch if it is due or a change calls for it; tell whether."""
        ...

    def wait(self) -> None:
        """Until everything saved is on disk."""
        ...


class NoKeeper:
    """Keeps nothing, of what is trained only to be judged."""

    steps: Sequence[int] = ()

    def pause(self, state: State, members: Sequence[Progress]) -> None:
        """See `Keeper`."""

    def epoch(
        self, state: State, members: Sequence[Progress], changes: Sequence[Change], *, due: bool
    ) -> bool:
        """See `Keeper`."""
        return due

    def wait(self) -> None:
        """See `Keeper`."""


class RunKeeper:
    """Of one run: a checkpoint for each new best."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self.wait = checkpoints.wait

    @property
    def steps(self) -> list[int]:
        """See `Keeper`."""
        return self._checkpoints.steps

    def pause(self, state: State, members: Sequence[Progress]) -> None:
        """See `Keeper`."""
        self._save(state, members[0], best=False)

    def epoch(
        self, state: State, members: Sequence[Progress], changes: Sequence[Change], *, due: bool
    ) -> bool:
        """See `Keeper`."""
        best = changes[0].best
        if best or due:
            self._save(state, members[0], best=best)
        return best or due

    def _save(self, state: State, progress: Progress, *, best: bool) -> None:
        epoch = len(progress.history) if best else None
        step = int(state.step)
        self._checkpoints.save(state, progress.to_dict(), step=step, best_epoch=epoch)


class PopulationKeeper:
    """Of a population: one checkpoint of all members.

    Beside the members' states it holds the one that each is evaluated with: that of its best
    epoch so far, or the one in which its training ended, while others go on.

    Args:
      checkpoints: where to save; members that only fill up the devices are left out, so that a
        resume may have other devices.
      select: which state is evaluated.
      chosen: what there is so far, of the same structure as the state.
      placement: devices over which the members are split.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        select: Literal["best", "last"],
        chosen: State,
        placement: Placement,
    ) -> None:
        self._checkpoints = checkpoints
        self._select = select
        self._placement = placement
        self.chosen = chosen
        self.wait = checkpoints.wait

    @property
    def steps(self) -> list[int]:
        """See `Keeper`."""
        return self._checkpoints.steps

    def pause(self, state: State, members: Sequence[Progress]) -> None:
        """See `Keeper`."""
        count = len(members)
        both = jax.tree.map(lambda x: x[:count], {"members": state, "chosen": self.chosen})
        progress = {"members": [member.to_dict() for member in members]}
        step = int(np.ravel(jax.device_get(state.step))[0])
        self._checkpoints.save(both, progress, step=step, best_epoch=None)

    def epoch(
        self, state: State, members: Sequence[Progress], changes: Sequence[Change], *, due: bool
    ) -> bool:
        """See `Keeper`."""
        taken = [
            (change.best if self._select == "best" else change.ended) and member.failure is None
            for member, change in zip(members, changes, strict=True)
        ]
        if any(taken):
            mask = np.zeros(state.step.shape, bool)
            mask[: len(taken)] = taken
            self.chosen = _take(self.chosen, state, self._placement.split(mask))
        if due:
            self.pause(state, members)
        return due


@jax.jit
def _take(chosen: State, state: State, taken: jax.Array) -> State:
    """The members that are taken from `state`, the others as they were."""

    def pick(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(taken.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    # The keys never change; they cannot be chosen between on every version of jax.
    picked = jax.tree.map(pick, chosen.replace(key=state.step), state.replace(key=state.step))
    return picked.replace(key=state.key)
