"""What the engine says of its own doings: starts, residency, silence."""

from __future__ import annotations

from support.engines import EngineParts, HeldExecutor
from support.faults import Clock
from support.tiny import Tiny, ask

from prefixmux_server.engine.messages import ResidencyChange, Started, StepOutput
from prefixmux_server.memory.select import LayoutName


def outputs(parts: EngineParts) -> list[StepOutput]:
    said = []
    while (output := parts.engine.step()) is not None:
        said.append(output)
    return said


def states(said: list[StepOutput]) -> list[tuple[str, str]]:
    changes: list[ResidencyChange] = [change for output in said for change in output.residency]
    return [(change.digest, change.state) for change in changes]


def test_nothing_to_do_is_nothing_to_say(tiny: Tiny, layout: LayoutName) -> None:
    parts = tiny.engine(layout)
    assert not parts.engine.has_work
    assert parts.engine.step() is None
    assert parts.engine.step() is None


def test_a_start_is_told_once_and_before_any_token(tiny: Tiny, layout: LayoutName) -> None:
    clock = Clock()
    parts = tiny.engine(layout, source=tiny.source(a=10, b=3), tokens=5, rows=1, clock=clock)
    parts.engine.submit(ask("one", "a", "b", tokens=12, new=3))
    parts.engine.submit(ask("two", new=1))
    parts.engine.submit(ask("lost", "missing"))
    clock.now += 4
    said = outputs(parts)
    started = [event for output in said for event in output.started]
    assert started == [
        Started("one", ("a", "b"), (10, 3), queue_s=4.0, prefix_load_s=4.0),
        Started("two", (), (), queue_s=4.0, prefix_load_s=0.0),
    ]
    first_told = next(n for n, output in enumerate(said) if output.started)
    first_token = next(n for n, output in enumerate(said) if output.deltas)
    assert first_told == 0
    assert first_token == 2


def test_residency_is_told_as_it_changes(tiny: Tiny) -> None:
    source = tiny.source(a=10, b=10)
    for layout, there in (("rows", "host"), ("slots", "device")):
        name: LayoutName = "rows" if layout == "rows" else "slots"
        parts = tiny.engine(name, source=source, host_bytes=tiny.bytes_of(10))
        parts.engine.submit(ask("one", "a", new=1))
        assert states(outputs(parts)) == [("a", there)]
        parts.engine.submit(ask("two", "b", new=1))
        assert states(outputs(parts)) == [("a", "disk"), ("b", there)]


def test_loaded_but_not_yet_seen_by_a_row(tiny: Tiny, layout: LayoutName) -> None:
    held = HeldExecutor()
    parts = tiny.engine(layout, source=tiny.source(a=10), executor=held, rows=1)
    parts.engine.submit(ask("one", new=3))
    parts.engine.submit(ask("two", "a"))
    parts.engine.step()
    held.run_all()
    output = parts.engine.step()
    assert output is not None
    assert states([output]) == [("a", "host")]


def test_a_failed_prefix_is_on_disk_at_best(tiny: Tiny, layout: LayoutName) -> None:
    parts = tiny.engine(layout)
    parts.engine.submit(ask("one", "missing"))
    assert {state for _, state in states(outputs(parts))} <= {"disk"}
