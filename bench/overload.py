"""What a server does that is asked for more than it can do.

    python -m bench.overload [--factors 0.5,1,2,5,10] [--seconds 8] [--rows 16] [--waiting 32]

The server's capacity is measured first; then it is asked for multiples of it, at random moments
that do not wait for answers. Every request has to be answered or refused; none may hang.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.callers import Call, Callers, Load, percentile, served
from bench.lag import lags, quantile
from bench.neighbours import Neighbours

WHO = "default"
WARM_SECONDS = 1.0


@dataclass(frozen=True)
class Outcome:
    """Of one load: `factor` times the capacity, for so many seconds."""

    factor: float
    calls: Sequence[Call]
    seconds: float

    def of(self, *statuses: int) -> list[float]:
        return [call.seconds for call in self.calls if call.status in statuses]

    @property
    def goodput(self) -> float:
        return len(self.of(200)) / self.seconds

    @property
    def settled(self) -> float:
        """Share of the requests that were answered, refused, or ended at their own time limit."""
        return len(self.of(200, 429, 503, 504)) / len(self.calls) if self.calls else 1.0


def table(outcomes: Sequence[Outcome]) -> list[str]:
    peak = max(outcome.goodput for outcome in outcomes)
    lines = [
        f"{'load':>6}{'requests':>10}{'answered':>10}{'refused':>9}{'other':>7}{'no answer':>11}"
        f"{'settled':>9}{'answer p99':>12}{'refusal p99':>13}{'goodput':>9}{'of peak':>9}"
    ]
    for one in outcomes:
        answered, refused, lost = (len(one.of(status)) for status in (200, 429, 0))
        other = len(one.calls) - answered - refused - lost
        lines.append(
            f"{one.factor:5g}x{len(one.calls):10}{answered:10}{refused:9}{other:7}{lost:11}"
            f"{one.settled:9.2%}{percentile(one.of(200), 0.99) * 1e3:9.0f} ms"
            f"{percentile(one.of(429), 0.99) * 1e3:10.1f} ms{one.goodput:9.1f}"
            f"{one.goodput / peak:9.2f}"
        )
    return lines


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.overload")
    parser.add_argument("--factors", default="0.5,1,2,5,10")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--waiting", type=int, default=32)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    asked = _parsed(arguments)
    flags = ("--max-batch-rows", str(asked.rows), "--max-waiting", str(asked.waiting))
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder), [WHO], *flags, "--max-connections", "8192") as (url, keys),
    ):
        callers = Callers(url, Load(new_tokens=32), keys)
        callers.capacity(WHO, asked.rows, WARM_SECONDS)
        capacity = callers.capacity(WHO, 2 * asked.rows, min(5.0, asked.seconds))
        print(f"capacity {capacity:.1f} requests/s")
        outcomes, neighbours = [], Neighbours()
        for factor in map(float, asked.factors.split(",")):
            began, cpu = time.perf_counter(), time.process_time()
            calls = callers.run({WHO: factor * capacity}, asked.seconds)
            seconds = time.perf_counter() - began
            outcomes.append(Outcome(factor, calls, seconds))
            share = (time.process_time() - cpu) / seconds
            print(f"{factor:g}x: load generator, share of one core {share:.2f}")
        print("\n".join(table(outcomes)))
        print(f"event loop lag, p99 <= {quantile(lags(url), 0.99, {}) * 1e3:g} ms")
        print(neighbours.words)


if __name__ == "__main__":
    main()
