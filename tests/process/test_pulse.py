"""What the engine process says of itself while it works."""

from __future__ import annotations

import threading

from support.faults import Clock

from prefixmux_server.engine.messages import Alive
from prefixmux_server.engine.pipes.pulse import Pulse


def test_it_says_for_how_long_it_has_been_at_one_piece_of_work() -> None:
    said: list[Alive] = []
    clock = Clock()
    pulse = Pulse(said.append, clock)
    pulse.beat()
    pulse.work()
    clock.now += 2.0
    pulse.beat()
    pulse.work()
    clock.now += 0.5
    pulse.beat()
    pulse.rest()
    pulse.beat()
    assert said == [Alive(0.0), Alive(2.0), Alive(0.5), Alive(0.0)]


def test_it_beats_though_the_worker_does_not_move() -> None:
    """And ends with its pipe."""
    beats: list[Alive] = []
    ended = threading.Event()

    def send(alive: Alive) -> None:
        beats.append(alive)
        if len(beats) == 3:
            ended.set()
            raise SystemExit(1)

    pulse = Pulse(send)
    pulse.work()
    pulse.start(0.001)
    assert ended.wait(10)
    assert [alive.busy for alive in beats] == sorted(alive.busy for alive in beats)
