"""What the OpenAPI document says is what the server does: generated requests, valid and not.

In each state that a server can be in no answer has a status, a type or a shape that the document
does not declare, nothing valid is refused without a reason that a schema cannot tell, and nothing
invalid is accepted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from api.specified import UNAVAILABLE, Finding, Run, World, configured, world
from schemathesis.checks import not_a_server_error
from service.fakes import SEQ2SEQ, Script, native

from prefixmux_server.engine.front import EngineHealth
from prefixmux_server.engine.messages import EngineError, Submit

ADMIN = ("admin",)
# Of these two fields or parameters may contradict each other, or one the model or the store.
PARAMETERS = {
    "max_new_tokens",
    "min_new_tokens",
    "top_k",
    "stop",
    "stop_token_ids",
    "n",
    "logprobs",
    "prompt_logprobs",
    "num_beams",
    "num_return",
    "length_penalty",
    "early_stopping",
    "no_repeat_ngram_size",
    "beam_length_includes_prompt",
    "temperature",
}
ROW = {"task_id", "version", "compose", "input", "decoder_input", "stream"}
OPENAI = {"model", "prompt", "messages", "max_tokens", "min_tokens", "max_completion_tokens"}
OPENAI |= {"best_of", "top_logprobs", "echo", "stream", "stream_options", "suffix"}
UPLOAD = {"file", "adapter_config", "adapter_model", "sha256", "task_index", "template", "compose"}
UPLOAD |= {"text", "examples", "description", "parameters", "activate", "query"}
RELATED: dict[str, set[str]] = {
    "POST /generate": ROW,
    "POST /score": ROW | {"targets"},
    "POST /v1/completions": OPENAI | PARAMETERS,
    "POST /v1/chat/completions": OPENAI | PARAMETERS,
    "POST /prefixes": UPLOAD,
    "PUT /prefixes/{task_id}": UPLOAD | {"task_id"},
    "GET /prefixes": {"cursor"},
    "GET /prefixes/{task_id}/versions": {"cursor"},
}
# What is wrong with a file, or with a text for this model, no schema tells.
FILES = {"invalid_prefix", "unsafe_format", "incompatible_prefix", "unsupported_method"}
FILES |= {"digest_mismatch", "prefix_too_large", "tokenizer_unavailable", "prompt_too_long"}
FILES |= {"context_length_exceeded", "non_finite_output"}


def meant(finding: Finding) -> bool:
    """Whether the contract means what the check does not expect."""
    rule = RULES.get(finding.check)
    return rule is not None and rule(finding)


def _has_reason(finding: Finding) -> bool:
    """Valid by its schema, and refused for what a schema cannot say."""
    error = finding.error
    first, _, second = str(error.get("param")).partition(".")
    if finding.status >= 500 or finding.status in (412, 413) or error.get("code") in FILES:
        return True
    if error.get("message") == "Input should be a valid integer.":
        return _has_whole_float(finding.case.body)
    if first == "parameters" and second:
        return second in PARAMETERS
    return first in RELATED.get(finding.operation, set())


def _has_whole_float(value: object) -> bool:
    """1.0 is an integer to JSON Schema, and none to the contract."""
    if isinstance(value, dict):
        return any(map(_has_whole_float, value.values()))
    if isinstance(value, list):
        return any(map(_has_whole_float, value))
    return isinstance(value, float) and value.is_integer()


def _is_rows_own(finding: Finding) -> bool:
    """A bad row of a batch is that row's own, and the call is answered."""
    if finding.operation != "POST /generate/batch" or finding.response is None:
        return False
    rows = json.loads(finding.response.content)["results"]
    return any(row["status"] in (400, 422) for row in rows)


def _is_unavailable(finding: Finding) -> bool:
    """Declared, as the check of statuses sees to."""
    return finding.status in UNAVAILABLE


RULES: dict[str, Callable[[Finding], bool]] = {
    "positive_data_acceptance": _has_reason,
    "negative_data_rejection": _is_rows_own,
    "not_a_server_error": _is_unavailable,
}


def _without_key(finding: Finding) -> bool:
    """In open mode nobody needs the key that the document asks for."""
    return "Authorization" in finding.message or finding.check == "ignored_auth"


def _wordless(world: World) -> None:
    world.engine.without_tokenizer()


def _seq2seq(world: World) -> None:
    world.engine.serve(SEQ2SEQ)


def _starting(world: World) -> None:
    world.engine.ready = None
    world.engine.health = EngineHealth(False, "starting")


def _draining(world: World) -> None:
    world.lifecycle.drain()


def _limited(world: World) -> None:
    world.store.tenants.set("default", max_tasks=2, max_bytes=2000, tokens_per_minute=20)


def _crowded(world: World) -> None:
    world.engine.capacity = 0


def _ailing(world: World) -> None:
    errors = [
        EngineError("non_finite_output", "The model answered with numbers that are not finite."),
        EngineError("prefix_unavailable", "The prefix could not be read."),
        EngineError("deadline_exceeded", "The request was not done in time."),
    ]

    def reply(submit: Submit) -> Script:
        return Script(((1,),), None, error=errors[len(world.engine.submitted) % len(errors)])

    world.engine.reply = reply


@dataclass(frozen=True)
class State:
    """`codes`: statuses that this state has to have shown, or it was none."""

    change: Callable[[World], None] = lambda _: None
    scopes: tuple[str, ...] | None = ADMIN
    shows: frozenset[int] = frozenset()


STATES = {
    "usual": State(shows=frozenset({200, 201, 204, 400, 401, 404, 405, 415, 422})),
    "open": State(scopes=None, shows=frozenset({200, 201, 204, 404, 422})),
    "reader": State(scopes=("read",), shows=frozenset({200, 401, 403})),
    "generator": State(scopes=("generate",), shows=frozenset({200, 401, 403})),
    "wordless": State(_wordless, shows=frozenset({422})),
    "seq2seq": State(_seq2seq, shows=frozenset({200, 422})),
    "starting": State(_starting, shows=frozenset({200, 503})),
    "draining": State(_draining, shows=frozenset({200, 503})),
    "limited": State(_limited, shows=frozenset({200, 429})),
    "crowded": State(_crowded, shows=frozenset({429})),
    "ailing": State(_ailing, shows=frozenset({422, 503, 504})),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A line for each of thousands of requests says nothing here."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def examine(root: Path, state: State, config: dict[str, Any]) -> Run:
    with world(root, state.scopes, config) as found:
        found.stock()
        state.change(found)
        run = Run()
        without_key = _without_key if state.scopes is None else lambda _: False
        run.examine(found, lambda finding: meant(finding) or without_key(finding))
        found.assert_at_rest()
    return run


def assert_nothing_stands(run: Run, state: State) -> None:
    assert not run.findings, "\n\n".join(map(str, run.findings[:20]))
    assert state.shows <= set().union(*run.statuses.values())


def test_a_server_at_work(tmp_path: Path) -> None:
    state = STATES["usual"]
    run = examine(tmp_path, state, configured(6, 1))
    assert run.requests["coverage"] > 1000
    assert run.requests["stateful"] > 0
    assert_nothing_stands(run, state)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in STATES if name != "usual"])
def test_a_server_in_another_state(tmp_path: Path, name: str) -> None:
    state = STATES[name]
    assert_nothing_stands(examine(tmp_path, state, configured(6, 2, coverage=False)), state)


LIMITED: list[tuple[dict[str, int], int]] = [({"max_tasks": 1}, 429), ({"max_bytes": 1}, 507)]


@pytest.mark.parametrize(("limits", "status"), LIMITED)
@pytest.mark.parametrize(("path", "method"), [("", "POST"), ("/{task_id}", "PUT")])
def test_an_upload_beyond_a_limit(
    tmp_path: Path, path: str, method: str, limits: dict[str, int], status: int
) -> None:
    with world(tmp_path, ADMIN, configured(1, 1)) as found:
        found.stock()
        found.store.tenants.set("default", **limits)
        operation = found.schema[f"/prefixes{path}"][method]
        if method == "PUT":
            case = operation.Case(
                path_parameters={"task_id": "new"},
                body=native(fill=9),
                media_type="application/octet-stream",
            )
        else:
            text = b'{"task_id": "new", "text": "a"}'
            case = operation.Case(body=text, media_type="application/json")
        answer = case.call(headers=found.headers)
        assert answer.status_code == status
        case.validate_response(answer, excluded_checks=[not_a_server_error])


def test_limits_of_integers_are_told_as_they_are(tmp_path: Path) -> None:
    with world(tmp_path, None, configured(1, 1)) as found:
        schemas = found.schema.raw_schema["components"]["schemas"]
    version = schemas["ActivateBody"]["properties"]["version"]
    assert (version["minimum"], version["maximum"]) == (1, 2**63 - 1)
    (seed, _) = schemas["ParametersBody"]["properties"]["seed"]["anyOf"]
    assert seed["maximum"] == 2**63 - 1


def test_what_the_net_answers_is_declared_everywhere(tmp_path: Path) -> None:
    with world(tmp_path, None, configured(1, 1)) as found:
        for path, item in found.schema.raw_schema["paths"].items():
            for operation in item.values():
                if "security" in operation:
                    assert {"401", "403", "500", "503"} <= set(operation["responses"]), path


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", STATES)
def test_many_requests(tmp_path: Path, name: str, seed: int) -> None:
    state = STATES[name]
    assert_nothing_stands(examine(tmp_path, state, configured(300, seed)), state)
