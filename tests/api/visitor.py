"""A browser as far as cookies and headers go, over the application itself."""

from __future__ import annotations

from typing import Any

import httpx2
from api.conftest import Api

HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PAGES = ["/ui", "/ui/tasks/e2e", "/ui/playground", "/ui/live"]


class Visitor:
    """With `key`, signed in."""

    def __init__(self, api: Api, key: str | None = None) -> None:
        self.api = api
        self.cookie = {} if key is None else {"cookie": f"prefixmux_key={key}"}

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.api.client.get(path, headers={**HTML, **self.cookie, **headers})

    async def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        return await self.api.client.post(path, json=body, headers={**self.cookie, **headers})

    async def sign_in(self, key: str, **headers: str) -> httpx2.Response:
        sent = {**HTML, "origin": "http://test", **headers}
        return await self.api.client.post("/ui/sign-in", data={"key": key}, headers=sent)
