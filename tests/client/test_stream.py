"""`stream`: the events of an answer, its end, and every way in which it may end early."""

from __future__ import annotations

import httpx2
import pytest
from client.events import Streaming, done, error, event, token
from client.scripted import ScriptedServer, generation, refusal, sent_json

import prefixmux
from prefixmux import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    PrefixmuxError,
    Stream,
    TokenEvent,
)
from prefixmux.statuses import STATUS_OF_CODE, class_of

Servers = type[ScriptedServer]

KEEP_ALIVE = b": keep-alive\n\n"
WHOLE = [token("a "), token("p\u00fcb"), token("", ids=[2]), done(text="a p\u00fcb")]


def read(server: ScriptedServer, max_retries: int = 0) -> tuple[list[TokenEvent], Stream]:
    with server.client(max_retries).stream("e2e", "x") as stream:
        return list(stream), stream


def test_a_stream_asks_for_one_and_tells_tokens_and_then_the_answer(scripted: Servers) -> None:
    server = scripted(Streaming(*WHOLE))
    with server.client(api_key="k-1").stream(
        "e2e", "name : Aromi", version=3, max_new_tokens=5, seed=None
    ) as stream:
        events = list(stream)
        assert stream.request_id == "r-7"
    assert sent_json(server.last) == {
        "task_id": "e2e",
        "version": 3,
        "input": "name : Aromi",
        "parameters": {"max_new_tokens": 5},
        "stream": True,
    }
    assert server.last.headers["accept"] == "text/event-stream"
    assert [event.text for event in events] == ["a ", "p\u00fcb", ""]
    assert [event.token_ids for event in events] == [(5,), (5,), (2,)]
    assert stream.response.text == "a p\u00fcb"
    assert stream.response.request_id == "r-7"


def test_keep_alives_and_events_of_newer_servers_say_nothing(scripted: Servers) -> None:
    noise = [KEEP_ALIVE, event("colour", "blue"), b"data: x\n\n", b"retry: 5\n\n"]
    events, stream = read(scripted(Streaming(*noise, WHOLE[0], *noise, *WHOLE[1:])))
    assert len(events) == 3
    assert stream.response.id == "g-1"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_it_matters_not_how_the_bytes_are_cut_in_pieces(scripted: Servers, size: int) -> None:
    body = b"".join(WHOLE)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    events, stream = read(scripted(Streaming(*pieces)))
    assert "".join(event.text or "" for event in events) == stream.response.text


def test_log_probabilities_come_with_their_tokens(scripted: Servers) -> None:
    top = [{"token_id": 5, "token": "a", "logprob": -0.1}]
    given = {"token_id": 5, "token": "a", "logprob": -0.1, "top": top}
    data = {"index": 1, "text": "a", "token_ids": [5], "logprobs": [given]}
    (tokens,), _ = read(scripted(Streaming(event("token", data), done())))
    assert tokens.index == 1
    assert tokens.logprobs is not None
    assert (tokens.logprobs[0].logprob, tokens.logprobs[0].top[0].token) == (-0.1, "a")


def test_the_text_stream_is_the_first_outputs(scripted: Servers) -> None:
    pieces = [token("a "), token("b", index=1), token(None), token(""), token("pub"), done()]
    with scripted(Streaming(*pieces)).client().stream("e2e", "x", n=2) as stream:
        assert list(stream.text_stream) == ["a ", "pub"]
    assert stream.response.id == "g-1"


def test_until_done_passes_over_what_is_left(scripted: Servers) -> None:
    with scripted(Streaming(*WHOLE)).client().stream("e2e", "x") as stream:
        assert next(stream).text == "a "
        assert stream.until_done().text == "a p\u00fcb"
        assert stream.until_done() is stream.response
        assert list(stream) == []


def test_the_answer_is_there_only_after_the_end(scripted: Servers) -> None:
    with scripted(Streaming(*WHOLE)).client().stream("e2e", "x") as stream:
        next(stream)
        with pytest.raises(PrefixmuxError, match="has not ended"):
            _ = stream.response


def test_leaving_early_closes_the_connection(scripted: Servers) -> None:
    answer = Streaming(*WHOLE)
    with scripted(answer).client().stream("e2e", "x") as stream:
        next(stream)
    assert answer.body.closed
    assert answer.body.sent < len(WHOLE)


def test_leaving_by_an_exception_closes_the_connection(scripted: Servers) -> None:
    answer = Streaming(*WHOLE)
    with (
        pytest.raises(ZeroDivisionError),
        scripted(answer).client().stream("e2e", "x") as stream,
    ):
        _ = len(next(stream).token_ids) // 0
    assert answer.body.closed


def test_a_stream_may_be_closed_at_once_and_twice(scripted: Servers) -> None:
    answer = Streaming(*WHOLE)
    with scripted(answer).client().stream("e2e", "x") as stream:
        stream.close()
        assert answer.body.closed
        stream.close()
        assert list(stream) == []


def test_the_end_is_not_waited_for_behind_the_last_event(scripted: Servers) -> None:
    broken = Streaming(*WHOLE, failure=httpx2.ReadError("cut"))
    _, stream = read(scripted(broken))
    assert stream.response.text == "a p\u00fcb"


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (None, APIConnectionError),
        (httpx2.ReadError("cut"), APIConnectionError),
        (httpx2.RemoteProtocolError("incomplete chunked read"), APIConnectionError),
        (httpx2.ReadTimeout("slow"), APITimeoutError),
    ],
)
def test_a_stream_cut_at_any_byte_is_an_error_and_never_a_short_answer(
    failure: Exception | None, kind: type[Exception]
) -> None:
    """Also where the connection was closed in order, as a dying proxy does."""
    body = b"".join([KEEP_ALIVE, token("a\u00fc"), done()])
    for length in range(len(body)):
        server = ScriptedServer(Streaming(body[:length], failure=failure))
        with pytest.raises(kind) as caught:
            read(server, max_retries=2)
        assert type(caught.value) is kind
        assert "http://server" in str(caught.value)
        assert len(server.requests) == 1


@pytest.mark.parametrize("length", [0, 20, 60, 61, 120, 200])
def test_a_cut_is_an_error_for_both_clients(scripted: Servers, length: int) -> None:
    body = b"".join([KEEP_ALIVE, token("a"), done()])
    with pytest.raises(APIConnectionError):
        read(scripted(Streaming(body[:length])))


@pytest.mark.parametrize("code", sorted(STATUS_OF_CODE))
def test_an_error_event_raises_the_class_of_its_code(code: str) -> None:
    server = ScriptedServer(Streaming(token("a"), error(code, reason="why", param="input")))
    with pytest.raises(APIStatusError) as caught:
        read(server, max_retries=2)
    assert type(caught.value) is class_of(STATUS_OF_CODE[code])
    assert (caught.value.code, caught.value.param, caught.value.reason) == (code, "input", "why")
    assert caught.value.request_id == "r-7"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("deadline_exceeded", prefixmux.GatewayTimeoutError),
        ("draining", prefixmux.ServiceUnavailableError),
        ("of_a_newer_server", prefixmux.InternalServerError),
    ],
)
def test_an_error_event_is_raised_by_both_clients(
    scripted: Servers, code: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        read(scripted(Streaming(error(code, request_id="r-9"))))


@pytest.mark.parametrize(
    "body",
    [
        event("token", "{"),
        event("token", {"index": 0}),
        event("done", "x"),
        event("done", {"id": "g"}),
        event("error", {"error": "x"}),
        b"event: done\n\n",
    ],
)
def test_an_event_that_cannot_be_read_is_a_typed_error(scripted: Servers, body: bytes) -> None:
    with pytest.raises(APIResponseError):
        read(scripted(Streaming(body, done())))


def test_an_answer_that_is_no_stream_is_a_typed_error(scripted: Servers) -> None:
    page = Streaming(b"<html>", content_type="text/html")
    with pytest.raises(APIResponseError, match="something else"):
        read(scripted(page))
    assert page.body.closed


def test_what_was_refused_before_the_stream_began_is_sent_again(scripted: Servers) -> None:
    busy = refusal(503, "engine_unavailable", headers={"retry-after": "0"})
    server = scripted(busy, Streaming(*WHOLE))
    with server.client(max_retries=1).stream("e2e", "x") as stream:
        assert stream.until_done().text == "a p\u00fcb"
    assert len(server.requests) == 2


def test_an_error_before_the_stream_is_raised_on_entering(scripted: Servers) -> None:
    server = scripted(refusal(404, "task_not_found"))
    with (
        pytest.raises(prefixmux.NotFoundError, match="task_not_found"),
        server.client().stream("e2e", "x"),
    ):
        pytest.fail("there is no such task")


def test_a_long_answer_has_a_long_last_event(scripted: Servers) -> None:
    text = "x" * 3_000_000
    _, stream = read(scripted(Streaming(token(text), done(text=text))))
    assert stream.response.text == text


def test_the_answer_equals_that_of_generate(scripted: Servers) -> None:
    _, stream = read(scripted(Streaming(done())))
    plain = scripted(httpx2.Response(200, json=generation())).client().generate("e2e", "x")
    assert stream.response == plain
