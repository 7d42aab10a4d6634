"""What is done before a request runs: on whose account, with which versions, and what is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from service.fakes import FakeEngine, ids, native

from prefixmux_server.errors import EngineUnavailable, Forbidden, InvalidRequest
from prefixmux_server.service.generation.admission import Admission
from prefixmux_server.service.generation.generation import GenerationService
from prefixmux_server.service.generation.outcome import Outcome
from prefixmux_server.service.generation.preparation import Known, Preparation
from prefixmux_server.service.generation.request import GenerationRequest, PartName
from prefixmux_server.service.telemetry.steps import StepLog
from prefixmux_server.service.tenants.accounts import Accounts
from prefixmux_server.service.tenants.tenant import Tenant
from prefixmux_server.service.text.codecs import Codecs
from prefixmux_store.errors import TaskNotFound
from prefixmux_store.store import PrefixStore

pytestmark = pytest.mark.anyio
ACME = Tenant("acme", frozenset(("generate",)), "key7")


@dataclass(frozen=True)
class Before:
    preparation: Preparation
    engine: FakeEngine
    store: PrefixStore
    accounts: Accounts
    outcomes: list[Outcome]

    def put(self, task_id: str, fill: float) -> None:
        data = native(fill=fill)
        self.store.commit("acme", task_id, self.store.stage("acme", data))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def before(tmp_path: Path) -> Iterator[Before]:
    engine, accounts, outcomes, codecs = FakeEngine(), Accounts(), list[Outcome](), Codecs()
    with PrefixStore.open(tmp_path / "store") as store:
        admission, steps = Admission(store, 6, codecs), StepLog(engine, lambda *_: None)
        with GenerationService(engine, admission, steps, accounts, [outcomes.append]) as service:
            preparation = Preparation(service, store, codecs)
            yield Before(preparation, engine, store, accounts, outcomes)


def asked(**fields: object) -> GenerationRequest:
    return GenerationRequest(**{"input": "hello", "request_id": "mine", **fields})  # type: ignore[arg-type]


async def test_versions_are_those_that_are_active_now(before: Before) -> None:
    before.put("one", 0.5)
    before.put("one", 0.25)
    before.put("two", 0.75)

    async def settled(request: GenerationRequest) -> GenerationRequest:
        return await before.preparation.of(ACME, request, lambda known: known.request)

    assert (await settled(asked(task_id="one"))).version == 2
    assert (await settled(asked(task_id="one", version=1))).version == 1
    compose = (PartName("two"), PartName("one", 1), PartName("one"))
    parts = (await settled(asked(compose=compose))).compose
    assert parts == (PartName("two", 1), PartName("one", 1), PartName("one", 2))
    assert await settled(asked()) == asked()
    assert before.outcomes == []


async def test_an_input_in_ids_and_in_text(before: Before) -> None:
    text = await before.preparation.tokenised(ACME, asked())
    assert (text.token_ids, text.text) == (tuple(ids("hello")), "hello")
    assert text.request.input == text.token_ids
    given = await before.preparation.tokenised(ACME, asked(input=tuple(ids("ab"))))
    assert (given.token_ids, given.text) == (tuple(ids("ab")), "ab")


async def test_what_goes_wrong_is_told_as_the_requests_end(before: Before) -> None:
    def fail(_: Known) -> None:
        assert before.accounts.under_way("acme") == 1
        raise InvalidRequest("No.")

    with pytest.raises(InvalidRequest):
        await before.preparation.of(ACME, asked(), fail)
    with pytest.raises(TaskNotFound):
        await before.preparation.tokenised(ACME, asked(task_id="nothing"))
    with pytest.raises(Forbidden):
        await before.preparation.tokenised(Tenant("acme", frozenset(("read",))), asked())
    before.engine.ready = None
    with pytest.raises(EngineUnavailable):
        await before.preparation.begin(ACME, "mine", lambda ready, codec: None)
    codes = [outcome.code for outcome in before.outcomes]
    assert codes == ["invalid_request", "task_not_found", "forbidden", "engine_unavailable"]
    assert {outcome.request_id for outcome in before.outcomes} == {"mine"}
    assert before.accounts.under_way("acme") == 0
    assert before.engine.submitted == []
