"""One browser and one real server with the demo's tasks, for all tests here.

Both are gone when these tests end: the browser's loop must not run beside those of others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from api.served import Served, served
from playwright.sync_api import Browser, expect

from prefixmux import Client
from prefixmux_store.store import PrefixStore
from web.browser import WAIT_MS, Visit, chromium, visit

DEMO = Path(__file__).parents[2] / "demo"
TASKS = ("e2e", "hotel", "laptop", "snips")


@dataclass(frozen=True)
class Site:
    """A server and keys of it: `key` and `reader` are of one tenant, `foreign` of another."""

    server: Served
    key: str
    reader: str
    foreign: str

    @property
    def address(self) -> str:
        return str(self.server.client.base_url).rstrip("/")

    def client(self, key: str | None = None) -> Client:
        return Client(self.address, api_key=key or self.key)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=WAIT_MS)
    with chromium() as running:
        yield running


@pytest.fixture(scope="package")
def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Not started where there is no browser."""
    store = tmp_path_factory.mktemp("site") / "store"
    with PrefixStore.open(store) as opened:
        key = opened.keys.create("acme", ("admin",)).key
        reader = opened.keys.create("acme", ("read",)).key
        foreign = opened.keys.create("globex", ("admin",)).key
    with served(DEMO / "model", store) as server:
        made = Site(server, key, reader, foreign)
        with made.client() as client:
            for name in TASKS:
                client.prefixes.upload(name, DEMO / "prefixes" / name)
        with made.client(foreign) as client:
            client.prefixes.upload("secret", DEMO / "prefixes" / "tv")
        yield made


@pytest.fixture
def visitor(browser: Browser, site: Site) -> Iterator[Visit]:
    """Signed in with every scope."""
    with visit(browser, site.address, key=site.key) as visiting:
        visiting.open()
        yield visiting
