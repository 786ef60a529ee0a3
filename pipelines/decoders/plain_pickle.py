"""Texts, numbers, lists and dictionaries out of a pickle file, without unpickling it.

A pickle is a program for a stack machine, and the machine of the standard library runs what the file tells it to. Some
datasets are published as nothing but pickles of plain values. Here the operations are listed, which executes nothing,
and only those that build plain values are followed.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from omnimill.errors import BadRecord

_MARK = object()
_LARGEST = 1 << 63
_NOTHING = {"PROTO", "FRAME"}
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_SCALARS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"}
_SCALARS |= {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING"}
# Texts of Python 2: bytes in any encoding, nearly always UTF-8.
_BYTES = {"BINSTRING", "SHORT_BINSTRING"}
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}


def read_plain_pickle(data: bytes) -> Any:
    """The value of a pickle of texts, numbers, None, booleans, lists, tuples (as lists) and dictionaries.

    A list or dictionary may be part of one other only: values that share parts can be larger than any memory.

    Raises:
        BadRecord: ``pickle_refused`` for any other operation, with its name and place; ``pickle_malformed``.
    """
    machine = _Machine()
    place = 0
    try:
        for operation, argument, position in pickletools.genops(data):
            place = position or 0
            if operation.name == "STOP":
                (value,) = machine.stack
                return value
            machine.follow(operation.name, argument)
    except BadRecord as refused:
        raise BadRecord(refused.reason, f"byte {place}: {refused.message}") from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as fault:
        raise BadRecord("pickle_malformed", f"byte {place}: {type(fault).__name__}: {fault}"[:300]) from None
    raise BadRecord("pickle_malformed", "it has no end")


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memory: dict[int, Any] = {}

    def follow(self, name: str, argument: Any) -> None:
        """Do one operation."""
        stack = self.stack
        if name in _NOTHING:
            return
        if name in _VALUES:
            stack.append(_VALUES[name])
        elif name in _SCALARS:
            if isinstance(argument, int) and abs(argument) >= _LARGEST:
                raise BadRecord("pickle_refused", "a number of more than 64 bits")
            stack.append(argument)
        elif name in _BYTES:
            stack.append(_text(argument))
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _PUTS:
            self._memory[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self._memory[len(self._memory)] = stack[-1]
        elif name in _GETS:
            value = self._memory[int(argument)]
            if isinstance(value, list | dict):
                raise BadRecord("pickle_refused", "a list or dictionary that is part of two others")
            stack.append(value)
        elif name in _BUILDERS:
            _BUILDERS[name](self)
        else:
            raise BadRecord("pickle_refused", f"operation {name}, which does not build a plain value")

    def empty_list(self) -> None:
        self.stack.append([])

    def empty_dict(self) -> None:
        self.stack.append({})

    def append(self) -> None:
        value = self.stack.pop()
        self._on_top(list).append(value)

    def appends(self) -> None:
        values = self._since_mark()
        self._on_top(list).extend(values)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._on_top(dict)[key] = value

    def set_items(self) -> None:
        pairs = _pairs(self._since_mark())
        self._on_top(dict).update(pairs)

    def make_list(self) -> None:
        self.stack.append(self._since_mark())

    def make_dict(self) -> None:
        self.stack.append(_pairs(self._since_mark()))

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError(f"a tuple of {count} of {len(self.stack)} values")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        self.stack.append(values)

    def _since_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise IndexError("no mark")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def _on_top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"{type(self.stack[-1]).__name__} where a {kind.__name__} should be")
        return self.stack[-1]


_BUILDERS: dict[str, Callable[[_Machine], None]] = {
    "EMPTY_LIST": _Machine.empty_list,
    "EMPTY_TUPLE": _Machine.empty_list,
    "EMPTY_DICT": _Machine.empty_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "LIST": _Machine.make_list,
    "TUPLE": _Machine.make_list,
    "DICT": _Machine.make_dict,
    "TUPLE1": lambda machine: machine.tuple_of(1),
    "TUPLE2": lambda machine: machine.tuple_of(2),
    "TUPLE3": lambda machine: machine.tuple_of(3),
}


def _pairs(values: list[Any]) -> dict[Any, Any]:
    if len(values) % 2:
        raise ValueError("a key without a value")
    return dict(zip(values[::2], values[1::2], strict=True))


def _text(latin: str) -> str:
    raw = latin.encode("latin-1")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return latin
