"""Numbers as people read them."""

from __future__ import annotations

import time

_STEPS = ((60, "second"), (60, "minute"), (24, "hour"), (365, "day"))


def size(count: int) -> str:
    """Bytes in binary units, to three digits."""
    number = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1000:
            return f"{count} B" if unit == "B" else f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} TiB"


def ago(then: float, now: float | None = None) -> str:
    """Unix seconds as a time that has passed."""
    passed = int((time.time() if now is None else now) - then)
    if passed < 5:
        return "just now"
    for length, unit in _STEPS:
        if passed < length:
            return f"{_counted(passed, unit)} ago"
        passed //= length
    return f"{_counted(passed, 'year')} ago"


def seconds(duration: float | None) -> str | None:
    """To the microsecond where that says something."""
    if duration is None:
        return None
    return f"{duration:.3g} s" if duration >= 1 else f"{duration * 1000:.3g} ms"


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}" + ("" if count == 1 else "s")
