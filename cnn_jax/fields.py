"""Fields of frozen dataclasses by dotted name, with values checked against their types."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cnn_jax.errors import RecipeError


def names(of: Any, prefix: str = "") -> list[str]:
    """Dotted names of every field of a dataclass of dataclasses."""
    out = []
    for item in dataclasses.fields(of):
        value = getattr(of, item.name)
        if dataclasses.is_dataclass(value):
            out += names(value, f"{prefix}{item.name}.")
        else:
            out.append(prefix + item.name)
    return out


def nearest(word: str, words: Sequence[str]) -> str:
    """`; did you mean 'x'?` for the closest of `words`, or nothing."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def get(of: Any, path: str) -> Any:
    """The value of a dotted name."""
    for name in path.split("."):
        of = getattr(of, name)
    return of


def plain(value: Any) -> Any:
    """Nested plain values; a field that is None is left out."""
    if dataclasses.is_dataclass(value):
        items = ((f.name, plain(getattr(value, f.name))) for f in dataclasses.fields(value))
        return {name: item for name, item in items if item is not None}
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return value


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names taken apart; two spellings of one field do not get lost."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        head, _, rest = name.partition(".")
        inner = nested({rest: value}) if rest else value
        inner = nested(inner) if isinstance(inner, Mapping) else inner
        if isinstance(inner, dict) and isinstance(out.get(head), dict):
            out[head] = _merge(out[head], inner)
        else:
            out[head] = inner
    return out


def _merge(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    out = dict(a)
    for key, value in b.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merge(out[key], value) if both else value
    return out


def override(
    of: Any, values: Mapping[str, Any], prefix: str = "", known: Sequence[str] = ()
) -> Any:
    """A copy of a frozen dataclass with some fields changed.

    Args:
      of: the dataclass; fields may be dataclasses themselves.
      values: nested names, see `nested`.
      prefix: dotted path of `of`, for messages.
      known: all dotted names, to suggest the nearest.

    Raises:
      RecipeError: an unknown field or a value that does not fit its type.
    """
    known = known or names(of)
    hints = typing.get_type_hints(type(of))
    changes = {}
    for name, value in values.items():
        path = prefix + name
        if name not in hints:
            raise RecipeError(f"no field {path!r}{nearest(path, known)}")
        current = getattr(of, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise RecipeError(f"{path} is a group of fields, not one value ({value!r})")
            changes[name] = override(current, value, f"{path}.", known)
        elif isinstance(current, Mapping):
            if not isinstance(value, Mapping):
                raise RecipeError(f"{path} is a table: give {path}.NAME")
            changes[name] = {**current, **{k: _read_text(v) for k, v in value.items()}}
        else:
            changes[name] = _fit(value, hints[name], path)
    return dataclasses.replace(of, **changes)


def _read_text(value: Any) -> Any:
    """Text from the command line as a TOML value where it is one."""
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    try:
        read = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value
    return tuple(read) if isinstance(read, list) else read


def _fit(value: Any, hint: Any, path: str) -> Any:
    """`value` as the type of the field, or a RecipeError that names both."""
    for candidate in (value, _read_text(value)):
        fitted, ok = _as_type(candidate, hint)
        if ok:
            return fitted
    raise RecipeError(
        f"{path} must be {_describe(hint)}, not {value!r}{_nearest_choice(value, hint)}"
    )


def _as_type(value: Any, hint: Any) -> tuple[Any, bool]:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        # None is given by leaving the field out, or as the word none where it is allowed.
        if type(None) in typing.get_args(hint) and value in (None, "none"):
            return None, True
        for option in typing.get_args(hint):
            fitted, ok = _as_type(value, option)
            if ok:
                return fitted, True
        return None, False
    if origin is Literal:
        same = [c for c in typing.get_args(hint) if c == value and type(c) is type(value)]
        return (same[0], True) if same else (None, False)
    if origin is tuple:
        inner = typing.get_args(hint)[0]
        if not isinstance(value, list | tuple):
            return None, False
        fitted_items = [_as_type(v, inner) for v in value]
        return tuple(v for v, _ in fitted_items), all(ok for _, ok in fitted_items)
    if hint is float:
        ok = isinstance(value, int | float) and not isinstance(value, bool)
        ok = ok and math.isfinite(value)
        return (float(value), True) if ok else (None, False)
    if hint is int:
        ok = isinstance(value, int) and not isinstance(value, bool)
        return (value, ok)
    return (value, isinstance(value, hint))


def _describe(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(a) for a in typing.get_args(hint))
    if origin is Literal:
        return " or ".join(repr(c) for c in typing.get_args(hint))
    if origin is tuple:
        return f"a list of {_describe(typing.get_args(hint)[0])}s"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(hint, "none" if hint is type(None) else str(hint))


def _nearest_choice(value: Any, hint: Any) -> str:
    options = [hint, *typing.get_args(hint)]
    choices = [c for o in options if typing.get_origin(o) is Literal for c in typing.get_args(o)]
    return nearest(str(value), [c for c in choices if isinstance(c, str)])
