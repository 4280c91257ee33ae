"""What a network takes and returns, and the state's structure: shapes, without arrays."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import flax.errors
import jax
import numpy as np

from cnn_jax import nn
from cnn_jax.errors import CnnJaxError, ModelError, RecipeError
from cnn_jax.programs import hyper_of, program_of, shared
from cnn_jax.recipe import Recipe
from cnn_jax.training import optimizers
from cnn_jax.training.optimizers import Optimizer
from cnn_jax.training.sizes import shape_of
from cnn_jax.training.state import State, create_state
from cnn_jax.training.step import LinenApply


def logits_shape(
    image_shape: tuple[int, ...], classes: Sequence[str], regions: Sequence[str]
) -> tuple[int, ...]:
    """Shape of the logits of an image: (K,), or where there are regions (H, W, R)."""
    return (*image_shape[:-1], len(regions)) if regions else (len(classes),)


def abstract_state(
    recipe: Recipe, model: nn.Module, image_shape: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[State, Optimizer]:
    """The state's structure without arrays, and the optimizer it is for.

    Args:
      recipe: of the run.
      model: the module.
      image_shape: (H, W, C) or (D, H, W, C).
      shape: of the logits of an image; see `logits_shape`.

    Raises:
      ModelError: the model does not take such images or does not return such logits.
      RecipeError: a pattern matches no parameter, or no submodule.
    """
    variables = shared(_abstract_variables, model, model, image_shape, shape)
    if recipe.train.remat:
        check_remat(model, recipe.train.remat, variables, image_shape)
    return state_for(recipe, variables)


def state_for(recipe: Recipe, variables: Any) -> tuple[State, Optimizer]:
    """`abstract_state` of variables without arrays.

    Raises:
      RecipeError: a pattern matches no parameter.
    """
    # Without the scalars that the step reads from its state: recipes that differ in them share it.
    optimizer = optimizers.make_optimizer(program_of(recipe).optimizer, variables["params"])

    def create(variables: Any) -> State:
        opt_state = optimizer.init(variables["params"])
        return create_state(variables, opt_state, hyper_of(recipe), jax.random.key(recipe.seed))

    return jax.eval_shape(create, variables), optimizer


def check_signature(model: nn.Module) -> None:
    """Raise `ModelError` for a module that is not called with `train`."""
    if "train" not in inspect.signature(type(model).__call__).parameters:
        raise ModelError(
            f"{type(model).__name__}.__call__ must take `train`: "
            "def __call__(self, image, *, train: bool = False)"
        )


def variables_for(
    model: nn.Module, image_shape: tuple[int, ...], use: Callable[[Any], Any]
) -> tuple[dict[str, Any], Any]:
    """Shapes of the variables of a model, and what `use` makes of them.

    Raises:
      ModelError: the model does not take such images, or `use` cannot be traced with it.
    """
    image = jax.ShapeDtypeStruct((2, *image_shape), np.float32)
    init = functools.partial(model.init, train=False)
    try:
        variables = dict(jax.eval_shape(init, jax.random.key(0), image))
        return variables, use(variables)
    except CnnJaxError:
        raise
    except (TypeError, ValueError, flax.errors.FlaxError) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"{type(model).__name__} does not take images of {list(image_shape)}: {first}"
        ) from error


def check_remat(
    model: nn.Module, remat: Sequence[str], variables: Any, image_shape: tuple[int, ...]
) -> None:
    """Raise `RecipeError` unless every pattern of `train.remat` matches a submodule."""
    try:
        _abstract_outputs(model, variables, image_shape, train=True, remat=remat)
    except ModelError as error:
        raise RecipeError(f"train.remat: {error}") from error


def check_sizes(
    sizes: Sequence[int], model: nn.Module, template: State, image_shape: tuple[int, ...]
) -> None:
    """Raise `RecipeError` for `train.sizes` that the images or the model do not have.

    Args:
      sizes: shorter sides, in pixels.
      model, template: the network, and a state with the shapes of its parameters.
      image_shape: (H, W, C) of the data.
    """
    for side in sizes:
        if len(image_shape) != 3 or side > min(image_shape[:2]):
            raise RecipeError(
                f"train.sizes has {side}, but the images are {list(image_shape)}: they can only "
                "be made smaller"
            )
        small = shape_of(image_shape, side)
        try:
            variables, _ = variables_for(model, small, lambda found: found)
        except ModelError as error:
            raise RecipeError(f"train.sizes has {side}, but {error}") from error
        if _shapes(variables["params"]) != _shapes(template.params):
            raise RecipeError(
                f"train.sizes has {side}, but {type(model).__name__} has other parameters for "
                "images of another size: take a network that ends in global pooling"
            )


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: tuple(leaf.shape), tree)


def _abstract_outputs(
    model: nn.Module,
    variables: Any,
    image_shape: tuple[int, ...],
    *,
    train: bool,
    remat: Sequence[str] = (),
) -> Any:
    """Shapes of what the model returns for a batch of 2."""
    image = jax.ShapeDtypeStruct((2, *image_shape), np.float32)
    apply = LinenApply(model, tuple(remat))

    def outputs(variables: Any, image: jax.Array) -> Any:
        return apply(variables, image, train, {"dropout": jax.random.key(0)})[0]

    return jax.eval_shape(outputs, variables, image)


def _abstract_variables(
    model: nn.Module, image_shape: tuple[int, ...], wanted: tuple[int, ...]
) -> Any:
    """Shapes of the variables, and a check that the logits of an image have the wanted shape."""

    def outputs_of(variables: Any) -> Any:
        _abstract_outputs(model, variables, image_shape, train=True)
        return _abstract_outputs(model, variables, image_shape, train=False)

    variables, outputs = variables_for(model, image_shape, outputs_of)
    logits = outputs.get("logits") if isinstance(outputs, dict) else outputs
    shape = getattr(logits, "shape", None)
    if shape != (2, *wanted):
        k, name = wanted[-1], type(model).__name__
        inside = ", ".join(["B", *map(str, wanted)])
        what = f"{k} classes" if len(wanted) == 1 else f"{k} regions of each pixel"
        hint = ""
        if shape and len(shape) == 2 and len(wanted) > 1:
            hint = ". It answers for whole images: to learn masks take model unet"
        elif shape and len(shape) > 2 and len(wanted) == 1:
            hint = ". It answers for pixels: learn masks with --data.masks true"
        raise ModelError(
            f"{name} must return logits [{inside}] for {what}; for a batch of 2 it returns "
            f"{list(shape) if shape else type(outputs).__name__}{hint}"
        )
    return variables
