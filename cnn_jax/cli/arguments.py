"""What all commands share: one-line errors, and recipe fields as options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import NoReturn

from cnn_jax import fields
from cnn_jax.errors import CnnJaxError
from cnn_jax.recipe import Recipe


class UsageError(CnnJaxError):
    """A command line that makes no sense."""


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors and our own help text."""

    def __init__(self, prog: str, description: str = "", text: str = "") -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        self._text = text

    def format_help(self) -> str:
        """The text given, or argparse's own."""
        return self._text + "\n" if self._text else super().format_help()

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing and leaving."""
        raise UsageError(message)


def take_dotted(arguments: list[str], known: list[str]) -> tuple[list[str], dict[str, str]]:
    """Options with a dot, or that are unknown, out of the arguments; fields by name."""
    names = fields.names(Recipe())
    tables = tuple(f"{n}." for n in names if isinstance(fields.get(Recipe(), n), Mapping))
    kept, dotted = [], {}
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if not argument.startswith("--") or name in known:
            kept.append(argument)
            continue
        field = name[2:].replace("-", "_")
        if field not in names and not field.startswith(tables):
            near = fields.nearest(name, known + [f"--{n}" for n in names])
            raise UsageError(f"no option {name!r}{near}")
        if not equals:
            following = next(waiting, None)
            if following is None:
                raise UsageError(f"{name} needs a value")
            value = following
        dotted[field] = value
    return kept, dotted
