"""schemathesis over the OpenAPI document of the application, and what of its findings stands.

Every check is on and none is filtered away; a finding is dropped only by a rule here that says
why the contract means it so. `World` is one server in one state.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.checks import CheckContext
from schemathesis.config import SchemathesisConfig
from schemathesis.core.transport import Response
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.generation.case import Case
from schemathesis.specs.openapi.schemas import OpenApiSchema
from service.fakes import FakeEngine, Script, native

from prefixmux_server.api.app import create_app
from prefixmux_server.api.services import Services
from prefixmux_server.engine.messages import BeamOutput, Submit
from prefixmux_server.errors import STATUS_OF_CODE
from prefixmux_server.service.lifecycle import Lifecycle
from prefixmux_server.settings import Settings
from prefixmux_server.wiring import build_services
from prefixmux_store.store import PrefixStore

TENANT = "default"
TASKS = ("e2e", "sentiment")
# Of the document's examples, so that what is generated reaches past the look-up.
NAMES = {"path.task_id": 0.7, "body.task_id": 0.7, "body.compose[*].task_id": 0.7}
MODELS = {"path.model": 0.7, "body.model": 0.7}
VERSIONS = {"path.version": 0.7, "body.version": 0.7}
UNAVAILABLE = {503, 504, 507}
FIELDS = {"code", "message", "param", "request_id"}


class OffContract(AssertionError):
    """An answer that is not of the contract's shape."""


@schemathesis.check
def contract(_ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Every answer has its id; an error has the contract's fields, a code of its status, and a
    sentence."""
    (request_id,) = response.headers["x-request-id"]
    if response.status_code < 400 or case.operation.path == "/health/ready":
        return
    body = json.loads(response.content)
    if set(body) != {"error"}:
        raise OffContract(f"fields {sorted(body)}")
    error, openai = body["error"], case.operation.path.startswith("/v1/")
    if set(error) - {"reason"} != (FIELDS | {"type"} if openai else FIELDS):
        raise OffContract(f"fields {sorted(error)} under error")
    if error["request_id"] != request_id:
        raise OffContract("another request_id than the header's")
    if not openai and STATUS_OF_CODE.get(error["code"]) != response.status_code:
        raise OffContract(f"{error['code']} with {response.status_code}")
    if not error["message"].endswith(".") or "\n" in error["message"]:
        raise OffContract("the message is not a sentence")


def answered(submit: Submit) -> Script:
    """As many tokens or sequences as were asked for, within reason."""
    beams = submit.sampling.beams
    if beams is None:
        return Script(((1,), (2,), (3,)))
    return Script((), "eos", beams=(BeamOutput((1,), -1.0, "eos"),) * beams.num_return)


@dataclass(frozen=True)
class World:
    """`headers` go with every request."""

    schema: OpenApiSchema
    engine: FakeEngine
    store: PrefixStore
    lifecycle: Lifecycle
    services: Services
    headers: dict[str, str]

    def stock(self) -> None:
        """What the examples name, in two versions; a server that takes no uploads has none."""
        put = self.schema["/prefixes/{task_id}"]["PUT"]
        for task in TASKS:
            for fill in (0.5, 1.5):
                put.Case(
                    path_parameters={"task_id": task},
                    body=native(fill=fill),
                    media_type="application/octet-stream",
                ).call(headers=self.headers)

    def assert_at_rest(self) -> None:
        assert (self.engine.open, self.lifecycle.accepted) == (0, 0)
        accounts = self.services.accounts
        assert (accounts.under_way(TENANT), accounts.reserved(TENANT)) == (0, 0)


@contextmanager
def world(root: Path, scopes: tuple[str, ...] | None, config: dict[str, Any]) -> Iterator[World]:
    """`scopes` of the key that is sent; None: the server is in open mode."""
    engine, lifecycle = FakeEngine(reply=answered), Lifecycle()
    with PrefixStore.open(root) as store:
        headers = {}
        if scopes is not None:
            headers["Authorization"] = "Bearer " + store.keys.create(TENANT, scopes).key
        services = build_services(Settings(model="tiny", store=root), store, engine, lifecycle)
        with services.audit, services.generation:
            app = create_app(services)
            read = SchemathesisConfig.from_dict({**config, "headers": headers})
            schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=read)
            yield World(schema, engine, store, lifecycle, services, headers)


def configured(examples: int, seed: int, *, coverage: bool = True) -> dict[str, Any]:
    """Positive and negative, zero bytes and unknown parameters."""

    def bound(places: dict[str, float], name: str) -> dict[str, Any]:
        return {
            place: {"dictionary": name, "probability": chance} for place, chance in places.items()
        }

    return {
        "seed": seed,
        "generation": {
            "mode": "all",
            "max-examples": examples,
            "allow-x00": True,
            "allow-extra-parameters": True,
            "no-shrink": True,
        },
        "phases": {
            "coverage": {"enabled": coverage, "generate-duplicate-query-parameters": True},
            "stateful": {"enabled": True},
        },
        "dictionaries": {
            "tasks": {"values": list(TASKS)},
            "models": {"values": ["tiny", "e2e", "e2e@1", "sentiment@2"]},
            "versions": {"values": [1, 2]},
        },
        "parameters": bound(NAMES, "tasks") | bound(MODELS, "models") | bound(VERSIONS, "versions"),
    }


@dataclass(frozen=True)
class Finding:
    """One check of one operation, with an example of it."""

    check: str
    operation: str
    title: str
    message: str
    request: str
    case: Case[Any]
    response: Response | None

    @property
    def status(self) -> int:
        return 0 if self.response is None else self.response.status_code

    @property
    def error(self) -> dict[str, Any]:
        """Of the answer's body, where it is one."""
        try:
            found: dict[str, Any] = json.loads(self.response.content if self.response else b"")
            return dict(found["error"])
        except (ValueError, KeyError, TypeError):
            return {}

    def __str__(self) -> str:
        answer = None if self.response is None else self.response.content[:600]
        return (
            f"{self.check}: {self.operation}: {self.title} {self.message}\n"
            f"  {self.request[:1200]}\n  {self.status} {answer!r}"
        )


@dataclass
class Run:
    """`requests` by phase, `statuses` by operation."""

    requests: Counter[str] = field(default_factory=Counter)
    statuses: dict[str, set[int]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def examine(self, world: World, meant: Callable[[Finding], bool]) -> None:
        """Keeps the findings that are not `meant` so."""
        for event in from_schema(world.schema).execute():
            if isinstance(event, events.NonFatalError | events.FatalError):
                raise AssertionError(str(event))
            if isinstance(event, events.ScenarioFinished):
                self._take(event.phase.value, event.recorder, meant)
                if event.recorder.label.startswith("DELETE") or "tateful" in event.recorder.label:
                    world.stock()

    def _take(self, phase: str, told: ScenarioRecorder, meant: Callable[[Finding], bool]) -> None:
        self.requests[phase] += len(told.interactions)
        for id, sent in told.interactions.items():
            if sent.response is not None:
                label = told.cases[id].value.operation.label
                self.statuses.setdefault(label, set()).add(sent.response.status_code)
        for id, checks in told.checks.items():
            for check in checks:
                if (info := check.failure_info) is None:
                    continue
                case, failure = told.cases[id].value, info.failure
                finding = Finding(
                    check.name,
                    case.operation.label,
                    failure.title,
                    failure.message,
                    info.code_sample,
                    case,
                    told.interactions[id].response,
                )
                if not meant(finding):
                    self.findings.append(finding)
