"""When a call is sent again, and after how long; no test waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import anyio
import httpx2
import pytest
from client.scripted import AwaitedServer, ScriptedServer, generation, refusal, score, task, version

from prefixmux import APIStatusError, PrefixmuxError, RateLimitError, calls, prefix_calls
from prefixmux.call import Call
from prefixmux.requests import GenerateRequest, Kept, ScoreRequest
from prefixmux.retry import RetryPolicy
from prefixmux.sender import AsyncSender, Sender
from prefixmux.wire import Target

T = TypeVar("T")

NOW = 1_700_000_000.0
GENERATE = calls.generate(GenerateRequest("e2e", "x"))
GET_TASK = prefix_calls.get_task("e2e")
CUT = httpx2.ReadError("cut")


class Waits(list[float]):
    """Stands for `sleep`: records instead of waiting."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)

    async def awaited(self, seconds: float) -> None:
        self.append(seconds)


class Sends(Protocol):
    def send(self, call: Call[T]) -> T: ...


class Awaited:
    """An `AsyncSender` that each call runs to its end."""

    def __init__(self, sender: AsyncSender) -> None:
        self._sender = sender

    def send(self, call: Call[T]) -> T:
        return anyio.run(self._sender.send, call)


def sender(server: ScriptedServer, waits: Waits, *, retries: int = 2, jitter: float = 0) -> Sends:
    target = Target.resolve("http://server", None, 1, None)
    policy = RetryPolicy(retries, uniform=lambda: jitter, now=lambda: NOW)
    if not isinstance(server, AwaitedServer):
        return Sender(server.http(), target, policy, sleep=waits)
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(server))
    return Awaited(AsyncSender(http, target, policy, sleep=waits.awaited))


def good_generation() -> httpx2.Response:
    return httpx2.Response(200, json=generation())


def good_score() -> httpx2.Response:
    return httpx2.Response(200, json=score())


def good_version() -> httpx2.Response:
    return httpx2.Response(200, json=version())


def good_task() -> httpx2.Response:
    return httpx2.Response(200, json=task())


@pytest.mark.parametrize(
    "failure",
    [
        httpx2.ConnectError("refused"),
        httpx2.ConnectTimeout("slow"),
        refusal(429, "overloaded"),
        refusal(503, "engine_unavailable"),
    ],
)
def test_what_was_not_processed_is_sent_again(
    scripted: type[ScriptedServer], failure: httpx2.Response | Exception
) -> None:
    waits = Waits()
    server = scripted(failure, good_generation())
    assert sender(server, waits).send(GENERATE).text == "a pub"
    assert waits == [0.5]


@pytest.mark.parametrize(
    "failure",
    [CUT, httpx2.ReadTimeout("slow"), *(refusal(status, "x") for status in (408, 500, 502, 504))],
)
@pytest.mark.parametrize(
    ("call", "good"),
    [
        (GENERATE, good_generation),
        (GET_TASK, good_task),
        (calls.score(ScoreRequest(None, "x", ["y"])), good_score),
        (prefix_calls.pin("e2e", None, True), good_version),
        (prefix_calls.store("e2e", {"text": "x"}, Kept()), good_version),
    ],
)
def test_what_changes_nothing_when_done_twice_is_sent_again_after_any_failure(
    call: Call[Any], good: Callable[[], httpx2.Response], failure: httpx2.Response | Exception
) -> None:
    waits = Waits()
    assert sender(ScriptedServer(failure, good()), waits).send(call) is not None
    assert waits == [0.5]


@pytest.mark.parametrize(
    "failure",
    [CUT, httpx2.ReadTimeout("slow"), *(refusal(status, "x") for status in (500, 502, 504))],
)
def test_a_deletion_that_may_have_been_done_is_not_repeated(
    scripted: type[ScriptedServer], failure: httpx2.Response | Exception
) -> None:
    server, waits = scripted(failure), Waits()
    with pytest.raises(PrefixmuxError):
        sender(server, waits).send(prefix_calls.delete("e2e", None))
    assert (len(server.requests), waits) == (1, [])


def test_a_deletion_that_was_refused_untouched_is_repeated(scripted: type[ScriptedServer]) -> None:
    server, waits = scripted(refusal(503, "draining"), httpx2.Response(204)), Waits()
    sender(server, waits).send(prefix_calls.delete("e2e", None))
    assert waits == [0.5]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 507])
def test_refusals_are_final(scripted: type[ScriptedServer], status: int) -> None:
    waits = Waits()
    with pytest.raises(APIStatusError):
        sender(scripted(refusal(status, "x")), waits).send(GET_TASK)
    assert waits == []


def test_the_delay_doubles_up_to_its_cap_and_the_last_error_is_raised(
    scripted: type[ScriptedServer],
) -> None:
    waits = Waits()
    server = scripted(*[refusal(503, "draining")] * 7)
    with pytest.raises(APIStatusError):
        sender(server, waits, retries=6).send(GENERATE)
    assert waits == [0.5, 1, 2, 4, 8, 8]


def test_jitter_shortens_by_at_most_a_quarter(scripted: type[ScriptedServer]) -> None:
    waits = Waits()
    server = scripted(refusal(503, "draining"), good_generation())
    sender(server, waits, jitter=1).send(GENERATE)
    assert waits == [0.375]


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("3", 3),
        ("0", 0),
        ("-1", 0),
        ("0.25", 0.25),
        ("120", 120),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0),
        ("nan", 0.5),
        ("soon", 0.5),
        ("", 0.5),
    ],
)
def test_retry_after_replaces_the_backoff(
    scripted: type[ScriptedServer], header: str, wait: float
) -> None:
    waits = Waits()
    busy = refusal(429, "overloaded", headers={"retry-after": header})
    sender(scripted(busy, good_generation()), waits).send(GENERATE)
    assert waits == [wait]


@pytest.mark.parametrize("wait", ["121", "3600", "inf", "Tue, 14 Nov 2023 22:15:21 GMT"])
def test_too_long_a_retry_after_is_the_callers_to_wait(
    scripted: type[ScriptedServer], wait: str
) -> None:
    quota = refusal(429, "quota_exceeded", headers={"retry-after": wait})
    with pytest.raises(RateLimitError):
        sender(scripted(quota), Waits()).send(GENERATE)


def test_the_server_can_forbid_or_ask_for_another_attempt(scripted: type[ScriptedServer]) -> None:
    waits = Waits()
    final = refusal(504, "deadline_exceeded", headers={"x-should-retry": "false"})
    with pytest.raises(APIStatusError):
        sender(scripted(final), waits).send(GET_TASK)
    assert waits == []
    again = refusal(500, "internal_error", headers={"x-should-retry": "true"})
    sender(scripted(again, good_generation()), waits).send(GENERATE)
    assert waits == [0.5]


def test_zero_retries_means_one_attempt(scripted: type[ScriptedServer]) -> None:
    server = scripted(refusal(503, "draining"))
    with pytest.raises(APIStatusError):
        sender(server, Waits(), retries=0).send(GET_TASK)
    assert len(server.requests) == 1
