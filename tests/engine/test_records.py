"""What a step's record says of memory and time."""

from __future__ import annotations

from support.engines import TENANT, Answers, answer
from support.faults import Clock, Passes
from support.tiny import Tiny, ask

from prefixmux_server.engine.messages import Pin
from prefixmux_server.memory.select import LayoutName


class Slow(Passes):
    """Each pass takes two seconds of the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def before_forward(self, ids: object) -> None:
        self.clock.now += 2.0


def test_they_follow_each_other_in_time(tiny: Tiny, layout: LayoutName) -> None:
    clock = Clock()
    parts = tiny.engine(layout, clock=clock, failpoints=Slow(clock))
    begun = clock.now
    records = answer(parts.engine, [ask("one", new=4)]).records
    assert [record.seconds for record in records] == [2.0] * 4
    assert [record.started for record in records] == [begun + 2.0 * n for n in range(4)]


def test_they_tell_what_is_taken_of_memory(tiny: Tiny, layout: LayoutName) -> None:
    parts = tiny.engine(layout, source=tiny.source(a=10, b=7))
    requests = [ask("one", "a", tokens=6, new=5), ask("two", "a", tokens=2, new=9)]
    first = answer(parts.engine, requests).records[0]
    # Rows are as long as what they may hold, in steps of 64; slots are counted one by one, and
    # what both see is there once. The last token's KV is never stored.
    assert first.kv_tokens == (2 * 64 if layout == "rows" else 10 + 10 + 10)
    assert first.host_bytes == tiny.bytes_of(10)
    assert first.device_bytes == (tiny.bytes_of(10) if layout == "slots" else 0)
    parts.engine.pin(Pin(TENANT, "b", True))
    answers = Answers()
    while parts.engine.has_work:
        answers.step(parts.engine)
    (later,) = answer(parts.engine, [ask("bare", new=1)]).records
    assert later.host_bytes == tiny.bytes_of(17)
    assert later.kv_tokens == (64 if layout == "rows" else 17 + 6)


def test_memory_in_use_is_what_cannot_be_had(tiny: Tiny, layout: LayoutName) -> None:
    memory = tiny.engine(layout, capacity=256).layout
    assert memory.used_tokens == 0
    decoder = memory.layouts["decoder"]
    leases = [lease for tokens in (1, 64, 100) if (lease := decoder.admit((), tokens)) is not None]
    assert len(leases) == 3
    free = memory.capacity_tokens - memory.used_tokens
    assert decoder.admit((), free + 1) is None
    for lease in leases:
        decoder.release(lease)
    assert memory.used_tokens == 0
