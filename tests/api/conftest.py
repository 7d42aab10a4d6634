"""The application over a real store and a scripted engine, without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from service.fakes import FakeEngine, native

from prefixmux_server.api.app import create_app
from prefixmux_server.service.lifecycle import Lifecycle
from prefixmux_server.settings import Settings
from prefixmux_server.wiring import build_services
from prefixmux_store.store import PrefixStore

MAX_BODY, MAX_UPLOAD, MAX_PREFIX_TOKENS, MAX_ROWS = 20_000, 50_000, 100, 6


@dataclass(frozen=True)
class Api:
    """The app, what it stands on, and a client of it."""

    app: FastAPI
    client: httpx2.AsyncClient
    engine: FakeEngine
    store: PrefixStore
    lifecycle: Lifecycle
    root: Path

    async def generate(self, **body: Any) -> httpx2.Response:
        return await self.client.post("/generate", json=body)

    async def put(self, task_id: str, data: bytes | None = None, **headers: str) -> dict[str, Any]:
        content = native() if data is None else data
        answer = await self.client.put(f"/prefixes/{task_id}", content=content, headers=headers)
        assert answer.is_success, answer.text
        stored: dict[str, Any] = answer.json()
        return stored

    def stored(self) -> tuple[int, int]:
        """Tasks of the catalogue and files of the store."""
        blobs = sum(1 for path in (self.root / "blobs").rglob("*") if path.is_file())
        return len(self.store.list_tasks("default", 500).items), blobs


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PrefixStore]:
    with PrefixStore.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
async def api(store: PrefixStore, tmp_path: Path) -> AsyncIterator[Api]:
    engine, lifecycle = FakeEngine(), Lifecycle()
    settings = Settings(
        model="tiny",
        store=tmp_path / "store",
        max_batch_rows=MAX_ROWS,
        max_prefix_tokens=MAX_PREFIX_TOKENS,
        max_body_bytes=MAX_BODY,
        max_upload_bytes=MAX_UPLOAD,
    )
    services = build_services(settings, store, engine, lifecycle)
    with services.audit, services.generation:
        app = create_app(services)
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            yield Api(app, client, engine, store, lifecycle, tmp_path / "store")


def error_of(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """What stands under `error`, which has to have the contract's fields and no others."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) - {"reason"} == {"code", "message", "param", "request_id"}
    assert error["code"] == code, error
    assert error["message"].endswith("."), error
    assert error["request_id"] == answer.headers["x-request-id"]
    return error
