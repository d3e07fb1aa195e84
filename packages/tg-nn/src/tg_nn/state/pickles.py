"""Pickles that hold tensors and plain data, read without running anything they name; and written.

A pickle is a program for a stack machine. This machine knows the operations that build numbers, texts, lists, tuples,
dicts and tensors. A name outside of the table is an error, and none is ever imported; a call only ever calls a function
of this file.
Source: CPython's pickletools, which also decodes the operations here.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO

from tg_nn.errors import StateFileError

__all__ = ["Global", "read_pickle", "write_pickle"]

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PUSHES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8",
}  # fmt: skip
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


@dataclass(frozen=True, slots=True)
class Global:
    """A name in a pickle, `module.name`: never what it stands for."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def read_pickle(
    file: IO[bytes], calls: Mapping[str, Callable], names: Callable[[Global], bool], persistent: Callable
) -> object:
    """The value of the pickle at the file's position, which moves to its end.

    Args:
        calls: what the names that may be called do.
        names: whether a name may stand in the pickle without being called.
        persistent: what a persistent id means.

    Raises:
        StateFileError: anything else.
    """
    stack: list = []
    memo: dict[int, object] = {}

    def to_mark() -> list:
        at = max([i for i, item in enumerate(stack) if item is _MARK])
        items = stack[at + 1 :]
        del stack[at:]
        return items

    try:
        for operation, argument, _ in pickletools.genops(file):
            name = operation.name
            if name in _PUSHES:
                stack.append(argument)
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name in _TUPLES:
                count = _TUPLES[name]
                items = tuple(stack[len(stack) - count :])
                if len(items) != count or _MARK in items:
                    raise StateFileError("a tuple of more than there is")
                del stack[len(stack) - count :]
                stack.append(items)
            else:
                match name:
                    case "PROTO" | "FRAME":
                        pass
                    case "STOP":
                        return stack.pop()
                    case "MARK":
                        stack.append(_MARK)
                    case "TUPLE":
                        stack.append(tuple(to_mark()))
                    case "EMPTY_LIST" | "EMPTY_DICT":
                        stack.append([] if name == "EMPTY_LIST" else {})
                    case "LIST":
                        stack.append(to_mark())
                    case "DICT":
                        items = to_mark()
                        stack.append(dict(zip(items[::2], items[1::2], strict=True)))
                    case "APPEND" | "APPENDS":
                        items = to_mark() if name == "APPENDS" else [stack.pop()]
                        _of(stack[-1], list).extend(items)
                    case "SETITEM" | "SETITEMS":
                        items = to_mark() if name == "SETITEMS" else [stack.pop() for _ in range(2)][::-1]
                        _of(stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
                    case "POP":
                        stack.pop()
                    case "BINPUT" | "LONG_BINPUT" | "PUT":
                        memo[argument] = stack[-1]
                    case "MEMOIZE":
                        memo[len(memo)] = stack[-1]
                    case "BINGET" | "LONG_BINGET" | "GET":
                        stack.append(memo[argument])
                    case "GLOBAL" | "STACK_GLOBAL":
                        pair = (
                            argument.split(" ", 1) if name == "GLOBAL" else [stack.pop(), stack.pop()][::-1]
                        )
                        found = Global(*[_of(part, str) for part in pair])
                        if str(found) not in calls and not names(found):
                            raise StateFileError(f"it names {found}, which is neither tensor nor plain data")
                        stack.append(found)
                    case "REDUCE" | "NEWOBJ":
                        given, function = _of(stack.pop(), tuple), stack.pop()
                        if not isinstance(function, Global) or str(function) not in calls:
                            raise StateFileError(f"it calls {function}")
                        stack.append(calls[str(function)](*given))
                    case "BUILD":  # attributes, such as the `_metadata` of a state dict: not wanted
                        stack.pop()
                        _of(stack[-1], dict)
                    case "BINPERSID":
                        stack.append(persistent(stack.pop()))
                    case _:
                        raise StateFileError(f"it has the operation {name}")
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        struct.error,
    ) as error:
        if isinstance(error, StateFileError):
            raise
        raise StateFileError(f"it is malformed ({type(error).__name__}: {error})") from error
    raise StateFileError("it has no end")


def _of(value: object, kind: type) -> object:
    if not isinstance(value, kind):
        raise StateFileError(f"it has a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def write_pickle(value: object, tensor: Callable[[object], tuple[Global, tuple] | None]) -> bytes:
    """The value as a pickle of protocol 2.

    Args:
        tensor: for what is not plain data, the name of the function and the arguments that make it. `Persistent` among
            the arguments is a persistent id.
    """
    parts = [b"\x80\x02"]

    def put(item: object) -> None:
        if item is None or isinstance(item, bool):
            parts.append({None: b"N", True: b"\x88", False: b"\x89"}[item])
        elif isinstance(item, int):
            if -(2**31) <= item < 2**31:
                parts.append(b"J" + struct.pack("<i", item))
            else:
                raw = item.to_bytes(item.bit_length() // 8 + 1, "little", signed=True)
                parts.append(b"\x8a" + struct.pack("<B", len(raw)) + raw)
        elif isinstance(item, float):
            parts.append(b"G" + struct.pack(">d", item))
        elif isinstance(item, str):
            raw = item.encode("utf-8", "surrogatepass")
            parts.append(b"X" + struct.pack("<I", len(raw)) + raw)
        elif isinstance(item, Global):
            parts.append(f"c{item.module}\n{item.name}\n".encode())
        elif isinstance(item, Persistent):
            put(item.id)
            parts.append(b"Q")
        elif isinstance(item, tuple):
            parts.append(b"(")
            for each in item:
                put(each)
            parts.append(b"t")
        elif isinstance(item, list):
            parts.append(b"](")
            for each in item:
                put(each)
            parts.append(b"e")
        elif isinstance(item, Mapping):
            parts.append(b"}(")
            for key, each in item.items():
                put(key)
                put(each)
            parts.append(b"u")
        else:
            found = tensor(item)
            if found is None:
                raise StateFileError(f"save: got a {type(item).__name__}, want tensors and plain data")
            put(found[0])
            put(found[1])
            parts.append(b"R")

    put(value)
    return b"".join([*parts, b"."])


@dataclass(frozen=True, slots=True)
class Persistent:
    """A reference by an id to what stands outside of the pickle."""

    id: tuple
