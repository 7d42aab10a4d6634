"""A server that answers what the test wrote down, and remembers what it was asked."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import httpx2
from client.awaited import awaited

from prefixmux import AsyncClient, Client

Step: TypeAlias = httpx2.Response | Exception | Callable[[httpx2.Request], httpx2.Response]


class ScriptedServer:
    """Answers its steps in order; asking more often than scripted fails the test."""

    def __init__(self, *steps: Step) -> None:
        self.requests: list[httpx2.Request] = []
        self._steps = deque(steps)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        step = self._steps.popleft()
        if isinstance(step, Exception):
            raise step
        return step(request) if callable(step) else _fresh(step)

    @property
    def last(self) -> httpx2.Request:
        return self.requests[-1]

    def http(self) -> httpx2.Client:
        return httpx2.Client(transport=httpx2.MockTransport(self))

    def client(self, max_retries: int = 0, api_key: str | None = None) -> Client:
        return Client(
            "http://server", api_key=api_key, max_retries=max_retries, http_client=self.http()
        )


def _fresh(response: httpx2.Response) -> httpx2.Response:
    """One that no client has read yet: blocking and awaited ones mark what they have."""
    return httpx2.Response(response.status_code, headers=response.headers, content=response.content)


class AwaitedServer(ScriptedServer):
    """The same for the awaited client."""

    def client(self, max_retries: int = 0, api_key: str | None = None) -> Client:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(self))
        return awaited(AsyncClient("http://server", api_key, 600, max_retries, http))


def sent_json(request: httpx2.Request) -> Any:
    return json.loads(request.content)


def refusal(
    status: int, code: str, headers: Mapping[str, str] | None = None, **fields: object
) -> httpx2.Response:
    error = {"code": code, "message": f"about {code}", "param": None, "request_id": "r-1"} | fields
    return httpx2.Response(status, json={"error": error}, headers=headers)


def generation(text: str | None = "a pub", **fields: object) -> dict[str, object]:
    body: dict[str, object] = {
        "id": "g-1",
        "tenant": "default",
        "task_id": "e2e",
        "version": 3,
        "prefix_digest": "sha256:" + "0" * 64,
        "prefixes": [
            {"task_id": "e2e", "version": 3, "digest": "sha256:" + "0" * 64, "tokens": 10}
        ],
        "model": "tiny",
        "outputs": [
            {
                "index": 0,
                "text": text,
                "token_ids": [5, 6, 2],
                "finish_reason": "eos",
                "stop": None,
                "score": None,
                "logprobs": None,
            }
        ],
        "prompt_logprobs": None,
        "seed": 7,
        "usage": {"prompt_tokens": 4, "prefix_tokens": 10, "generated_tokens": 3},
        "timing": {"queue_s": 0.1, "prefix_load_s": 0.0, "ttft_s": 0.2, "total_s": 0.3},
    }
    return body | fields


def score(**fields: object) -> dict[str, object]:
    body: dict[str, object] = {
        key: value
        for key, value in generation().items()
        if key not in ("outputs", "prompt_logprobs", "seed")
    }
    scores = [
        {
            "index": index,
            "text": text,
            "token_ids": [5],
            "logprob": logprob,
            "logprobs": [{"token_id": 5, "token": text, "logprob": logprob}],
            "is_greedy": index == 1,
        }
        for index, (text, logprob) in enumerate([(" no", -2.5), (" yes", -0.5)])
    ]
    return body | {"scores": scores} | fields


def version(number: int = 1, **fields: object) -> dict[str, object]:
    body: dict[str, object] = {
        "task_id": "e2e",
        "version": number,
        "prefix_digest": "sha256:" + "0" * 64,
        "method": "PREFIX_TUNING",
        "sites": {"decoder": 10},
        "prefix_tokens": 10,
        "bytes": 4096,
        "base_model": None,
        "description": None,
        "created_at": 1.5,
        "residency": "disk",
        "pinned": False,
        "base_fingerprint": None,
        "parts": [
            {
                "task_id": "e2e",
                "version": number,
                "digest": "sha256:" + "0" * 64,
                "tokens": 10,
                "method": "PREFIX_TUNING",
            }
        ],
        "template": None,
        "parameters": {},
    }
    return body | fields


def task(task_id: str = "e2e", active: int | None = 1) -> dict[str, object]:
    return {
        "task_id": task_id,
        "active_version": active,
        "versions": 1,
        "created_at": 1.5,
        "updated_at": 2.5,
        "active": None if active is None else version(active, task_id=task_id),
    }
