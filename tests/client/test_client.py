"""Where the client finds its server and its key, and what it closes."""

from __future__ import annotations

import httpx2
import pytest
from client.scripted import ScriptedServer, generation, refusal

from prefixmux import (
    APIConnectionError,
    Client,
    InvalidArgumentError,
    NotFoundError,
    PrefixmuxError,
)

MODEL = {
    "id": "tiny",
    "family": "causal",
    "layers": 2,
    "kv_heads": 2,
    "head_dim": 8,
    "hidden": 16,
    "vocabulary": 64,
    "dtype": "float32",
    "device": "cpu",
    "context": 128,
    "fingerprint": "sha256:" + "1" * 64,
    "methods": ["PREFIX_TUNING"],
    "sites": {"decoder": {"layers": 2, "kv_heads": 1, "k_dim": 8, "v_dim": 8}},
    "eos_token_ids": [0],
    "decoder_start_token_id": 3,
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFIXMUX_BASE_URL", raising=False)
    monkeypatch.delenv("PREFIXMUX_API_KEY", raising=False)


def asked(base_url: str | None = None, api_key: str | None = None) -> httpx2.Request:
    server = ScriptedServer(httpx2.Response(200, json={"version": "1"}))
    Client(base_url, api_key, http_client=server.http()).version()
    return server.last


def test_the_environment_names_server_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFIXMUX_BASE_URL", "https://there/sub/")
    monkeypatch.setenv("PREFIXMUX_API_KEY", "from-env")
    request = asked()
    assert request.url == "https://there/sub/version"
    assert request.headers["authorization"] == "Bearer from-env"


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFIXMUX_BASE_URL", "https://there")
    monkeypatch.setenv("PREFIXMUX_API_KEY", "from-env")
    request = asked("http://here:1", "given")
    assert request.url == "http://here:1/version"
    assert request.headers["authorization"] == "Bearer given"


def test_the_default_is_this_machine_without_a_key() -> None:
    request = asked()
    assert request.url == "http://127.0.0.1:8000/version"
    assert "authorization" not in request.headers
    assert request.headers["user-agent"].startswith("prefixmux/")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://a:b"])
def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgumentError, match="base_url"):
        Client(url)


@pytest.mark.parametrize("key", ["a\nb", "schlüssel"])
def test_a_key_that_no_header_carries_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Client("http://x", key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(("timeout", "connect"), [(600, 5), (2, 2), (None, 5)])
def test_the_timeout_bounds_silence_and_connecting_is_shorter(
    timeout: float | None, connect: float
) -> None:
    server = ScriptedServer(httpx2.Response(200, json={"version": "1"}))
    Client("http://x", timeout=timeout, http_client=server.http()).version()
    asked_for = server.last.extensions["timeout"]
    assert asked_for == {"connect": connect, "read": timeout, "write": timeout, "pool": timeout}


def test_a_given_http_client_stays_open() -> None:
    http = ScriptedServer().http()
    with Client("http://x", http_client=http):
        pass
    assert not http.is_closed


def test_the_base_url_of_a_given_http_client_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFIXMUX_BASE_URL", "https://there")
    server = ScriptedServer(httpx2.Response(200, json={"version": "1"}))
    http = httpx2.Client(base_url="http://mine", transport=httpx2.MockTransport(server))
    Client(http_client=http).version()
    assert server.last.url == "http://mine/version"


def test_using_a_closed_client_fails() -> None:
    with Client("http://127.0.0.1:9") as client:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        client.version()


def test_model_describes_the_resident_model() -> None:
    server = ScriptedServer(httpx2.Response(200, json=MODEL))
    model = server.client().model()
    assert (model.id, model.context, model.methods) == ("tiny", 128, ("PREFIX_TUNING",))
    assert (model.sites["decoder"].k_dim, model.eos_token_ids) == (8, (0,))
    assert (model.decoder_start_token_id, model.bos_token_id) == (3, None)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (httpx2.Response(200, json={"status": "ready"}), (True, "ready", None)),
        (
            httpx2.Response(503, json={"status": "starting", "reason": "loading"}),
            (False, "starting", "loading"),
        ),
        (httpx2.Response(503, content=b"<html>"), (False, "unavailable", None)),
    ],
)
def test_not_being_ready_is_an_answer(
    response: httpx2.Response, expected: tuple[bool, str, str | None]
) -> None:
    health = ScriptedServer(response).client(max_retries=2).health()
    assert (health.ready, health.status, health.reason) == expected


USAGE = {
    "tenant": "acme",
    "tasks": 2,
    "versions": 3,
    "bytes": 4096,
    "limits": {"max_tasks": 10, "max_bytes": None, "weight": 2.0},
    "items": [
        {
            "task_id": None,
            "requests": 1,
            "prompt_tokens": 4,
            "prefix_tokens": 0,
            "generated_tokens": 3,
        }
    ],
}


def test_usage_says_what_was_used_and_what_may_be(scripted: type[ScriptedServer]) -> None:
    server = scripted(httpx2.Response(200, json=USAGE))
    usage = server.client().usage()
    assert server.last.url.path == "/usage"
    assert (usage.tenant, usage.bytes, usage.limits.max_tasks) == ("acme", 4096, 10)
    assert (usage.items[0].task_id, usage.items[0].generated_tokens) == (None, 3)
    assert usage.model_dump()["limits"]["weight"] == 2.0


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_request_id_that_a_path_would_swallow_is_refused(
    scripted: type[ScriptedServer], name: str
) -> None:
    with pytest.raises(InvalidArgumentError):
        scripted().client().timeline(name)


def test_a_request_id_never_reaches_another_route(scripted: type[ScriptedServer]) -> None:
    server = scripted(refusal(404, "not_found"))
    with pytest.raises(NotFoundError):
        server.client().timeline("../model")
    assert server.last.url.raw_path == b"/requests/..%2Fmodel/timeline"


def test_each_call_may_have_its_own_timeout(scripted: type[ScriptedServer]) -> None:
    answer = httpx2.Response(200, json=generation())
    server = scripted(answer, answer, answer)
    client = server.client()
    client.generate("e2e", "x", timeout=1.5)
    client.generate("e2e", "x", timeout=None)
    client.generate("e2e", "x")
    waits = [request.extensions["timeout"]["read"] for request in server.requests]
    assert waits == [1.5, None, 600]
    assert server.requests[0].extensions["timeout"]["connect"] == 1.5


def test_options_make_another_client_over_the_same_connections(
    scripted: type[ScriptedServer],
) -> None:
    answer = httpx2.Response(200, json={"version": "1"})
    server = scripted(httpx2.ConnectError("refused"), answer, answer)
    client = server.client(max_retries=1)
    with pytest.raises(APIConnectionError):
        client.with_options(max_retries=0).version()
    client.with_options(timeout=3).version()
    client.version()
    waits = [request.extensions["timeout"]["read"] for request in server.requests]
    assert waits == [600, 3, 600]


@pytest.mark.parametrize(
    "answer", [httpx2.ConnectError("refused"), httpx2.ReadTimeout("slow"), httpx2.Response(200)]
)
def test_no_secret_is_shown(answer: httpx2.Response | Exception) -> None:
    server = ScriptedServer(answer)
    url = "http://user:planted@server:1/sub"
    client = Client(url, "planted-key", max_retries=0, http_client=server.http())
    with pytest.raises(PrefixmuxError) as caught:
        client.version()
    assert server.last.url.userinfo == b"user:planted"
    shown = (str(caught.value), client.base_url, repr(client), repr(client._sender.target))
    assert not any("planted" in text for text in shown)
    assert client.base_url == "http://server:1/sub"
