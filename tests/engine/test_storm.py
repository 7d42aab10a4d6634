"""Requests of every kind that come and go at random, in memory for a few of them.

Searches, infixes, encoders and virtual tokens beside plain rows; loads end when they will, passes
fail now and then, and whoever is left is answered as if alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from engine.twin import Twin, check_answers, check_unused
from support.engines import Answers, HeldExecutor
from support.faults import Passes

from prefixmux_server.engine.messages import Submit
from prefixmux_server.engine.params import BeamParams
from prefixmux_server.memory.select import LayoutName

REQUESTS = 30


class Faulty(Passes):
    """One pass in twelve raises; what is alone in its pass is spared."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng

    def before_forward(self, ids: Sequence[str]) -> None:
        super().before_forward(ids)
        if len(set(ids)) > 1 and self.rng.random() < 1 / 12:
            raise RuntimeError("a fault that the test planted")


@dataclass
class Storm:
    """`rng` decides everything: limits, order, loads, faults, and who leaves."""

    twin: Twin
    layout: LayoutName
    rng: random.Random
    asked: dict[str, Submit] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    answers: Answers = field(default_factory=Answers)

    def run(self) -> None:
        rng, loads, pool = self.rng, HeldExecutor(), questions(self.twin)
        parts = self.twin.engine(
            self.layout,
            rows=rng.choice((4, 6, 20)),
            tokens=rng.choice((4, 9, 40, 2048)),
            capacity=rng.choice((256, 320, 2048)),
            executor=loads,
            failpoints=Faulty(rng),
        )
        while len(self.asked) < REQUESTS or parts.engine.has_work:
            for _ in range(min(rng.randrange(4), REQUESTS - len(self.asked))):
                name = f"r{len(self.asked)}"
                self.asked[name] = replace(rng.choice(pool), id=name)
                parts.engine.submit(self.asked[name])
            if rng.random() < 0.6:
                loads.run_all()
            self.answers.step(parts.engine)
            if self._open() and len(self.gone) < REQUESTS // 4 and rng.random() < 0.1:
                name = rng.choice(self._open())
                parts.engine.abort(name)
                self.gone.add(name)
        check_unused(parts)

    def check(self) -> None:
        stayed = [request for name, request in self.asked.items() if name not in self.gone]
        check_answers(self.twin, self.answers, stayed)
        for name in self.gone - {name for name in self.gone if self.asked[name].sampling.beams}:
            made = self.answers.tokens.get(name, [])
            assert made == self.twin.expected(self.asked[name])[: len(made)]

    def _open(self) -> list[str]:
        return [n for n in self.asked if n not in self.answers.finished and n not in self.gone]


def questions(twin: Twin) -> list[Submit]:
    """The same every time, so that each truth is found once. All fit the smallest memory."""
    names = sorted(twin.pieces)
    chains = [(), (), *((name,) for name in names), (names[0], names[-1])]
    plain = [
        twin.ask(f"p{n}", *chain, tokens=(3, 17, 40)[n % 3], more=1 + n % 3, new=3 + n % 4)
        for n, chain in enumerate(chains)
    ]
    wide = [BeamParams(width, num_return=width) for width in (2, 4)]
    searching = [
        twin.ask(f"b{n}", *chain, tokens=5, new=3, beams=wide[n % 2])
        for n, chain in enumerate(chains[1::2])
    ]
    return [*plain, *searching]


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes(
    request: pytest.FixtureRequest, layout: LayoutName, family: str, seed: int
) -> None:
    storm = Storm(request.getfixturevalue(family), layout, random.Random(f"{family} {seed}"))
    storm.run()
    storm.check()


@pytest.mark.long
@pytest.mark.parametrize("family", ["causal", "seq2seq"])
@pytest.mark.parametrize("seed", range(100, 300))
def test_whatever_comes_for_longer(
    request: pytest.FixtureRequest, layout: LayoutName, family: str, seed: int
) -> None:
    test_whatever_comes(request, layout, family, seed)
