"""JSON as the file format allows it: stricter than Python's reader.

Refused beyond malformed text: duplicate keys, NaN and Infinity (also numbers too large for a
float), minus zero as an integer, a byte order mark, lone surrogates, deep nesting.
"""

from __future__ import annotations

import json
import math
from typing import NoReturn


class DuplicateKeyError(ValueError):
    """An object names a key twice; parsers disagree on which one counts."""


def loads(raw: bytes) -> object:
    """Raises `DuplicateKeyError`, or plain `ValueError` for everything else."""
    text = raw.decode("utf-8")
    try:
        value: object = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse,
            parse_int=_integer,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\u" in text:
        # Only an escape can smuggle a lone surrogate past the UTF-8 decoder.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def dumps(value: object) -> str:
    """Canonical: sorted keys, no blanks, ASCII only. What `loads` refuses is for it to refuse."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise DuplicateKeyError
    return result


def _refuse(literal: str) -> NoReturn:
    raise ValueError(literal)


def _integer(text: str) -> int:
    if text == "-0":
        raise ValueError(text)
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
