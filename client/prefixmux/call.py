"""A call of the contract as a value: what to send and how to read the answer.

Nothing here sends, waits or retries, so that any sender (blocking or not) shares it. A `Call`
names files by path: each attempt opens them anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeAlias, TypeVar

import httpx2
from pydantic import ValidationError

from prefixmux.answer import Wire
from prefixmux.errors import APIResponseError

T = TypeVar("T")
A = TypeVar("A", bound=Wire)

# Called with the bytes moved so far and how many there are; again from 0 when tried again.
Progress: TypeAlias = Callable[[int, int], None]


class Sink(Protocol):
    """Where a long answer goes piece by piece; `begin` again for each attempt."""

    def begin(self) -> None: ...

    def write(self, piece: bytes) -> None: ...


@dataclass(frozen=True)
class Call(Generic[T]):
    """`repeatable`: doing it twice is the same as once, so it may be sent again after any failure.

    `accept` lists error statuses whose body `parse` reads like a success. `progress` is told of
    `files`; the body of a success goes to `sink`, if there is one, instead of into memory.
    """

    method: str
    path: str
    parse: Callable[[httpx2.Response], T]
    json: object = None
    params: Mapping[str, str | int] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    progress: Progress | None = None
    sink: Sink | None = None
    repeatable: bool = False
    accept: frozenset[int] = frozenset()


def reading(answer: type[A]) -> Callable[[httpx2.Response], A]:
    """A `parse` for answers of one type."""

    def parse(response: httpx2.Response) -> A:
        request_id = response.headers.get("x-request-id")
        try:
            return answer.model_validate_json(response.content).named(request_id)
        except ValidationError as error:
            raise APIResponseError(
                f"{response.request.url.path} answered {response.status_code}, but not with a"
                f" {answer.__name__}; is it a prefixmux server of this version?"
            ) from error

    return parse


def given_params(**params: str | int | None) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value is not None}
