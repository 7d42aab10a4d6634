"""Shares of the batch in a whole engine: limits of rows, order, loads, and what is charged."""

from __future__ import annotations

from dataclasses import replace

from support.checks import check_texts, error_code, started
from support.engines import Answers, DictSource, HeldExecutor, answer
from support.tiny import Tiny, ask

from prefixmux_server.engine.messages import Share, Submit
from prefixmux_server.memory.entries import State
from prefixmux_server.memory.host import MAX_LOADS
from prefixmux_server.memory.prefix import PrefixKey
from prefixmux_server.memory.select import LayoutName


def of(tenant: str, request: Submit, share: Share | None = None) -> Submit:
    return replace(request, tenant=tenant, share=share or Share())


def test_a_tenant_runs_no_more_rows_than_it_may_and_others_go_on(
    tiny: Tiny, layout: LayoutName
) -> None:
    parts = tiny.engine(layout, rows=5)
    limited = [of("a", ask(f"a{n}", new=6), Share(max_running=2)) for n in range(6)]
    others = [of("b", ask(f"b{n}", new=6)) for n in range(6)]
    answers = answer(parts.engine, [*limited, *others])
    check_texts(tiny, parts, answers, [*limited, *others])
    rows = [[row.id[0] for row in record.rows] for record in answers.records]
    assert max(row.count("a") for row in rows) == 2
    assert rows[0].count("b") == 3


def test_a_request_of_more_rows_than_its_tenant_may_run_is_refused(
    tiny: Tiny, layout: LayoutName
) -> None:
    parts = tiny.engine(layout)
    wide = of("a", ask("wide", n=3, temperature=1.0), Share(max_running=2))
    fine = of("a", ask("fine"), Share(max_running=2))
    answers = answer(parts.engine, [wide, fine])
    assert error_code(answers, "wide") == "invalid_request"
    check_texts(tiny, parts, answers, [fine])


def test_a_refused_request_may_be_aborted_before_it_is_told(tiny: Tiny, layout: LayoutName) -> None:
    parts = tiny.engine(layout)
    parts.engine.submit(of("a", ask("wide", n=3, temperature=1.0), Share(max_running=2)))
    parts.engine.check_integrity()
    parts.engine.abort("wide")
    parts.engine.check_integrity()
    assert parts.engine.step() is None


def test_a_newcomer_waits_for_one_row_and_not_for_a_flood(tiny: Tiny, layout: LayoutName) -> None:
    parts = tiny.engine(layout, rows=2)
    flood = [of("flood", ask(f"f{n}", new=5)) for n in range(20)]
    answers = Answers()
    for request in flood:
        parts.engine.submit(request)
    for _ in range(12):
        answers.step(parts.engine)
    before = len(started(answers))
    late = of("late", ask("late", new=5))
    parts.engine.submit(late)
    answers.run(parts.engine)
    check_texts(tiny, parts, answers, [*flood, late])
    assert started(answers).index("late") <= before + 1


def test_a_short_prompt_is_not_run_after_all_long_ones_of_another(
    tiny: Tiny, layout: LayoutName
) -> None:
    parts = tiny.engine(layout, tokens=16)
    flood = [of("flood", ask(f"f{n}", tokens=60, new=2)) for n in range(8)]
    late = of("late", ask("late", tokens=8, new=2))
    answers = answer(parts.engine, [*flood, late])
    check_texts(tiny, parts, answers, [*flood, late])
    assert started(answers).index("late") <= 1


def test_loads_of_a_flood_do_not_stand_before_those_of_others(
    tiny: Tiny, layout: LayoutName
) -> None:
    source, held = DictSource(), HeldExecutor()
    for n in range(50):
        source.add(f"p{n}", tiny.prefix(2, seed=n), tenant="flood")
    source.add("mine", tiny.prefix(3), tenant="late")
    parts = tiny.engine(layout, source=source, executor=held)
    for n in range(50):
        parts.engine.submit(of("flood", ask(f"f{n}", f"p{n}")))
    assert len(held.held) == MAX_LOADS
    late = of("late", ask("late", "mine"))
    parts.engine.submit(late)
    held.run_all()
    answers = Answers()
    answers.step(parts.engine)
    assert parts.residency.state(PrefixKey("late", "mine")) is State.LOADING
    while parts.engine.has_work:
        held.run_all()
        answers.step(parts.engine)
    check_texts(tiny, parts, answers, [late])


def test_what_is_charged_is_what_was_given(tiny: Tiny, layout: LayoutName) -> None:
    parts = tiny.engine(layout, source=tiny.source(a=10, b=3), rows=3, tokens=7)
    requests = [ask(f"{n}", *(["a"], ["a", "b"], [])[n % 3], tokens=9, new=4) for n in range(6)]
    answers = answer(parts.engine, requests)
    ran = sum(row.tokens for record in answers.records for row in record.rows)
    seen = sum(sum(end.prefix_tokens) for end in answers.finished.values())
    assert parts.engine._scheduler.waiting.served("default") == ran + seen
