"""When a call is sent again, and after how long; no test waits."""

from __future__ import annotations

import httpx2
import pytest
from client.scripted import ScriptedServer, generation, refusal, task

from prefixmux import APIConnectionError, APIStatusError, PrefixmuxError, RateLimitError, calls
from prefixmux.requests import GenerateRequest
from prefixmux.retry import RetryPolicy
from prefixmux.sender import Sender
from prefixmux.wire import Target

NOW = 1_700_000_000.0
GENERATE = calls.generate(GenerateRequest("e2e", "x"))
GET_TASK = calls.get_task("e2e")
CUT = httpx2.ReadError("cut")


class Waits(list[float]):
    """Stands for `sleep`: records instead of waiting."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def sender(server: ScriptedServer, waits: Waits, *, retries: int = 2, jitter: float = 0) -> Sender:
    target = Target.resolve("http://server", None, 1, None)
    policy = RetryPolicy(retries, uniform=lambda: jitter, now=lambda: NOW)
    return Sender(server.http(), target, policy, sleep=waits)


def good_generation() -> httpx2.Response:
    return httpx2.Response(200, json=generation())


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
def test_what_was_not_processed_is_sent_again(failure: httpx2.Response | Exception) -> None:
    waits = Waits()
    server = ScriptedServer(failure, good_generation())
    assert sender(server, waits).send(GENERATE).text == "a pub"
    assert waits == [0.5]


@pytest.mark.parametrize("failure", [CUT, httpx2.ReadTimeout("slow"), refusal(502, "x")])
def test_what_may_have_been_processed_is_sent_again_only_when_repeatable(
    failure: httpx2.Response | Exception,
) -> None:
    waits = Waits()
    with pytest.raises(PrefixmuxError):
        sender(ScriptedServer(failure), waits).send(GENERATE)
    assert waits == []
    assert sender(ScriptedServer(failure, good_task()), waits).send(GET_TASK).task_id == "e2e"
    assert waits == [0.5]


def test_a_deletion_is_not_repeated_after_a_cut() -> None:
    with pytest.raises(APIConnectionError):
        sender(ScriptedServer(CUT), Waits()).send(calls.delete("e2e", None))


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 507])
def test_refusals_are_final(status: int) -> None:
    waits = Waits()
    with pytest.raises(APIStatusError):
        sender(ScriptedServer(refusal(status, "x")), waits).send(GET_TASK)
    assert waits == []


def test_the_delay_doubles_up_to_its_cap_and_the_last_error_is_raised() -> None:
    waits = Waits()
    server = ScriptedServer(*[refusal(503, "draining")] * 7)
    with pytest.raises(APIStatusError):
        sender(server, waits, retries=6).send(GENERATE)
    assert waits == [0.5, 1, 2, 4, 8, 8]


def test_jitter_shortens_by_at_most_a_quarter() -> None:
    waits = Waits()
    server = ScriptedServer(refusal(503, "draining"), good_generation())
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
        ("soon", 0.5),
        ("", 0.5),
    ],
)
def test_retry_after_replaces_the_backoff(header: str, wait: float) -> None:
    waits = Waits()
    busy = refusal(429, "overloaded", headers={"retry-after": header})
    sender(ScriptedServer(busy, good_generation()), waits).send(GENERATE)
    assert waits == [wait]


def test_too_long_a_retry_after_is_the_callers_to_wait() -> None:
    quota = refusal(429, "quota_exceeded", headers={"retry-after": "3600"})
    with pytest.raises(RateLimitError):
        sender(ScriptedServer(quota), Waits()).send(GENERATE)


def test_the_server_can_forbid_or_ask_for_another_attempt() -> None:
    waits = Waits()
    final = refusal(504, "deadline_exceeded", headers={"x-should-retry": "false"})
    with pytest.raises(APIStatusError):
        sender(ScriptedServer(final), waits).send(GET_TASK)
    assert waits == []
    again = refusal(500, "internal_error", headers={"x-should-retry": "true"})
    sender(ScriptedServer(again, good_generation()), waits).send(GENERATE)
    assert waits == [0.5]


def test_zero_retries_means_one_attempt() -> None:
    server = ScriptedServer(refusal(503, "draining"))
    with pytest.raises(APIStatusError):
        sender(server, Waits(), retries=0).send(GET_TASK)
    assert len(server.requests) == 1
