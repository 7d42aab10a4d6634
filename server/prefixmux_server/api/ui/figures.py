"""Figures, times and values as people read them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from markupsafe import Markup

UNITS = ("B", "kB", "MB", "GB", "TB")


def size(number: int) -> str:
    """Of bytes: `512 B`, `1.5 kB`, `12 MB`; three digits at most."""
    value, unit = float(number), 0
    while value >= 999.5 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    digits = 0 if value >= 9.95 or not unit else 1
    return f"{value:.{digits}f} {UNITS[unit]}"


def count(number: int) -> str:
    """With thin spaces between thousands."""
    return f"{number:,}".replace(",", "\u202f")


def moment(seconds: float) -> Markup:
    """A time since 1970, to the minute, in UTC."""
    at = datetime.fromtimestamp(seconds, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        at.isoformat(timespec="seconds"), at.strftime("%Y-%m-%d %H:%M")
    )


def as_json(value: object) -> str:
    """To be escaped as any text is."""
    return json.dumps(value, ensure_ascii=False)
