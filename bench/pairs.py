"""The same asked of two subjects in turn, so that a slow minute of the machine hits both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True)
class Operation:
    """`work` is timed, with the number of its turn; `undo` comes after it and is not. `most` is
    how often it can be repeated."""

    work: Callable[[int], object]
    undo: Callable[[int], object] = lambda _: None
    most: int | None = None


def compared(
    few: Mapping[str, Operation], many: Mapping[str, Operation], repeats: int
) -> Iterator[tuple[str, list[list[float]]]]:
    """Names, and seconds on the two."""
    for name, operation in few.items():
        pair = (operation, many[name])
        times: list[list[float]] = [[], []]
        for at in range(min(repeats, operation.most or repeats)):
            # The order turns around, so that neither always follows the other.
            for which in (0, 1) if at % 2 else (1, 0):
                start = time.perf_counter()
                pair[which].work(at)
                times[which].append(time.perf_counter() - start)
                pair[which].undo(at)
        yield name, times


def table(
    sizes: tuple[int, int],
    few: Mapping[str, Operation],
    many: Mapping[str, Operation],
    repeats: int,
) -> Iterator[str]:
    """A line for each operation, when it has been measured."""
    yield f"{'ms, median (quartile)':26}{sizes[0]:>18}{sizes[1]:>18}   ratio"
    for name, times in compared(few, many, repeats):
        cells = [f"{median(t) * 1e3:8.3f} ({quantiles(t)[0] * 1e3:7.3f})" for t in times]
        yield f"{name:26}{cells[0]}{cells[1]}   {median(times[1]) / median(times[0]):5.2f}"
