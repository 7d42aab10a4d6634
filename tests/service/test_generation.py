"""The service without HTTP: what becomes of a request is told once, whatever its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from service.fakes import EOS, FakeEngine, Script, ids, native, reply_with

from prefixmux_server.engine.messages import EngineError, Share
from prefixmux_server.errors import DeadlineExceeded, Forbidden, PrefixmuxServerError, Relayed
from prefixmux_server.service.generation.admission import Admission
from prefixmux_server.service.generation.answer import Answer, TokenEvent
from prefixmux_server.service.generation.generation import GenerationService
from prefixmux_server.service.generation.outcome import Outcome, OutcomeObserver
from prefixmux_server.service.generation.request import GenerationRequest
from prefixmux_server.service.telemetry.steps import StepLog
from prefixmux_server.service.tenants.accounts import Accounts
from prefixmux_server.service.tenants.tenant import Tenant
from prefixmux_store.errors import StoreError
from prefixmux_store.store import PrefixStore
from prefixmux_store.tenants import TenantLimits

pytestmark = pytest.mark.anyio
ACME = Tenant("acme", frozenset(("generate",)), "key7")


@dataclass
class Kept:
    """A service, its engine, and what it told of its requests."""

    service: GenerationService
    engine: FakeEngine
    accounts: Accounts
    outcomes: list[Outcome] = field(default_factory=list)

    async def stream(self, **asked: Any) -> list[TokenEvent | Answer]:
        async with aclosing(self.service.stream(ACME, request(**asked))) as events:
            return [event async for event in events]

    @property
    def outcome(self) -> Outcome:
        """The only one; nothing is under way any more."""
        (told,) = self.outcomes
        assert (self.engine.open, self.accounts.under_way("acme")) == (0, 0)
        assert self.accounts.reserved("acme") == 0
        return told


def request(**asked: Any) -> GenerationRequest:
    return GenerationRequest(**{"input": "a", "request_id": "mine", **asked})


@contextmanager
def service_over(
    store: PrefixStore, observer: OutcomeObserver = lambda _: None, max_seconds: float = 60
) -> Iterator[Kept]:
    engine, outcomes = FakeEngine(), list[Outcome]()
    accounts = Accounts(lambda _: TenantLimits(weight=2.0, max_running=3))
    admission, steps = Admission(store, 6), StepLog(engine, lambda *_: None)
    observers = (observer, outcomes.append)
    with GenerationService(engine, admission, steps, accounts, observers, max_seconds) as service:
        yield Kept(service, engine, accounts, outcomes)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PrefixStore]:
    with PrefixStore.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def kept(store: PrefixStore) -> Iterator[Kept]:
    with service_over(store) as made:
        yield made


def put(store: PrefixStore) -> str:
    staged = store.stage("acme", native())
    store.commit("acme", "e2e", staged, activate=True, description=None, create_only=False)
    return staged.digest


async def test_an_answered_request_is_told_with_what_it_used(
    kept: Kept, store: PrefixStore
) -> None:
    digest = put(store)
    kept.engine.reply = reply_with([*ids("hello"), EOS], "eos")
    answer = await kept.service.generate(ACME, request(task_id="e2e", input="name"))
    told = kept.outcome
    assert (told.id, told.request_id, told.code) == (answer.id, "mine", "ok")
    assert (told.tenant, told.key_id, told.task_id, told.version) == ("acme", "key7", "e2e", 1)
    assert told.digests == (digest,)
    used = (told.prompt_tokens, told.prefix_tokens, told.generated_tokens)
    assert used == (4, 3, len(ids("hello")) + 1)
    assert told.timing == answer.timing or told.timing is not None
    assert 0 < told.seconds < 60


async def test_a_stream_is_told_once_and_before_its_answer(kept: Kept) -> None:
    async with aclosing(kept.service.stream(ACME, request())) as events:
        async for event in events:
            assert len(kept.outcomes) == isinstance(event, Answer)
    assert kept.outcome.code == "ok"


async def test_the_engine_is_told_the_tenants_share(kept: Kept) -> None:
    await kept.stream()
    assert kept.engine.submitted[0].share == Share(2.0, 3)


async def test_exactly_one_answer_ends_a_stream(kept: Kept) -> None:
    *tokens, answer = await kept.stream()
    assert all(isinstance(event, TokenEvent) for event in tokens)
    assert isinstance(answer, Answer)
    assert "".join(event.text or "" for event in tokens if isinstance(event, TokenEvent)) == "hello"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"task_id": "none"}, "task_not_found"),
        ({"input": "a" * 500}, "prompt_too_long"),
        ({"parameters": {"n": 2}}, "invalid_parameter"),
    ],
)
async def test_a_refused_request_is_told_too(kept: Kept, asked: dict[str, Any], code: str) -> None:
    with pytest.raises((PrefixmuxServerError, StoreError)) as refused:
        await kept.service.generate(ACME, request(**asked))
    assert isinstance(refused.value, PrefixmuxServerError | StoreError)
    assert refused.value.code == kept.outcome.code == code
    assert (kept.outcome.id, kept.outcome.task_id, kept.outcome.timing) == ("", None, None)


async def test_who_may_not_generate_is_told_too(kept: Kept) -> None:
    with pytest.raises(Forbidden):
        await kept.service.generate(Tenant("acme", frozenset(("read",))), request())
    assert kept.outcome.code == "forbidden"


async def test_an_error_of_the_engine_is_told_with_what_was_generated(kept: Kept) -> None:
    error = EngineError("non_finite_output", "Not finite.")
    kept.engine.reply = lambda _: Script(((1,), (2,)), error=error)
    with pytest.raises(Relayed):
        await kept.stream()
    assert (kept.outcome.code, kept.outcome.generated_tokens) == ("non_finite_output", 2)


async def test_a_reader_that_leaves_is_told_as_cancelled(kept: Kept) -> None:
    kept.engine.reply = lambda _: Script(((1,), (2,), (3,)), pause=2)
    async with aclosing(kept.service.stream(ACME, request())) as events:
        assert isinstance(await anext(events), TokenEvent)
    assert (kept.outcome.code, kept.outcome.generated_tokens) == ("cancelled", 1)


@pytest.mark.parametrize(("named", "code"), [(None, "cancelled"), ("draining", "draining")])
async def test_who_cancels_may_name_the_error_that_is_given(
    kept: Kept, named: str | None, code: str
) -> None:
    kept.engine.gate.clear()
    running = asyncio.create_task(kept.service.generate(ACME, request()))
    await kept.engine.arrived.wait()
    running.cancel(named)
    await asyncio.wait((running,))
    assert kept.outcome.code == code


async def test_no_request_takes_longer_than_the_server_allows(store: PrefixStore) -> None:
    with service_over(store, max_seconds=0.5) as kept:
        kept.engine.gate.clear()
        with pytest.raises(DeadlineExceeded):
            await kept.service.generate(ACME, request(parameters={"timeout_s": 3600}))
        assert kept.outcome.code == "deadline_exceeded"
        (submit,) = kept.engine.submitted
        assert submit.deadline is not None


async def test_the_deadline_comes_while_a_reader_does_not_read(store: PrefixStore) -> None:
    with service_over(store, max_seconds=0.5) as kept:
        kept.engine.reply = lambda _: Script(((1,), (2,), (3,)), pause=2)
        async with aclosing(kept.service.stream(ACME, request())) as events:
            await anext(events)
            await anext(events)
            while kept.engine.open:
                await asyncio.sleep(0.001)
            with pytest.raises(DeadlineExceeded):
                await anext(events)
        assert kept.outcome.code == "deadline_exceeded"


async def test_an_observer_that_fails_costs_nobody_an_answer(store: PrefixStore) -> None:
    def broken(_: Outcome) -> None:
        raise OSError("disk full")

    with service_over(store, broken) as kept:
        assert isinstance((await kept.stream())[-1], Answer)
        assert kept.outcome.code == "ok"


async def test_no_tokens_at_all_for_those_who_ask_about_the_prompt(kept: Kept) -> None:
    asked = {"max_new_tokens": 0, "prompt_logprobs": 1}
    (answer,) = await kept.stream(input="name", parameters=asked)
    assert isinstance(answer, Answer)
    (output,) = answer.outputs
    assert (output.text, output.token_ids, output.finish_reason) == ("", [], "length")
    assert answer.prompt_logprobs is not None
    assert answer.prompt_logprobs.told()[0] is None
    assert [entry["token"] for entry in answer.prompt_logprobs] == ["a", "m", "e"]


async def test_errors_are_of_one_tree(kept: Kept) -> None:
    kept.engine.capacity = 0
    with pytest.raises(PrefixmuxServerError):
        await kept.stream()
    assert kept.outcome.code == "overloaded"
    assert kept.outcome.timing is None
