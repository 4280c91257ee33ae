"""Plain data and NumPy arrays out of a pickle, without running what the pickle asks for.

A pickle is a program for a small stack machine, two of whose instructions name and call any
Python object. `unpickle` is a machine of its own that knows only the instructions plain data
need. Python's `pickle` is never used: a name is looked up in an explicit table of our own
constructors, nothing is imported, no attribute is set, and whatever is not in the table ends
the reading before anything was called.

Nothing is allocated that the file does not hold: an array must have exactly the bytes its
shape promises, the same bytes cannot be multiplied by references to them, and nesting,
references and the number of instructions are bounded.
"""

from __future__ import annotations

import os
import pickletools
import struct
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax.errors import DataError
from cnn_jax.pickled_arrays import CONSTRUCTORS, Constructor, Name, Unfinished

_MOST_INSTRUCTIONS = 5_000_000
_MOST_VALUES = 5_000_000
_DEEPEST = 100
_LARGEST_INTEGER = 2**64
_KEYS = (str, bytes, int, bool, type(None))
_SCALARS = (*_KEYS, float, bytearray)

# What the machine and NumPy are known to raise for damaged pickles.
_DAMAGE = (ValueError, TypeError, LookupError, ArithmeticError, MemoryError, struct.error)


def unpickle(
    source: str | os.PathLike[str] | bytes,
    *,
    allowed: Mapping[tuple[str, str], Constructor] | None = None,
) -> object:
    """The value of a pickle of protocol 0 to 5: plain data and numeric NumPy arrays.

    Plain data are None, bool, int (up to 64 bits), float, str, bytes, bytearray, list, tuple
    and dict (an OrderedDict becomes a dict) whose keys are str, bytes, int, bool or None.
    Strings of Python 2 are read as Latin-1 str. Arrays may be read-only.

    Args:
      source: path of a file, or the contents of one.
      allowed: (module, name) as the pickle writes it -> what is called in its place;
        `CONSTRUCTORS` unless given.

    Raises:
      DataError: cannot be read, is damaged or ends early, asks for a name outside the table,
        or exceeds the bounds on nesting, references and size.
    """
    if isinstance(source, bytes):
        contents, where = source, f"pickle of {len(source)} bytes"
    else:
        where = repr(os.fspath(source))
        try:
            contents = Path(source).read_bytes()
        except OSError as error:
            raise DataError(f"{where} cannot be read: {error.strerror or error}") from error
    machine = _Machine(CONSTRUCTORS if allowed is None else allowed, 4 * len(contents) + 1024)
    try:
        value = machine.run(contents)
        _measure(value, 1, {})
    except DataError as error:
        raise DataError(f"{where} is refused: {error}") from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{where} is damaged or not a pickle ({reason}); download or save it again"
        ) from error
    return value


class _Mark:
    """Where the items of a list, tuple or dict begin on the stack."""


class _Machine:
    """The stack, the memo, and a method or table entry for each instruction."""

    def __init__(self, allowed: Mapping[tuple[str, str], Constructor], budget: int) -> None:
        self.allowed = allowed
        self.budget = budget
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, contents: bytes) -> object:
        """The value that a pickle leaves on the stack."""
        with warnings.catch_warnings():
            # An escape that Python would not write: a value like any other here.
            warnings.simplefilter("ignore", DeprecationWarning)
            return self._run(contents)

    def _run(self, contents: bytes) -> object:
        end = -1
        for count, (instruction, argument, position) in enumerate(pickletools.genops(contents)):
            if count >= _MOST_INSTRUCTIONS:
                raise DataError(f"more than {_MOST_INSTRUCTIONS} instructions; save it as .npz")
            self._execute(instruction.name, argument)
            end = -1 if position is None else position
        if len(self.stack) != 1 or end != len(contents) - 1:
            raise ValueError("something is left over at its end")
        return self.stack[0]

    def _execute(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            self.stack.append(_literal(argument))
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise DataError(
                f"its instruction {name} makes objects, and only plain data and arrays are "
                "read; save the data as .npz"
            )

    def pop_to_mark(self) -> list[Any]:
        """The items above the last mark."""
        start = len(self.stack) - 1
        while not isinstance(self.stack[start], _Mark):
            start -= 1
            if start < 0:
                raise ValueError("a mark is missing")
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def remember(self, key: int) -> None:
        """Note the top of the stack in the memo."""
        value = self.stack[-1]
        self.memo[key] = value
        if isinstance(value, Unfinished):
            value.memo_keys.append(key)

    def extend(self, items: list[Any]) -> None:
        """Append to the list on the stack."""
        target = self.stack[-1]
        if type(target) is not list:
            raise ValueError(f"items are appended to {type(target).__name__}")
        target.extend(items)

    def insert(self, items: list[Any]) -> None:
        """Keys and values, in turn, into the dict on the stack."""
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise ValueError(f"{len(items)} keys and values go into {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in _KEYS:
                raise DataError(f"a key is {type(key).__name__}, not text, bytes or an integer")
            target[key] = value

    def find(self, module: Any, name: Any) -> None:
        """Put a name of the table on the stack."""
        if type(module) is not str or type(name) is not str:
            raise ValueError("a name is no text")
        construct = self.allowed.get((module, name))
        if construct is None:
            raise DataError(
                f"it asks for {f'{module}.{name}'[:100]!r}, which is not plain data nor an "
                "array; if you trust its source, open it there and save the data as .npz"
            )
        self.stack.append(Name(module, name, construct))

    def call(self) -> None:
        """Give the arguments on the stack to the constructor below them."""
        arguments, called = self.stack.pop(), self.stack.pop()
        if type(called) is not Name or type(arguments) is not tuple:
            raise DataError(f"it calls {type(called).__name__}, which is not a constructor")
        self.stack.append(self._charged(called.construct(*arguments)))

    def build(self) -> None:
        """Finish the array or dtype that waits for its state."""
        state, target = self.stack.pop(), self.stack.pop()
        if type(target) is not Unfinished:
            raise DataError(f"it sets attributes of {type(target).__name__}")
        value = self._charged(target.finish(state))
        self.stack.append(value)
        while target.memo_keys:
            self.memo[target.memo_keys.pop()] = value

    def _charged(self, value: object) -> object:
        """The value; what is made from the file's bytes must not exceed them many times."""
        size = len(value) if isinstance(value, bytes) else getattr(value, "nbytes", 0)
        self.budget -= size
        if self.budget < 0:
            raise DataError("its references multiply the same bytes; it is hostile or damaged")
        return value


def _literal(argument: Any) -> Any:
    if isinstance(argument, int) and not -_LARGEST_INTEGER < argument < _LARGEST_INTEGER:
        raise DataError("an integer has more than 64 bits")
    if isinstance(argument, str) and not argument.isascii():
        argument.encode()  # lone surrogates cannot be printed or written: a ValueError
    return argument


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], object]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "MARK": _Mark}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}


def _pack_tuple(machine: _Machine, count: int) -> None:
    if len(machine.stack) < count:
        raise ValueError("the stack is empty")
    items = tuple(machine.stack[-count:])
    del machine.stack[-count:]
    machine.stack.append(items)


def _make_dict(machine: _Machine) -> None:
    items = machine.pop_to_mark()
    machine.stack.append({})
    machine.insert(items)


def _find_by_stack(machine: _Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.find(module, name)


def _set_item(machine: _Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.insert([key, value])


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: _pack_tuple(machine, 1),
    "TUPLE2": lambda machine, _: _pack_tuple(machine, 2),
    "TUPLE3": lambda machine, _: _pack_tuple(machine, 3),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_to_mark()),
    "DICT": lambda machine, _: _make_dict(machine),
    "APPEND": lambda machine, _: machine.extend([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: _set_item(machine),
    "SETITEMS": lambda machine, _: machine.insert(machine.pop_to_mark()),
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "GLOBAL": lambda machine, names: machine.find(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: _find_by_stack(machine),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.remember),
    **dict.fromkeys(
        ("GET", "BINGET", "LONG_BINGET"),
        lambda machine, key: machine.stack.append(machine.memo[key]),
    ),
}


def _measure(value: Any, depth: int, measured: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """(number of values if all references were written out, levels) of a value.

    Containers may share their items, so that a short pickle can stand for a value that takes
    for ever to compare or print, or contain itself.
    """
    kind = type(value)
    if kind in _SCALARS or isinstance(value, np.ndarray | np.generic):
        return 1, 1
    if kind not in (list, tuple, dict):
        raise DataError("an object is left unfinished or is not plain data")
    if id(value) not in measured:
        if depth > _DEEPEST:
            raise DataError(f"it is nested more than {_DEEPEST} levels deep, or contains itself")
        items = value.values() if kind is dict else value
        inner = [_measure(item, depth + 1, measured) for item in items]
        count = 1 + len(value) + sum(size for size, _ in inner)
        measured[id(value)] = (count, 1 + max((levels for _, levels in inner), default=0))
    count, levels = measured[id(value)]
    if count > _MOST_VALUES:
        raise DataError(f"its references stand for more than {_MOST_VALUES} values")
    if depth + levels > _DEEPEST + 1:
        raise DataError(f"it is nested more than {_DEEPEST} levels deep")
    return count, levels
