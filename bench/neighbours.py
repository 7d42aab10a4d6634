"""How much of the machine other processes used while we measured: the honest kind of noise.

Reads /proc; where there is none, nothing is said.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

_PROC = Path("/proc")


class Neighbours:
    """Watches from its creation on. CPU times are in clock ticks of all CPUs together."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._others_before = _ticks_of_others()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def words(self) -> str:
        share = self.share()
        known = "an unknown share" if share is None else f"{share:.0%}"
        return f"other processes used {known} of the machine meanwhile"

    def share(self) -> float | None:
        """CPU time used by processes that are not ours, of all there was; None: not known."""
        now, before = _ticks_of_others(), self._others_before
        if now is None or before is None:
            return None
        ticks = self.seconds * (os.cpu_count() or 1) * os.sysconf("SC_CLK_TCK")
        return max(0.0, (now - before) / ticks)


def _ticks_of_others() -> int | None:
    if not (_PROC / "stat").exists():
        return None
    user, nice, system, _, _, irq, softirq, steal = _numbers(_PROC / "stat")[:8]
    return user + nice + system + irq + softirq + steal - sum(map(_ticks, _family()))


def _family() -> list[int]:
    """This process and all that descend from it."""
    parents = {int(p.name): _parent(int(p.name)) for p in _PROC.iterdir() if p.name.isdigit()}
    family = [os.getpid()]
    for pid in family:  # grows while it is walked
        family += [child for child, parent in parents.items() if parent == pid]
    return family


def _fields(pid: int) -> list[str]:
    """After the name, which may hold blanks; empty once the process is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _parent(pid: int) -> int:
    fields = _fields(pid)
    return int(fields[1]) if fields else 0


def _ticks(pid: int) -> int:
    """User and system time of the process and of its children that have ended."""
    fields = _fields(pid)
    return sum(map(int, fields[11:15])) if fields else 0


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.read_text().splitlines()[0])]
