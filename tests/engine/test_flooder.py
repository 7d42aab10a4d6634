"""One tenant that asks twenty times as much as each of fifteen others, on a real engine.

Time is counted in steps, so that the machine's speed says nothing. What the others wait is compared
with the same run without it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from statistics import mean

import pytest
from support.engines import EngineParts
from support.tiny import Tiny, ask

from prefixmux_server.engine.messages import Submit

ROWS = 16
EVERY = 12  # steps between two requests of a normal tenant, on average
FLOOD = 20
NORMAL = [f"normal-{number}" for number in range(15)]
FLOODER = "flooder"
PREFIXES = {"e2e": 5, "dart": 9}


@dataclass(frozen=True)
class Arrival:
    """`tenant` is who asks, whoever pays."""

    step: int
    tenant: str
    tokens: int
    new: int
    prefix: str


def arrivals(tenant: str, steps: int, every: float) -> Iterator[Arrival]:
    """The same for the same tenant, whoever else there is."""
    chance = random.Random(tenant)
    at = chance.uniform(0, every)
    while at < steps:
        prefix = chance.choice(sorted(PREFIXES))
        yield Arrival(int(at), tenant, chance.randint(4, 12), chance.randint(4, 12), prefix)
        at += every * chance.uniform(0.5, 1.5)


@dataclass
class Play:
    """Latencies in steps by who asked; `rows` of each step."""

    latencies: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    rows: list[int] = field(default_factory=list)

    def run(self, parts: EngineParts, told: list[Arrival], payer: str | None, steps: int) -> Play:
        """`payer` None: each pays for itself."""
        came: dict[str, Arrival] = {}
        told = sorted(told, key=lambda arrival: arrival.step)
        for step in range(steps):
            while told and told[0].step <= step:
                arrival = told.pop(0)
                request = submitted(arrival, payer or arrival.tenant, len(came))
                came[request.id] = arrival
                parts.engine.submit(request)
            output = parts.engine.step()
            if output is None:
                continue
            self.rows.append(len(output.record.rows) if output.record else 0)
            for finished in output.finished:
                assert finished.error is None
                arrival = came.pop(finished.id)
                self.latencies[arrival.tenant].append(step + 1 - arrival.step)
        assert all(arrival.tenant == FLOODER or payer for arrival in came.values())
        return self

    def p99(self, *tenants: str) -> int:
        """Of all requests of these together."""
        found = sorted(steps for tenant in tenants for steps in self.latencies[tenant])
        return found[ceil(0.99 * len(found)) - 1]


def submitted(arrival: Arrival, payer: str, number: int) -> Submit:
    return ask(
        f"{arrival.tenant}-{arrival.step}-{number}-{arrival.new}",
        arrival.prefix,
        tokens=arrival.tokens,
        new=arrival.new,
        tenant=payer,
    )


def play(tiny: Tiny, steps: int, *, flooded: bool, payer: str | None = None) -> Play:
    source = tiny.source()
    for tenant in (*NORMAL, FLOODER):
        for digest, tokens in PREFIXES.items():
            source.add(digest, tiny.prefix(tokens), tenant=tenant)
    parts = tiny.engine("rows", source=source, rows=ROWS)
    calm = steps - 4 * EVERY  # so that all who waited fairly are answered at the end
    told = [arrival for tenant in NORMAL for arrival in arrivals(tenant, calm, EVERY)]
    if flooded:
        told += arrivals(FLOODER, steps, EVERY / FLOOD)
    return Play().run(parts, told, payer, steps)


def assert_filled(beside: Play) -> None:
    """Nothing is kept free for anybody: once it has begun, the flooder fills what others leave."""
    begun = beside.rows[EVERY:]
    assert sum(begun) / len(begun) >= 0.98 * ROWS
    assert len(beside.latencies[FLOODER]) > 5 * len(beside.latencies[NORMAL[0]])


def test_a_flooder_slows_nobody_else_much(tiny: Tiny) -> None:
    """Too few requests of each for a percentile of its own: of all together, and means."""
    alone, beside = (play(tiny, 360, flooded=flooded) for flooded in (False, True))
    assert beside.p99(*NORMAL) <= 1.5 * alone.p99(*NORMAL)
    for tenant in NORMAL:
        assert len(alone.latencies[tenant]) == len(beside.latencies[tenant]) > 20
        assert mean(beside.latencies[tenant]) <= 1.5 * mean(alone.latencies[tenant])
    assert_filled(beside)


@pytest.mark.long
def test_nobody_is_slowed_much_in_a_long_run(tiny: Tiny) -> None:
    alone, beside = (play(tiny, 4000, flooded=flooded) for flooded in (False, True))
    ratios = {tenant: beside.p99(tenant) / alone.p99(tenant) for tenant in NORMAL}
    assert max(ratios.values()) <= 1.5, ratios
    assert_filled(beside)


def test_without_shares_all_would_be_slow(tiny: Tiny) -> None:
    """As if all were one tenant: what the tests above measure is there to be seen."""
    alone = play(tiny, 240, flooded=False)
    mixed = play(tiny, 240, flooded=True, payer=NORMAL[0])
    assert mixed.p99(*NORMAL) > 3 * alone.p99(*NORMAL)
