"""Prefixes that stay loaded because somebody said so, in an engine at work and in an idle one."""

from __future__ import annotations

import logging

import pytest
from support.checks import check_texts
from support.engines import TENANT, Answers, EngineParts, HeldExecutor, answer
from support.tiny import Tiny, ask

from prefixmux_server.engine.messages import Pin, ResidencyChange
from prefixmux_server.memory.entries import State
from prefixmux_server.memory.host import MAX_LOADS
from prefixmux_server.memory.prefix import PrefixKey
from prefixmux_server.memory.select import LayoutName


def pin(parts: EngineParts, digest: str, *, pinned: bool = True) -> None:
    parts.engine.pin(Pin(TENANT, digest, pinned))


def settle(parts: EngineParts) -> list[ResidencyChange]:
    """Step until there is nothing left to do, as the process does."""
    changes: list[ResidencyChange] = []
    for _ in range(100):
        if not parts.engine.has_work:
            return changes
        output = parts.engine.step()
        parts.engine.check_integrity()
        changes += output.residency if output is not None else ()
    raise AssertionError("an idle engine finds no rest")


def state(parts: EngineParts, digest: str) -> State | None:
    return parts.residency.state(PrefixKey(TENANT, digest))


def test_an_idle_engine_loads_it_and_says_so(tiny: Tiny, layout: LayoutName) -> None:
    parts = tiny.engine(layout, source=tiny.source(a=10))
    pin(parts, "a")
    assert parts.engine.has_work
    (change,) = settle(parts)
    assert change == ResidencyChange(TENANT, "a", "device" if layout == "slots" else "host")
    request = ask("late", "a")
    check_texts(tiny, parts, answer(parts.engine, [request]), [request])
    assert len(parts.source.loads) == 1


def test_it_outlives_any_number_of_others(tiny: Tiny, layout: LayoutName) -> None:
    lengths = {f"task{n}": 10 for n in range(12)}
    source = tiny.source(a=10, **lengths)
    parts = tiny.engine(layout, source=source, host_bytes=tiny.bytes_of(30))
    pin(parts, "a")
    settle(parts)
    requests = [ask(f"{n}", f"task{n % 12}", new=3) for n in range(36)]
    answers = Answers()
    for request in requests:
        parts.engine.submit(request)
    while parts.engine.has_work:
        answers.step(parts.engine)
        assert state(parts, "a") is not None
    check_texts(tiny, parts, answers, requests)
    assert [key.digest for key in parts.source.loads].count("a") == 1


def test_unpinned_it_goes_like_any_other(tiny: Tiny, layout: LayoutName) -> None:
    parts = tiny.engine(layout, source=tiny.source(a=10, b=10), host_bytes=tiny.bytes_of(19))
    pin(parts, "a", pinned=False)
    pin(parts, "a")
    pin(parts, "a")
    settle(parts)
    for _ in range(2):
        pin(parts, "a", pinned=False)
    settle(parts)
    answer(parts.engine, [ask("b", "b")])
    assert state(parts, "a") is None


def test_a_request_that_needs_all_memory_is_served_and_it_comes_back(
    tiny: Tiny, layout: LayoutName
) -> None:
    """Half of the memory may be kept; a prefix larger than the other half still finds room."""
    source = tiny.source(a=10, b=10, large=39)
    parts = tiny.engine(layout, source=source, host_bytes=tiny.bytes_of(40))
    for digest in "ab":
        pin(parts, digest)
    settle(parts)
    requests = [ask("one", "large"), ask("two", "a"), ask("three", "large"), ask("four", "b")]
    check_texts(tiny, parts, answer(parts.engine, requests), requests)
    settle(parts)
    assert state(parts, "a") is not None
    assert state(parts, "b") is not None


def test_pins_of_more_than_there_is_block_nobody(tiny: Tiny, layout: LayoutName) -> None:
    names = [f"pinned{n}" for n in range(20)]
    source = tiny.source(other=10, **dict.fromkeys(names, 10))
    parts = tiny.engine(layout, source=source, host_bytes=tiny.bytes_of(40))
    for name in names:
        pin(parts, name)
    settle(parts)
    assert sum(state(parts, name) is not None for name in names) == 2
    requests = [ask(f"{n}", "other", new=2) for n in range(4)] + [ask("x", "pinned19", "pinned3")]
    check_texts(tiny, parts, answer(parts.engine, requests), requests)


def test_what_does_not_exist_or_is_too_large_harms_nobody(
    tiny: Tiny, layout: LayoutName, caplog: pytest.LogCaptureFixture
) -> None:
    source = tiny.source(a=10, large=30)
    parts = tiny.engine(layout, source=source, host_bytes=tiny.bytes_of(40))
    caplog.set_level(logging.WARNING)
    for digest in ("missing", "large", "a"):
        pin(parts, digest)
    settle(parts)
    assert state(parts, "missing") is state(parts, "large") is None
    assert state(parts, "a") is not None
    assert caplog.text.count("not kept") == 2
    requests = [ask("a", "a"), ask("large", "large")]
    check_texts(tiny, parts, answer(parts.engine, requests), requests)


def test_many_pins_leave_the_loader_to_requests(tiny: Tiny, layout: LayoutName) -> None:
    held = HeldExecutor()
    names = [f"pinned{n}" for n in range(50)]
    source = tiny.source(a=10, **dict.fromkeys(names, 1))
    parts = tiny.engine(layout, source=source, executor=held)
    for name in names:
        pin(parts, name)
    parts.engine.step()
    assert len(held.held) <= MAX_LOADS // 2
    parts.engine.submit(ask("a", "a"))
    assert parts.residency.state(PrefixKey(TENANT, "a")) is State.LOADING
    held.run_all()
    answers = Answers()
    answers.step(parts.engine)
    assert answers.tokens["a"]


def test_an_aborted_request_s_load_is_kept_if_it_is_pinned(tiny: Tiny, layout: LayoutName) -> None:
    """Nobody waits for it any more, and an idle engine still takes it in."""
    held = HeldExecutor()
    parts = tiny.engine(layout, source=tiny.source(a=10), executor=held)
    parts.engine.submit(ask("gone", "a"))
    pin(parts, "a")
    parts.engine.step()
    parts.engine.abort("gone")
    assert parts.engine.has_work
    held.run_all()
    assert [change.digest for change in settle(parts)] == ["a"]


def test_kv_memory_is_never_short_because_of_pins(tiny: Tiny) -> None:
    """On the device they take what nobody uses, and give it back."""
    parts = tiny.engine("slots", source=tiny.source(a=30, b=30), capacity=96)
    for digest in "ab":
        pin(parts, digest)
    settle(parts)
    assert {state(parts, digest) for digest in "ab"} == {State.DEVICE}
    whole = ask("whole", tokens=90, new=7)
    check_texts(tiny, parts, answer(parts.engine, [whole]), [whole])
    assert {state(parts, digest) for digest in "ab"} == {State.HOST}
