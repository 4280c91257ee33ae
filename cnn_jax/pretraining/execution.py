"""Carrying a pretraining out: in a folder, so that it can be stopped and go on."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from cnn_jax import environment, nn
from cnn_jax.assembly import Assembly
from cnn_jax.data import Dataset
from cnn_jax.errors import CheckpointError, RunError
from cnn_jax.pretraining.plan import Objective, assemble
from cnn_jax.pretraining.trained import Pretrained
from cnn_jax.pretraining.validation import begin_score
from cnn_jax.recipe import Recipe
from cnn_jax.run_folder import RunFolder
from cnn_jax.training import checkpoints as saved
from cnn_jax.training.checkpoints import Checkpoints
from cnn_jax.training.devices import numerics
from cnn_jax.training.keepers import RunKeeper
from cnn_jax.training.loop import Outcome, fit
from cnn_jax.training.member import Progress
from cnn_jax.training.progress import Console, Reporter
from cnn_jax.training.state import State
from cnn_jax.whole_files import write_whole

_DESCRIPTION = "pretraining.json"


def pretrain(
    recipe: Recipe,
    dataset: Dataset,
    objective: Objective,
    *,
    model: nn.Module | None = None,
    folder: str | os.PathLike[str] | None = None,
    reporter: Reporter | None = None,
) -> Pretrained:
    """Learn from the images of a data set, without a look at labels, masks or the test part.

    Images are augmented as the recipe says, and then made into the problem. With `contrastive`
    the recipe's augmentation is what makes the two views: crops and changes of colour teach more
    than shifts (Chen et al. 2020). Of validation images, which are not augmented otherwise, each
    poses the same problem after every epoch, a pure function of the seed and its position; only
    the negatives of `contrastive` hang on `train.eval_batch_size`.

    Args:
      recipe: seed, model, augment, optimizer, schedule and train; `loss.label_smoothing` counts
        for `rotation` and `cutpaste`.
      dataset: with parts train and validation.
      objective: `rotation` (4 quarter turns; square images), `cutpaste` (was a part moved?),
        `contrastive` (which two views are of one image? 64 logits are compared) or
        `reconstruction` (an autoencoder), see `training.selfsupervised`; or `synthetic` (find
        defects that were made by computer), see `training.synthetic`.
      model: a module of your own, in place of the one the recipe names, with as many logits as the
        objective has classes. By default `reconstruction` takes an `Autoencoder()`, and
        `synthetic` a U-Net.
      folder: where checkpoints are kept, so that the same call goes on after it was stopped or
        killed, bit for bit as if it never had; a finished one is read. None keeps nothing.
      reporter: what shows progress; None for the console.

    Raises:
      RecipeError: a field asks for labels, or makes the problem impossible.
      DataError: a part is missing, or the images do not fit the problem.
      ModelError: the model does not fit the images or the objective.
      RunError: the folder holds something else, another process trains in it, or a signal stopped
        the training, whose state is then saved.
      NonFiniteLossError, CheckpointError: as `training.fit`.
    """
    environment.enable_compile_cache()
    reporter = reporter or Console(recipe.train.epochs)
    with numerics(recipe.train.precision):
        assembly = assemble(recipe, dataset, objective, model)
        described = {
            "schema": 1,
            "objective": objective,
            "model": type(assembly.model).__name__,
            "recipe": recipe.digest(),
            "data": dataset.digest,
        }
        with _claimed(folder, described) as place_of, Checkpoints(place_of, reporter.say) as kept:
            outcome = _train(assembly, kept, reporter)
            if outcome.interrupted:
                raise _stopped(outcome, folder)
            kept.wait()
            state = _selected(assembly, place_of, outcome)
    return Pretrained(
        model=assembly.model,
        variables=jax.device_get(state.evaluated),
        preprocess=assembly.preprocess,
        image_shape=dataset.image_shape,
        objective=objective,
        history=tuple(outcome.members[0].history),
    )


def _train(assembly: Assembly, kept: Checkpoints, reporter: Reporter) -> Outcome:
    restored = assembly.restored(kept, reporter.say)
    state, progress = restored or (assembly.initial_state(), Progress())

    def validate(variables: Any) -> Callable[[int], dict[str, float]]:
        feed, ahead = assembly.feeds["validation"], assembly.predicted_ahead
        score = begin_score(assembly.eval_step, variables, feed, ahead=ahead)
        return lambda _: score()

    return fit(
        state,
        [progress],
        assembly.run_chunk,
        validate,
        assembly.feeds["train"],
        recipe=assembly.recipe.train,
        seed=assembly.recipe.seed,
        keeper=RunKeeper(kept),
        record=lambda histories, seconds, images_per_second: None,
        reporter=reporter,
        placement=assembly.placement,
    )


def _stopped(outcome: Outcome, folder: str | os.PathLike[str] | None) -> RunError:
    epochs = len(outcome.members[0].history)
    what = f"pretraining was stopped by {outcome.interrupted} after {epochs} epochs"
    if folder is None:
        return RunError(f"{what}, and nothing was kept: give it a folder to be able to go on")
    return RunError(
        f"{what}; the state is saved: the same call with folder={str(folder)!r} goes on"
    )


def _selected(assembly: Assembly, checkpoints: Path, outcome: Outcome) -> State:
    """The state that the recipe chooses."""
    history, verdict = outcome.members[0].history, outcome.verdicts[0]
    if assembly.recipe.train.select == "last" or verdict.best_epoch == len(history):
        return outcome.state
    best = saved.best_step(checkpoints)
    if best is None:
        raise CheckpointError(
            f"the best checkpoint in {str(checkpoints)!r} is gone: pretrain again, or with "
            "train.select last"
        )
    return saved.read(checkpoints, best, assembly.template)[0]


@contextlib.contextmanager
def _claimed(folder: str | os.PathLike[str] | None, described: Mapping[str, Any]) -> Iterator[Path]:
    """Where checkpoints lie, while no other process trains there.

    Raises:
      RunError: the folder holds something else, another process has it, or it cannot be made.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="cnn_jax-") as temporary:
            yield Path(temporary) / "checkpoints"
        return
    place_of = RunFolder(folder)
    with contextlib.ExitStack() as stack:
        try:
            place_of.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(place_of.lock())
            _describe(place_of.path, described)
        except OSError as error:
            raise RunError(f"cannot write to {str(folder)!r}: {error.strerror}") from error
        yield place_of.checkpoints


def _describe(folder: Path, described: Mapping[str, Any]) -> None:
    """Write down what is trained in an empty folder, or check that it is the same."""
    description = folder / _DESCRIPTION
    if description.exists():
        _check_same(description, described)
        return
    if others := sorted({path.name for path in folder.iterdir()} - {"lock"}):
        raise RunError(
            f"{str(folder)!r} holds {others[0]!r} and is no folder of a pretraining: choose another"
        )
    write_whole(description, json.dumps(described, indent=1) + "\n")


def _check_same(description: Path, described: Mapping[str, Any]) -> None:
    try:
        recorded = dict(json.loads(description.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise RunError(f"cannot read {str(description)!r}: {error}") from error
    other = [name for name, value in described.items() if recorded.get(name) != value]
    if other:
        raise RunError(
            f"{str(description.parent)!r} holds a pretraining with another {' and '.join(other)}: "
            "choose another folder, or make the same call to go on"
        )
