"""Where requests' time went, from what the engine told of each step."""

from __future__ import annotations

import gc
from dataclasses import replace
from time import process_time

import pytest
from service.outcomes import finished, outcome, row, started, step

from prefixmux_server.errors import NotFound
from prefixmux_server.service.telemetry.flight import Flight
from prefixmux_server.service.telemetry.timeline import Timelines


def flown(timelines: Timelines) -> Flight:
    flight = Flight([timelines.ended])
    flight.begin("one", "default", "e2e")
    flight.begin("two", "default", None)
    flight.begin("three", "other", "e2e")
    return flight


def test_a_requests_phases_are_those_of_its_own_rows() -> None:
    timelines = Timelines()
    flight = flown(timelines)
    flight.observe(started("one", "two"))
    flight.observe(step(1, row("one", 4), row("two")))
    flight.observe(step(2, row("one", 3), row("two"), row("three")))
    flight.observe(step(3, row("two")))
    flight.observe(step(4, row("one"), row("one"), row("three"), row("probe_x")))
    flight.finished(outcome("one", seconds=9.0))
    found = timelines.find("default", "one")
    assert (found.prefill.steps, found.prefill.tokens) == (2, 7)
    assert found.prefill.seconds == pytest.approx(1.1)
    assert found.prefill.step_seconds == pytest.approx(0.2)
    assert (found.prefill.rows.min, found.prefill.rows.mean, found.prefill.rows.max) == (2, 2.5, 3)
    assert (found.prefill.tasks.min, found.prefill.tasks.mean, found.prefill.tasks.max) == (
        2,
        2.5,
        3,
    )
    assert (found.decode.steps, found.decode.tokens) == (1, 2)
    assert found.decode.seconds == pytest.approx(0.1)
    assert (found.decode.rows.max, found.decode.tasks.max) == (4, 2)
    assert (found.queue_s, found.prefix_load_s, found.ttft_s) == (0.25, 0.125, 0.5)
    spent = found.queue_s + found.prefill.seconds + found.decode.seconds + found.other_s
    assert spent == pytest.approx(found.total_s)
    assert (found.outcome, found.preemptions, found.generated_tokens) == ("ok", 0, 5)


def test_a_request_without_a_row_has_a_total_only() -> None:
    timelines = Timelines()
    flight = flown(timelines)
    late = outcome("two", code="deadline_exceeded", timing=None, generated_tokens=0, seconds=3.0)
    flight.finished(late)
    found = timelines.find("default", "two")
    assert (found.outcome, found.total_s, found.other_s, found.ttft_s) == (
        "deadline_exceeded",
        3.0,
        3.0,
        None,
    )
    assert (found.prefill.steps, found.prefill.rows.min) == (0, None)


def test_it_is_found_by_both_ids_and_by_its_tenant_alone() -> None:
    timelines = Timelines()
    flight = flown(timelines)
    for id, tenant in [("one", "default"), ("two", "default"), ("three", "other")]:
        flight.finished(outcome(id, tenant=tenant, request_id="same"))
    assert timelines.find("default", "one").id == "one"
    assert timelines.find("default", "same").id == "two"
    assert timelines.find("other", "same").id == "three"
    for tenant, id in [("other", "one"), ("default", "three"), ("default", ""), ("third", "same")]:
        with pytest.raises(NotFound):
            timelines.find(tenant, id)


def test_the_oldest_is_forgotten_first() -> None:
    timelines = Timelines(kept=2)
    flight = flown(timelines)
    for id in ("one", "two", "three"):
        flight.finished(outcome(id))
    for id in ("one", "x-one"):
        with pytest.raises(NotFound):
            timelines.find("default", id)
    assert timelines.find("default", "x-two").id == "two"


def test_what_is_under_way_is_counted_and_returns_to_nothing() -> None:
    flight = flown(Timelines())
    assert (flight.waiting, flight.running) == (3, 0)
    flight.observe(started("one", "three", "probe_x"))
    assert (flight.waiting, flight.running) == (1, 2)
    flight.finished(outcome("one"))
    flight.finished(outcome("two", code="cancelled"))
    flight.finished(outcome("three"))
    flight.finished(outcome("", code="overloaded"))
    flight.observe(step(1, row("one"), row("three")))
    flight.observe(finished("one", "eos"))
    assert (flight.waiting, flight.running) == (0, 0)
    assert flight.trace("one") is None


def test_a_step_costs_little() -> None:
    """A full batch at thirty steps a second is to cost less than a hundredth of the process."""
    flight = Flight([])
    ids = [f"{n:024x}" for n in range(64)]
    for id in ids:
        flight.begin(id, "default", f"task-{id[-1]}")
    output = step(1, *(row(id) for id in ids))
    assert output.record is not None
    gc.collect()
    before = process_time()
    for number in range(300):
        flight.observe(replace(output, record=replace(output.record, step=number)))
    assert process_time() - before < 0.01 * 300 / 30
