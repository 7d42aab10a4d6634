"""Anything in any order: requests, aborts, slow loads, tight memory, faults and deadlines.

The model of the machine is what each request says alone: its greedy text, or what an engine that
serves nobody else draws for each of its outputs. Whatever a request gets is a beginning of it, and
all of it if it ends by itself.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.engines import Answers, EngineParts, HeldExecutor, answer
from support.faults import Clock, Passes
from support.tiny import Tiny, ask

from prefixmux_server.engine.messages import Submit
from prefixmux_server.memory.select import LayoutName

LENGTHS = {"a": 1, "b": 10, "c": 40}
CHAINS: tuple[tuple[str, ...], ...] = (
    (),
    ("a",),
    ("b",),
    ("c",),
    ("a", "b"),
    ("b", "b"),
    ("b", "c"),
)
TEXTS = [(tokens, new) for tokens in (1, 3, 30, 70) for new in (1, 2, 9)]
KINDS = [(chain, *text) for chain in CHAINS for text in TEXTS]
LOST = "lost"
SEVERAL = [(chain, *text) for chain in CHAINS[:4] for text in ((1, 3, 2), (30, 9, 3), (70, 6, 4))]


class Faults(Passes):
    """Raises while a request in `ill` is in the batch; `once` counts faults that pass."""

    def __init__(self) -> None:
        super().__init__()
        self.ill: set[str] = set()
        self.once = 0

    def before_forward(self, ids: Sequence[str]) -> None:
        super().before_forward(ids)
        if self.once and len(set(ids)) > 1:
            self.once -= 1
            raise RuntimeError("once")
        if not self.ill.isdisjoint(ids):
            raise RuntimeError("for good")


def several(name: str, *chain: str, tokens: int, new: int, n: int) -> Submit:
    """Drawn from few tokens, of which some are ends: outputs end at different times."""
    return ask(
        name,
        *chain,
        tokens=tokens,
        new=new,
        n=n,
        seed=tokens,
        temperature=3.0,
        top_k=30,
        stop_token_ids=tuple(range(3, 97, 7)),
    )


class EngineMachine(RuleBasedStateMachine):
    """A subclass names the model and the layout."""

    tiny: Tiny
    layout: LayoutName
    drawn: dict[tuple[Any, ...], list[list[int]]]

    @initialize(
        rows=st.sampled_from([1, 2, 5, 16]),
        tokens=st.sampled_from([1, 4, 17, 256]),
        capacity=st.sampled_from([192, 320, 2048]),
        host=st.sampled_from([40, 51, 200]),
        device=st.sampled_from([40, 51, 200]),
    )
    def start(self, rows: int, tokens: int, capacity: int, host: int, device: int) -> None:
        self.loads, self.faults, self.clock = HeldExecutor(), Faults(), Clock()
        self.parts: EngineParts = self.tiny.engine(
            self.layout,
            source=self.tiny.source(**LENGTHS),
            rows=rows,
            tokens=tokens,
            capacity=capacity,
            host_bytes=self.tiny.bytes_of(host),
            device_bytes=self.tiny.bytes_of(device),
            executor=self.loads,
            failpoints=self.faults,
            clock=self.clock,
        )
        self.rows, self.budget, self.host = rows, tokens, host
        self.answers = Answers()
        self.asked: dict[str, Submit] = {}
        self.aborted: set[str] = set()
        # Outputs that were given up, and how much they had said by then.
        self.dropped: dict[str, dict[int, int]] = {}

    @rule(
        kind=st.sampled_from(KINDS),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        patience=st.sampled_from([None, None, None, 3.0]),
    )
    def submit(
        self, kind: tuple[tuple[str, ...], int, int], priority: int, patience: float | None
    ) -> None:
        chain, tokens, new = kind
        self._submit(
            ask(
                f"r{len(self.asked)}",
                *chain,
                tokens=tokens,
                new=new,
                seed=tokens,
                priority=priority,
                deadline=None if patience is None else self.clock.now + patience,
            )
        )

    @rule(
        kind=st.sampled_from(SEVERAL),
        patience=st.sampled_from([None, None, None, 3.0]),
        told=st.sampled_from([None, None, 2]),
    )
    def submit_for_several_outputs(
        self, kind: tuple[tuple[str, ...], int, int, int], patience: float | None, told: int | None
    ) -> None:
        chain, tokens, new, n = kind
        deadline = None if patience is None else self.clock.now + patience
        request = several(f"r{len(self.asked)}", *chain, tokens=tokens, new=new, n=n)
        sampling = replace(request.sampling, logprobs=told, prompt_logprobs=told)
        self._submit(replace(request, sampling=sampling, deadline=deadline))

    @rule()
    def submit_a_lost_task(self) -> None:
        self._submit(ask(f"r{len(self.asked)}", "a", LOST))

    @precondition(lambda self: self._open())
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self._open()))
        self.parts.engine.abort(gone)
        self.aborted.add(gone)
        self.parts.engine.check_integrity()

    @precondition(lambda self: self._open_outputs())
    @rule(data=st.data())
    def abort_one_output(self, data: st.DataObject) -> None:
        gone, index = data.draw(st.sampled_from(self._open_outputs()))
        self.parts.engine.abort(gone, index)
        dropped = self.dropped.setdefault(gone, {})
        dropped[index] = len(self.answers.spoken.get((gone, index), []))
        if len(dropped) == self.asked[gone].sampling.n:
            self.aborted.add(gone)
        self.parts.engine.check_integrity()

    @precondition(lambda self: self._open())
    @rule(data=st.data())
    def fall_ill(self, data: st.DataObject) -> None:
        self.faults.ill.add(data.draw(st.sampled_from(self._open())))

    @rule()
    def fault_that_passes(self) -> None:
        self.faults.once = 1

    @precondition(lambda self: self.loads.held)
    @rule(data=st.data())
    def a_load_ends(self, data: st.DataObject) -> None:
        held = self.loads.held
        held.pop(data.draw(st.integers(0, len(held) - 1)))()

    @rule(times=st.integers(1, 6))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.answers.step(self.parts.engine)
            self.clock.now += 0.25
        self._check()

    def teardown(self) -> None:
        if not hasattr(self, "parts"):
            return
        for _ in range(5000):
            if not self.parts.engine.has_work:
                break
            self.loads.run_all()
            moved = self.answers.step(self.parts.engine)
            assert moved or self.loads.held, "work is left, and nothing will ever move it"
            self.clock.now += 0.01
        self.loads.run_all()
        self.parts.engine.step()
        assert set(self.answers.finished) == set(self.asked) - self.aborted
        self._check()
        self._check_empty()

    def _submit(self, request: Submit) -> None:
        self.asked[request.id] = request
        self.parts.engine.submit(request)

    def _open(self) -> list[str]:
        """Those of which more is to come, but for their end perhaps."""
        return [
            i
            for i in self.asked
            if i not in self.answers.finished and i not in self.aborted and self._indices(i)
        ]

    def _indices(self, request_id: str) -> list[int]:
        """Outputs that go on."""
        request = self.asked[request_id]
        return [
            index
            for index in range(request.sampling.n)
            if index not in self.dropped.get(request_id, {})
            and self._made(request_id, index) != self._truth(request, index)
        ]

    def _open_outputs(self) -> list[tuple[str, int]]:
        return [(i, index) for i in self._open() for index in self._indices(i)]

    def _made(self, request_id: str, index: int) -> list[int]:
        return self.answers.spoken.get((request_id, index), [])

    def _truth(self, request: Submit, index: int) -> list[int] | None:
        if LOST in request.prefixes:
            return None
        if request.sampling.n == 1:
            return self.tiny.expected(self.parts.source, request)
        key = (self.layout, request.prefixes, request.input_ids)
        if key not in self.drawn:
            plain = several(
                "alone",
                *request.prefixes,
                tokens=len(request.input_ids),
                new=request.sampling.max_new_tokens,
                n=request.sampling.n,
            )
            assert plain.input_ids == request.input_ids
            alone = self.tiny.engine(self.layout, source=self.tiny.source(**LENGTHS))
            self.drawn[key] = answer(alone.engine, [plain]).outputs("alone")
        return self.drawn[key][index]

    def _check(self) -> None:
        for request_id, request in self.asked.items():
            dropped = self.dropped.get(request_id, {})
            for index in range(request.sampling.n):
                made, truth = self._made(request_id, index), self._truth(request, index)
                assert made == (truth or [])[: dropped.get(index, len(made))]
                told = self.answers.logprobs.get((request_id, index), [])
                assert [t.token_id for t in told] == (made if request.sampling.logprobs else [])
            if request_id in self.answers.finished:
                self._check_end(request)
        for record in self.answers.records:
            assert 0 < sum(row.tokens for row in record.rows) <= self.budget

    def _check_end(self, request: Submit) -> None:
        finished = self.answers.finished[request.id]
        if finished.error is None:
            dropped = self.dropped.get(request.id, {})
            left = [index for index in range(request.sampling.n) if index not in dropped]
            assert [end.index for end in finished.outputs] == left
            assert not set(left) & set(self._indices(request.id)), "an output ended too early"
            if request.sampling.prompt_logprobs:
                told = self.answers.prompts.get(request.id, [])
                assert [one.token_id for one in told] == list(request.input_ids[1:])
            assert finished.prefixes == request.prefixes
            assert finished.prefix_tokens == tuple(LENGTHS[d] for d in request.prefixes)
            return
        allowed = {"prompt_too_long", "prefix_unavailable"}
        if request.id in self.faults.ill:
            allowed.add("internal_error")
        if request.deadline is not None:
            allowed.add("deadline_exceeded")
        together = sum(LENGTHS.get(digest, 0) for digest in set(request.prefixes))
        if request.sampling.n > min(self.rows, self.budget) or together > self.host:
            allowed.add("invalid_request")
        assert finished.error.code in allowed
        if finished.error.code == "prefix_unavailable":
            known = sum(LENGTHS[d] for d in set(request.prefixes) - {LOST})
            assert LOST in request.prefixes or known > 40

    def _check_empty(self) -> None:
        whole = ask("whole", tokens=self.parts.layout.capacity_tokens // 64 * 64, new=1)
        self.faults.once = 0
        answers = answer(self.parts.engine, [whole])
        limit = self.tiny.loaded.context
        assert limit is not None
        fits = len(whole.input_ids) <= limit
        assert (answers.finished["whole"].error is None) == fits


def run_machine(tiny: Tiny, layout: LayoutName, examples: int, steps: int) -> None:
    machine = type("Machine", (EngineMachine,), {"tiny": tiny, "layout": layout, "drawn": {}})
    limits = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=limits)


def test_any_order_of_things(tiny: Tiny, layout: LayoutName) -> None:
    run_machine(tiny, layout, 30, 40)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_any_order_of_things_for_longer(tiny: Tiny, layout: LayoutName) -> None:
    run_machine(tiny, layout, 2000, 80)


@pytest.mark.parametrize("seed", range(3))
def test_a_storm_of_tasks(tiny: Tiny, layout: LayoutName, seed: int) -> None:
    """Many tasks, few of which fit at a time; joins and leaves at random."""
    rng = random.Random(seed)
    lengths = {f"task{n}": rng.choice([1, 5, 17, 60]) for n in range(12)}
    parts = tiny.engine(
        layout,
        source=tiny.source(**lengths),
        rows=8,
        tokens=24,
        capacity=700,
        host_bytes=tiny.bytes_of(200),
        device_bytes=tiny.bytes_of(150),
    )
    requests = [
        ask(
            f"r{n}",
            *rng.sample(sorted(lengths), rng.choice([0, 1, 1, 1, 2])),
            tokens=rng.choice([1, 2, 20, 50]),
            new=rng.randrange(1, 12),
            priority=rng.choice([0, 0, 5]),
        )
        for n in range(60)
    ]
    answers, waiting = Answers(), list(requests)
    while waiting or parts.engine.has_work:
        for request in waiting[: rng.randrange(5)]:
            parts.engine.submit(request)
            waiting.pop(0)
        answers.step(parts.engine)
    for request in requests:
        assert answers.tokens[request.id] == tiny.expected(parts.source, request), request.id
