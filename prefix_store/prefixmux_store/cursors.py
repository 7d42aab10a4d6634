"""Opaque cursors of listings: where the next page begins."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from prefixmux_store.errors import InvalidCursor, InvalidRequest
from prefixmux_store.names import is_name
from prefixmux_store.types import Page

T = TypeVar("T")

LARGEST_LIMIT = 500


def check_limit(limit: int) -> int:
    if not 1 <= limit <= LARGEST_LIMIT:
        raise InvalidRequest(f"limit has to be 1 to {LARGEST_LIMIT}.", param="limit")
    return limit


def page(found: Sequence[T], limit: int, key: Callable[[T], str]) -> Page[T]:
    """`found` holds one item more than `limit` if there is a next page."""
    items = tuple(found[:limit])
    more = len(found) > limit
    return Page(items, _encode(key(items[-1])) if more else None)


def after_task(cursor: str | None) -> str:
    """The task_id that the page comes after; "" is before all."""
    if cursor is None:
        return ""
    text = _decode(cursor)
    if not is_name(text):
        raise InvalidCursor
    return text


def after_version(cursor: str | None) -> int:
    if cursor is None:
        return 0
    text = _decode(cursor)
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InvalidCursor
    return int(text)


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("ascii")).decode("ascii").rstrip("=")


def _decode(cursor: str) -> str:
    try:
        raw = cursor.encode("ascii")
        padded = raw + b"=" * (-len(raw) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeError):
        raise InvalidCursor from None
