"""Options that several commands share, written once as a dataclass.

A parameter of a command whose type is a dataclass stands for one option for each field; they come
last in the command's help.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from typing import Any, cast


def command(run: Callable[..., None]) -> Callable[..., None]:
    """`run` as typer takes it, with the fields of its dataclasses as options of their own."""
    signature = inspect.signature(run, eval_str=True)
    groups = {
        name: _fields(parameter.annotation)
        for name, parameter in signature.parameters.items()
        if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation)
    }
    if not groups:
        return run

    @wraps(run)
    def ungrouped(**given: object) -> None:
        for name, fields in groups.items():
            kind = signature.parameters[name].annotation
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields})
        run(**given)

    flat = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in signature.parameters.items()
        if name not in groups
    ]
    flat += [field for fields in groups.values() for field in fields]
    cast("Any", ungrouped).__signature__ = inspect.Signature(flat)
    ungrouped.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return ungrouped


def _fields(kind: type) -> list[inspect.Parameter]:
    fields = inspect.signature(kind, eval_str=True).parameters.values()
    return [field.replace(kind=inspect.Parameter.KEYWORD_ONLY) for field in fields]
