"""The pages of the site that are written from the code: names, commands, recipe, networks."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cnn_jax
from cnn_jax import explain, models, recipe
from cnn_jax.cli import main
from cnn_jax.cli.entry import COMMANDS

# Every room whose `__all__` others may call, in the order of an image's way, and what it is for.
ROOMS = {
    "ops": "convolutions and poolings",
    "nn": "layers, and features by name",
    "models": "networks",
    "data": "images and splits",
    "augment": "augmentation",
    "training": "tasks, losses, optimizers, steps",
    "evaluation": "figures with intervals",
    "decision": "calibration, thresholds, promises",
    "anomaly": "what is not normal",
    "gallery": "enrol, search, reject",
    "principles": "what networks do, measured",
    "explain": "heat maps and their audits",
    "measuring": "the page of principles",
    "explaining": "maps and audits of a run",
    "report": "pages",
}


def write(folder: Path) -> None:
    """All generated pages, into a folder; files that stay the same are not touched."""
    pages: dict[str, str] = {
        "api/cnn_jax.md": _runs_page(),
        **{f"api/{room}.md": _room_page(room) for room in ROOMS},
        "commands.md": _commands_page(),
        "recipe.md": _recipe_page(),
        "methods.md": _methods_page(),
    }
    # Every network is traced for it, which takes longer than all the rest.
    if not _is_newer(folder / "models.md", "models", "nn", "ops"):
        pages["models.md"] = _models_page()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def _is_newer(path: Path, *rooms: str) -> bool:
    """Whether a file was written after the code of these rooms, and of this module."""
    if not path.exists():
        return False
    root = Path(cnn_jax.__file__).parent
    code = [Path(__file__), *(file for room in rooms for file in (root / room).rglob("*.py"))]
    return path.stat().st_mtime > max(file.stat().st_mtime for file in code)


def adapt(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """A docstring as we write it, which is Markdown but for its sections, as what Sphinx reads."""
    text = "\n".join(lines)
    if what == "module" and (indented := re.search(r"(?<=\n\n)    \S", text)):
        # What is indented is an example.
        text = f"{text[: indented.start()]}.. code-block:: python\n\n{text[indented.start() :]}"
    else:
        # Between backticks nothing is changed; elsewhere what Sphinx takes for markup is not.
        parts = re.split(r"(?<!`)`([^`]+)`(?!`)", text)
        for k, part in enumerate(parts):
            parts[k] = f"``{part}``" if k % 2 else _plain(part)
            if k % 2 and re.match(r"\w", parts[k + 1]):
                parts[k] += r"\ "  # as in `name`s
        text = "".join(parts)
    lines[:] = text.split("\n")


def _plain(text: str) -> str:
    """Text without code: bars, and stars that are no emphasis, stand for themselves."""
    text = text.replace("|", r"\|")
    emphasis = r"(?<![*\w])\*[^*\s](?:[^*]*[^*\s])?\*(?![*\w])"
    parts = re.split(f"({emphasis}|(?m:^ *\\*{{1,2}}\\w+:))", text)
    return "".join(
        part
        if re.fullmatch(emphasis, part) or re.fullmatch(r" *\*{1,2}\w+:", part)
        else part.replace("*", r"\*")
        for part in parts
    )


def _first_line(item: Any) -> str:
    text = inspect.getdoc(item) or ""
    return " ".join(text.split("\n\n")[0].split())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines
    )


def _what(item: Any) -> str:
    if inspect.isfunction(item) or inspect.isclass(item):
        return _first_line(item)
    if isinstance(item, str | int | float | tuple | frozenset):
        return f"`{item!r}`"
    return f"by name: {', '.join(f'`{key}`' for key in item)}" if isinstance(item, Mapping) else ""


def _directive(path: str, item: Any) -> str:
    if inspect.isclass(item):
        kind, options = (
            "autoclass",
            [":members:", ":exclude-members: dtype, param_dtype, promote_dtype"],
        )
        if issubclass(item, Exception):
            kind = "autoexception"
        elif "__call__" in vars(item):
            options.append(":special-members: __call__")
    elif callable(item):
        kind, options = "autofunction", []
    else:
        return f".. py:data:: {path}\n\n"
    body = "\n".join(f"   {option}" for option in options)
    return f".. {kind}:: {path}\n{body}\n"


def _entries(module: str, items: dict[str, Any]) -> str:
    # What is called before what is made by it, and constants last.
    order = [inspect.isfunction, inspect.isclass, lambda item: True]
    items = dict(sorted(items.items(), key=lambda pair: [of(pair[1]) for of in order].index(True)))
    rows = [(f"[`{name}`](#{module}.{name})", _what(item)) for name, item in items.items()]
    directives = "\n".join(_directive(f"{module}.{name}", item) for name, item in items.items())
    return f"{_table(('name', 'what'), rows)}\n\n```{{eval-rst}}\n{directives}```\n"


def _room_page(room: str) -> str:
    module = importlib.import_module(f"cnn_jax.{room}")
    items = {name: getattr(module, name) for name in _public(module)}
    own = {name: item for name, item in items.items() if _is_ours(item, room)}
    others = sorted(set(items) - set(own))
    text = f"# `cnn_jax.{room}`: {ROOMS[room]}\n\n"
    text += f"```{{eval-rst}}\n.. automodule:: cnn_jax.{room}\n```\n\n"
    text += _entries(f"cnn_jax.{room}", own)
    if others:
        listed = ", ".join(f"`{name}`" for name in others)
        text += f"\nOf Flax, JAX or `cnn_jax.ops`, by the same name: {listed}.\n"
    return text


def _public(module: ModuleType) -> list[str]:
    names = getattr(module, "__all__", None)
    if names is None:  # a module in one file: what it defines
        names = [
            name
            for name, item in vars(module).items()
            if not name.startswith("_") and getattr(item, "__module__", "") == module.__name__
        ]
    return [name for name in names if not inspect.ismodule(getattr(module, name))]


def _is_ours(item: Any, room: str) -> bool:
    """Whether it has its place in the room: not Flax's or JAX's own, nor that of `ops` in `nn`."""
    home = getattr(item, "__module__", None) or ""
    if room == "nn" and home.startswith("cnn_jax.ops"):
        return False
    return home.split(".")[0] not in ("flax", "jax", "jaxlib", "optax")


def _runs_page() -> str:
    names = [name for name in cnn_jax.__all__ if not inspect.ismodule(getattr(cnn_jax, name))]
    rooms = {room: importlib.import_module(f"cnn_jax.{room}") for room in ROOMS}
    elsewhere = {
        name: room
        for room, module in rooms.items()
        for name in _public(module)
        if name in names and getattr(module, name) is getattr(cnn_jax, name)
    }
    items = {name: getattr(cnn_jax, name) for name in names if name not in elsewhere}
    links = ", ".join(f"{{py:obj}}`cnn_jax.{room}.{name}`" for name, room in elsewhere.items())
    return (
        "# `cnn_jax`: runs\n\n```{eval-rst}\n.. automodule:: cnn_jax\n```\n\n"
        + _entries("cnn_jax", items)
        + f"\nBy a shorter name also here: {links}.\n"
    )


def _commands_page() -> str:
    text = "# Commands\n\n" + _fenced(_help([]))
    for name in COMMANDS:
        text += f"\n## {name}\n\n" + _fenced(_help([name]))
    return text


def _help(words: list[str]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return out.getvalue().rstrip()


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```\n"


def _recipe_page() -> str:
    text = (
        "# The recipe\n\nEvery field is an option (`--optimizer.weight_decay 1e-4`), a line of a "
        'TOML file and a keyword in Python (`**{"optimizer.weight_decay": 1e-4}`). `seed`, of '
        "parameters, order, augmentation and dropout, belongs to none of the parts below.\n"
    )
    whole = recipe.Recipe()
    for part in dataclasses.fields(whole):
        value = getattr(whole, part.name)
        if not dataclasses.is_dataclass(value):
            continue
        meanings = _attributes(type(value))
        rows = [
            (f"`{f.name}`", f"`{getattr(value, f.name)!r}`", meanings.get(f.name, ""))
            for f in dataclasses.fields(value)
        ]
        text += f"\n## {part.name}\n\n{_first_line(type(value))}\n\n"
        text += _table(("field", "default", "meaning"), rows) + "\n"
    return text


def _attributes(kind: type) -> dict[str, str]:
    """Name -> meaning, from the section `Attributes` of a docstring."""
    doc = inspect.getdoc(kind) or ""
    section = doc.partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if start := re.match(r"  (\w[\w, ]*): (.*)", line):
            names = [name.strip() for name in start[1].split(",")]
            found.update(dict.fromkeys(names, start[2]))
        elif line.startswith("    "):
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
        elif line.strip():
            break
    return found


def _models_page() -> str:
    rows = []
    for name in models.names():
        row = models.describe(name, num_classes=10, image_shape=(32, 32, 3))
        options = ", ".join(f"`{option}`" for option in models.option_names(name))
        rows.append((f"`{name}`", f"{row.parameters:,}", f"{row.flops / 1e6:,.0f}", options))
    head = ("`--model`", "parameters", "MFLOP forward", "options (`--model.options.X`)")
    return (
        "# The networks\n\nAt 32×32×3 pixels and 10 classes; a multiply-add is two operations. "
        "`cnn-jax models --help` tells of other sizes.\n\n" + _table(head, rows) + "\n"
    )


def _methods_page() -> str:
    rows = [
        (f"`{name}`", method.words, "yes" if method.signed else "no")
        for name, method in explain.METHODS.items()
    ]
    head = ("`--method`", "shows", "what speaks against a class is negative")
    return "# The methods of explanation\n\n" + _table(head, rows) + "\n"
