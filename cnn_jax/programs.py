"""What of a recipe is part of the compiled program, and which scalars the step reads instead."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from cnn_jax import fields, nn
from cnn_jax.recipe import Recipe
from cnn_jax.training import margin_softmax, metric_learning, optimizers, schedules

T = TypeVar("T")
_KEPT = 32  # of a training there are four: its first state, its steps and two evaluations


def shared(make: Callable[..., T], model: nn.Module, *arguments: Any) -> T:
    """`make(*arguments)`, which was made before in this process where the arguments are equal.

    So another training of the same network on the same training part, with another seed or rate,
    is not traced and compiled again. (Folds are: mean and deviation of what they learn from are in
    the program.) The last 32 are kept. A module of the user's own is taken anew each time:
    functions that it calls may have been defined again since, as in a notebook, which no
    comparison sees. As with any function that is compiled once, what Flax was told while it was
    traced, as by `intercept_methods`, stays.

    Args:
      make: a function without effects, of values that are compared.
      model: the network that is compiled.
      *arguments: of `make`; the model in them, too.
    """
    if type(model).__module__.partition(".")[0] != __package__ or not _comparable(arguments):
        return make(*arguments)
    made: T = _made(make, *arguments)
    return made


def _comparable(arguments: tuple[Any, ...]) -> bool:
    """Not where a model was made with a list, as its constructor allows."""
    try:
        hash(arguments)
    except TypeError:
        return False
    return True


@functools.lru_cache(maxsize=_KEPT, typed=True)
def _made(make: Callable[..., Any], *arguments: Any) -> Any:
    return make(*arguments)


def hyper_of(recipe: Recipe) -> dict[str, float]:
    """Every scalar that the step reads from the state."""
    return {
        **optimizers.hyper_of(recipe.optimizer),
        **schedules.hyper_of(recipe.schedule),
        **margin_softmax.hyper_of(recipe.loss),
        **metric_learning.hyper_of(recipe.loss),
        "label_smoothing": recipe.loss.label_smoothing,
        **({"focal": recipe.loss.focal} if recipe.loss.focal else {}),
        **(
            {"logit_adjustment": recipe.loss.logit_adjustment}
            if recipe.loss.logit_adjustment
            else {}
        ),
        **({"hierarchy": recipe.loss.hierarchy_weight} if recipe.loss.hierarchy else {}),
        **({"ema": recipe.train.ema} if recipe.train.ema else {}),
    }


# Fields that the step reads from the state, so that one program serves recipes that differ in
# them; those of the second kind are part of the program in so far as they are 0 or not.
_FREE = (
    "optimizer.learning_rate",
    "optimizer.weight_decay",
    "optimizer.beta2",
    "optimizer.epsilon",
    "optimizer.trust_coefficient",
    "optimizer.other_learning_rate",
    "schedule.warmup_epochs",
    "schedule.final_fraction",
    "schedule.drop",
    "loss.label_smoothing",
    "loss.hierarchy_weight",
    "loss.margin_size",
    "loss.margins",
    "loss.adaface_h",
    "loss.magface_norms",
    "loss.magface_margins",
    "loss.magface_regulariser",
    "loss.pair_margin",
    "loss.pair_temperature",
)
_FREE_UNLESS_0 = (
    "optimizer.momentum",
    "optimizer.clip_norm",
    "optimizer.sam",
    "loss.focal",
    "loss.logit_adjustment",
    "train.ema",
)


def program_of(recipe: Recipe) -> Recipe:
    """The recipe without what recipes may differ in and still be trained by one program.

    These are the seed, the fold, the seed of the parts, and every scalar that the step reads from
    its state.
    """
    usual = Recipe()
    neutral = {
        "seed": 0,
        "data.fold": 1,
        "data.split_seed": 0,
        **{name: fields.get(usual, name) for name in _FREE},
    }
    used = {name: 0.5 for name in _FREE_UNLESS_0 if fields.get(recipe, name)}
    return recipe.override({**neutral, **used})
