"""Builds dataclasses out of plain JSON, checking every value against the annotations.

Understands what `messages.py` is written in: dataclasses, `tuple[X, ...]`, `dict[str, X]`,
`Literal` of strings, `X | None`, and int, float, str and bool. Knows neither bytes nor pipes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

Build = Callable[[Any], Any]


class WireError(Exception):
    """Bytes that are no message of the schema, or a message that cannot be sent."""


def builder(hint: object) -> Build:
    """The function from plain JSON to a value of type `hint`; it raises `WireError`."""
    if is_dataclass(hint):
        return _record(cast(type, hint))
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and arguments[1:] == (Ellipsis,):
        item = arguments[0]
        if item is float:
            return _numbers(hint)
        return _plain_items(hint, item) if item in (int, str) else _items(hint, builder(item))
    if origin is dict and arguments[0] is str:
        return _mapping(hint, builder(arguments[1]))
    if origin is Literal:
        return _literal(hint, frozenset(arguments))
    if origin in (Union, UnionType) and arguments[1:] == (NoneType,):
        inner = builder(arguments[0])
        return lambda value: None if value is None else inner(value)
    return _number if hint is float else _scalar(hint)


def mismatch(hint: object) -> WireError:
    """The error for a value that is no `hint`. The value stays out: it may be a client's."""
    return WireError(f"expected {getattr(hint, '__name__', hint)}")


def _record(kind: type) -> Build:
    hints = get_type_hints(kind)
    plan = [(field.name, builder(hints[field.name])) for field in fields(kind)]
    names = {name for name, _ in plan}

    def build(value: object) -> object:
        if type(value) is not dict or value.keys() != names:
            raise mismatch(kind)
        return kind(*[make(value[name]) for name, make in plan])

    return build


def _plain_items(hint: object, item: object) -> Build:
    """Token ids come by the thousand: their types are checked in one pass in C."""
    only = {item}

    def build(value: object) -> object:
        if type(value) is not list or not only.issuperset(map(type, value)):
            raise mismatch(hint)
        return tuple(value)

    return build


def _numbers(hint: object) -> Build:
    """Log-probabilities do, too. Finite floats, as they were written."""
    plain = _plain_items(hint, float)

    def build(value: object) -> object:
        numbers = plain(value)
        if not all(map(math.isfinite, numbers)):
            raise mismatch(float)
        return numbers

    return build


def _items(hint: object, make: Build) -> Build:
    def build(value: object) -> object:
        if type(value) is not list:
            raise mismatch(hint)
        return tuple([make(entry) for entry in value])

    return build


def _mapping(hint: object, make: Build) -> Build:
    def build(value: object) -> object:
        if type(value) is not dict:
            raise mismatch(hint)
        return {key: make(entry) for key, entry in value.items()}

    return build


def _literal(hint: object, allowed: frozenset[str]) -> Build:
    def build(value: object) -> object:
        if type(value) is not str or value not in allowed:
            raise mismatch(hint)
        return value

    return build


def _number(value: object) -> float | int:
    """A finite float; an int may stand where a float is due."""
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is not int:
        raise mismatch(float)
    return value


def _scalar(hint: object) -> Build:
    if hint not in (int, str, bool):
        raise TypeError(f"no wire form for {hint}")

    def build(value: object) -> object:
        if type(value) is not hint:  # not `isinstance`: a bool is no int here
            raise mismatch(hint)
        return value

    return build
