"""Which recipes a sweep tries: values and ranges of fields."""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnn_jax import fields
from cnn_jax.errors import RecipeError
from cnn_jax.recipe import SHORT_NAMES, Recipe

MOST_POINTS = 10_000
_LOGARITHMIC = 10.0  # a range from above 0 over such a factor is searched in the logarithm

# Two numbers with two dots between them.
_RANGE = re.compile(r"\s*[-+]?[\d.]*\d(e[-+]?\d+)?\s*\.\.\s*[-+]?[\d.]*\d(e[-+]?\d+)?\s*", re.I)

Point = dict[str, Any]


@dataclass(frozen=True)
class Values:
    """The values a field may take."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """The ends between which a field lies, both included.

    Attributes:
      low, high: numbers.
      log: whether it is searched in the logarithm.
      integer: whether only whole numbers count.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False


Space = dict[str, Values | Range]


def space_of(recipe: Recipe, vary: Mapping[str, str | Sequence[Any] | Values | Range]) -> Space:
    """What is varied, each field checked against the recipe.

    Args:
      recipe: what all trials have in common.
      vary: field -> `Values`, `Range`, a list of values, or text: `0.01,0.1,1` for values,
        `0.001..1` for a range. A range of whole numbers has few values and is a list of them;
        one from above 0 over a factor of ten is searched in the logarithm.

    Raises:
      RecipeError: no such field (the nearest is named), a value that it cannot take, an empty
        or inverted range, or nothing that varies.
    """
    if not vary:
        raise RecipeError("a sweep needs a field that varies, such as optimizer.learning_rate")
    space: Space = {}
    for given, wanted in vary.items():
        name = SHORT_NAMES.get(given, given)
        if name in space:
            raise RecipeError(f"{name} is given twice")
        people = recipe.data.unseen_identities > 0
        if name in ("data.fold", "data.folds", "data.unseen_identities") or (
            people and name in ("data.split_seed", "data.validation")
        ):
            raise RecipeError(
                f"{name} cannot vary: what is chosen over several parts, or several groups of "
                "people, has seen what it would be tested on; sweep within one"
            )
        if isinstance(wanted, str) and _RANGE.fullmatch(wanted):
            space[name] = _range(recipe, name, wanted)
        elif isinstance(wanted, Range):
            space[name] = _checked(recipe, name, wanted)
        else:
            words = _words(wanted) if isinstance(wanted, str) else wanted
            listed = words.values if isinstance(words, Values) else tuple(words)
            values = tuple(_read(recipe, name, value) for value in listed)
            if not values or len(set(map(str, values))) < len(values):
                raise RecipeError(f"{name} has no values, or one twice: {list(values)}")
            space[name] = Values(values)
    return space


def count(space: Space) -> int | None:
    """Points of the grid; None where a range has no end of them."""
    sizes = [len(axis.values) if isinstance(axis, Values) else None for axis in space.values()]
    return None if None in sizes else math.prod(size for size in sizes if size)


def grid(space: Space) -> Iterator[Point]:
    """Every point, the last field varying fastest.

    Raises:
      RecipeError: a field has a range, or there are more than `MOST_POINTS`.
    """
    size = count(space)
    if size is None:
        ranges = [name for name, axis in space.items() if isinstance(axis, Range)]
        raise RecipeError(
            f"a grid needs values, but {ranges[0]} has a range: list them, or search at random"
        )
    if size > MOST_POINTS:
        raise RecipeError(
            f"a grid of {size:,} points: at most {MOST_POINTS:,}; take fewer values, or search at "
            "random with so many trials as there is time for"
        )
    axes = [axis.values for axis in space.values() if isinstance(axis, Values)]
    return (dict(zip(space, values, strict=True)) for values in itertools.product(*axes))


def _words(text: str) -> Sequence[Any]:
    """Values by commas: numbers, lists and quoted text as in TOML, else plain words."""
    try:
        listed = tomllib.loads(f"values = [{text}]")["values"]
    except tomllib.TOMLDecodeError:
        return text.split(",")
    return listed if isinstance(listed, list) else text.split(",")


def _range(recipe: Recipe, name: str, text: str) -> Values | Range:
    low, high = (_read(recipe, name, word) for word in text.split("..", 1))
    if isinstance(low, int) and isinstance(high, int) and high - low < 100:
        if high <= low:
            raise RecipeError(f"{name}: the range {text} has no two ends in order")
        return Values(tuple(range(low, high + 1)))
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        raise RecipeError(f"{name} is no number: give its values, by commas")
    log = low > 0 and high / low >= _LOGARITHMIC
    return _checked(recipe, name, Range(low, high, log, isinstance(low, int)))


def _checked(recipe: Recipe, name: str, axis: Range) -> Range:
    for end in (axis.low, axis.high):
        whole = isinstance(_read(recipe, name, end), int)
        if whole != axis.integer:
            kind = "whole numbers: Range(..., integer=True)" if whole else "no whole numbers only"
            raise RecipeError(f"{name} takes {kind}")
    if not axis.low < axis.high or (axis.log and axis.low <= 0):
        raise RecipeError(f"{name}: {axis.low} to {axis.high} is no range")
    return axis


def _read(recipe: Recipe, name: str, value: Any) -> Any:
    """The value as the recipe would hold it."""
    known = fields.names(recipe)
    if name not in known and not name.startswith("model.options."):
        raise RecipeError(f"no field {name!r} to vary{fields.nearest(name, known)}")
    changed: Any = recipe.override({name: value.strip() if isinstance(value, str) else value})
    for part in name.split("."):
        changed = changed[part] if isinstance(changed, Mapping) else getattr(changed, part)
    return changed
