"""What all commands share: one-line errors, and recipe fields as options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from cnn_jax import fields
from cnn_jax.errors import CnnJaxError
from cnn_jax.recipe import SHORT_NAMES, Recipe


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


def name_unreadable(bad: Mapping[Path, str]) -> int:
    """Say on stderr which image files could not be read; returns the exit status."""
    for reason in bad.values():
        print(f"cnn-jax: {reason}", file=sys.stderr)
    return 1 if bad else 0


def interrupted_status(info: Mapping[str, Any]) -> int:
    """The exit status of what a signal ended, by what its JSON file says."""
    return 143 if "SIGTERM" in str(info["reason"]) else 130


def parse_recipe(parser: Parser, arguments: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The parser's own options, and the fields of the recipe that were named beside them."""
    parser.add_argument("recipe", nargs="?")
    for option, field in SHORT_NAMES.items():
        switch = isinstance(fields.get(Recipe(), field), bool)
        form = {"action": "store_const", "const": "true"} if switch else {}
        parser.add_argument("--" + option.replace("_", "-"), **form)  # type: ignore[arg-type]
    known = [s for action in parser._actions for s in action.option_strings]
    arguments, dotted = take_dotted(arguments, known)
    options = vars(parser.parse_args(arguments))
    overrides = {o: value for o in SHORT_NAMES if (value := options.pop(o)) is not None}
    return options, {**overrides, **dotted}


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
