"""What a tenant that floods the server costs the others.

    python -m bench.fairness [--tenants 15] [--flood 20] [--load 0.5] [--seconds 20] [--rows 16]
                             [--rounds 3]

First the server's capacity is measured. Then the normal tenants together ask for `load` of it,
each at moments of its own, alone and beside a flooder that asks `flood` times as often
as one of them. What is compared is how long each waits for its answers.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.callers import Call, Callers, Load, percentile, served
from bench.neighbours import Neighbours

FLOODER = "flooder"
WARM_SECONDS = 1.0
# Answers of one length would all end, and free their rows, at the same moments.
LOAD = Load(new_tokens=32, spread=24)


def of(calls: Sequence[Call], who: str) -> list[float]:
    """Seconds of the answers that a tenant got once the run was under way."""
    return [
        call.seconds
        for call in calls
        if call.who == who and call.status == 200 and call.began > WARM_SECONDS
    ]


def table(alone: Sequence[Call], beside: Sequence[Call], tenants: Sequence[str]) -> list[str]:
    """A line for each tenant, milliseconds."""
    lines = [f"{'ms':12}{'requests':>9}{'p50':>9}{'beside':>9}{'p99':>9}{'beside':>9}   ratio"]
    for name in tenants:
        pair = [of(calls, name) for calls in (alone, beside)]
        halves = [percentile(seconds, 0.5) * 1e3 for seconds in pair]
        worst = [percentile(seconds, 0.99) * 1e3 for seconds in pair]
        cells = "".join(f"{value:9.1f}" for value in (*halves, *worst))
        lines.append(f"{name:12}{len(pair[0]):9}{cells}   {worst[1] / worst[0]:5.2f}")
    every = [[s for name in tenants for s in of(calls, name)] for calls in (alone, beside)]
    ratio = percentile(every[1], 0.99) / percentile(every[0], 0.99)
    lines.append(f"all normal tenants together: p99 ratio {ratio:.2f}")
    return lines


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.fairness")
    parser.add_argument("--tenants", type=int, default=15)
    parser.add_argument("--flood", type=float, default=20.0)
    parser.add_argument("--load", type=float, default=0.5, help="Of the capacity.")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    asked = _parsed(arguments)
    tenants = [f"normal-{number:02}" for number in range(asked.tenants)]
    flags = ("--max-batch-rows", str(asked.rows), "--max-waiting", str(4 * asked.rows))
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder), [*tenants, FLOODER], *flags) as (url, keys),
    ):
        callers = Callers(url, LOAD, keys)
        callers.capacity(FLOODER, asked.rows, WARM_SECONDS)
        capacity = callers.capacity(FLOODER, 2 * asked.rows, min(5.0, asked.seconds))
        rate = asked.load * capacity / asked.tenants
        rates = dict.fromkeys(tenants, rate)
        print(
            f"capacity {capacity:.0f} requests/s; {rate:.2f}/s each, the flooder {asked.flood:g}x"
        )
        alone: list[Call] = []
        beside: list[Call] = []
        neighbours = Neighbours()
        for seed in range(asked.rounds):  # in turn, so that a slow minute hits both
            alone += callers.run(rates, asked.seconds, seed)
            beside += callers.run({**rates, FLOODER: asked.flood * rate}, asked.seconds, seed)
        print("\n".join(table(alone, beside, tenants)))
        flooder = [call for call in beside if call.who == FLOODER]
        normal = [call for call in (*alone, *beside) if call.who != FLOODER]
        print(
            f"flooder: {sum(call.status == 200 for call in flooder)} answered,"
            f" {sum(call.status == 429 for call in flooder)} refused of {len(flooder)};"
            f" others not answered: {sum(call.status != 200 for call in normal)} of {len(normal)}"
        )
        print(neighbours.words)


if __name__ == "__main__":
    main()
