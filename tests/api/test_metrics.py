"""What Prometheus reads, who may read what, and that what is drawn and alerted on exists."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from api.conftest import Api, error_of
from prometheus_client.parser import text_string_to_metric_families
from service.fakes import FakeEngine, ids, reply_with

from prefixmux_server.api.app import create_app
from prefixmux_server.service.lifecycle import Lifecycle
from prefixmux_server.settings import Settings
from prefixmux_server.wiring import build_services
from prefixmux_store.store import PrefixStore

pytestmark = pytest.mark.anyio

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NAME = re.compile(r"prefixmux:[a-z0-9_]+")
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scraped(client: httpx2.AsyncClient, key: str | None = None) -> Series:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = await client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(answer.text)


def named(series: Series, name: str, **labels: str) -> float:
    return series[f"prefixmux:{name}", frozenset(labels.items())]


@asynccontextmanager
async def opened(store: PrefixStore, **settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """An application of other settings."""
    engine = FakeEngine()
    services = build_services(Settings(model="tiny", **settings), store, engine, Lifecycle())
    with services.generation:
        transport = httpx2.ASGITransport(app=create_app(services))
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


async def test_a_generation_is_counted(api: Api) -> None:
    await api.put("e2e")
    api.engine.reply = reply_with(ids("hello"), "eos")
    for _ in range(3):
        assert (await api.generate(task_id="e2e", input="abc")).status_code == 200
    await api.generate(task_id="missing", input="abc")
    series = await scraped(api.client)
    assert named(series, "generation_tokens_total") == 3 * len(ids("hello"))
    assert named(series, "prompt_tokens_total") == 9
    assert named(series, "prefix_tokens_total") == 9
    assert named(series, "request_failures_total", code="task_not_found") == 1
    of_task = {"tenant": "default", "task": "e2e"}
    assert named(series, "tenant_requests_total", code="ok", **of_task) == 3
    assert named(series, "tenant_prompt_tokens_total", **of_task) == 9
    answered = {"method": "POST", "route": "/generate", "status": "200"}
    assert named(series, "http_requests_total", **answered) == 3
    assert named(series, "http_requests_total", **(answered | {"status": "404"})) == 1
    assert named(series, "num_requests_running") == 0
    assert named(series, "num_requests_waiting") == 0


async def test_a_client_that_guesses_makes_no_series(api: Api) -> None:
    await api.generate(task_id="missing", input="a")
    await api.client.get("/nothing/x")
    before = set(await scraped(api.client))
    for n in range(200):
        await api.generate(task_id=f"secret-{n}", input="a")
        await api.client.get(f"/secret/{n}?secret={n}")
        await api.client.get(f"/prefixes/secret-{n}", headers={"x-request-id": f"secret-{n}"})
    after = set(await scraped(api.client))
    assert {name for name, _ in after - before} <= {
        "prefixmux:http_requests_total",
        *(f"prefixmux:http_request_duration_seconds_{end}" for end in ("bucket", "sum", "count")),
    }
    assert {dict(labels).get("route") for _, labels in after - before} == {
        "/metrics",
        "/prefixes/{task_id}",
    }


async def test_a_tenant_sees_its_own_series_and_the_servers(store: PrefixStore) -> None:
    keys = {name: store.keys.create(name, ("generate", "read")).key for name in ("acme", "rival")}
    async with opened(store) as client:
        for key in keys.values():
            headers = {"authorization": f"Bearer {key}"}
            await client.post("/generate", json={"input": "abc"}, headers=headers)
        series = await scraped(client, keys["acme"])
        tenants = {dict(labels)["tenant"] for _, labels in series if "tenant" in dict(labels)}
        assert tenants == {"acme"}
        assert named(series, "prompt_tokens_total") == 6
        error_of(await client.get("/metrics"), 401, "unauthorized")
        blind = store.keys.create("acme", ("generate", "write")).key
        refused = await client.get("/metrics", headers={"authorization": f"Bearer {blind}"})
        error_of(refused, 403, "forbidden")
    async with opened(store, metrics_open=True) as client:
        headers = {"authorization": f"Bearer {keys['rival']}"}
        await client.post("/generate", json={"input": "abc"}, headers=headers)
        labels = [dict(labels) for _, labels in await scraped(client)]
        assert {found["tenant"] for found in labels if "tenant" in found} == {"rival"}


def expressions(value: object) -> Iterator[str]:
    """Every `expr` and `query` of a document."""
    if isinstance(value, list):
        for item in value:
            yield from expressions(item)
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("expr", "query") and isinstance(item, str):
                yield item
            yield from expressions(item)


async def test_what_is_drawn_and_alerted_on_exists(api: Api) -> None:
    answer = await api.client.get("/metrics")
    known = {
        name
        for family in text_string_to_metric_families(answer.text)
        for name in (
            family.name,
            *(sample.name for sample in family.samples),
            *(f"{family.name}_{end}" for end in ("total", "bucket", "sum", "count")),
        )
    }
    drawn = json.loads((DEPLOY / "grafana/dashboards/prefixmux.json").read_text())
    rules = yaml.safe_load((DEPLOY / "prometheus/rules/prefixmux.yml").read_text())
    for document, least in [(drawn, 15), (rules, 5)]:
        asked = {name for text in expressions(document) for name in NAME.findall(text)}
        assert len(asked) >= least
        assert asked <= known


async def test_the_operating_guide_names_every_metric(api: Api) -> None:
    answer = await api.client.get("/metrics")
    told = re.findall(r"`([a-z0-9_]+)`", (DEPLOY.parent / "docs/operating.md").read_text())
    for family in text_string_to_metric_families(answer.text):
        name = family.name.removeprefix("prefixmux:")
        assert {name, f"{name}_total"} & set(told), name


async def test_the_dashboard_and_the_rules_are_well_formed() -> None:
    drawn = json.loads((DEPLOY / "grafana/dashboards/prefixmux.json").read_text())
    assert (drawn["uid"], drawn["id"]) == ("prefixmux", None)
    ids_of_panels = [panel["id"] for panel in drawn["panels"]]
    assert len(ids_of_panels) == len(set(ids_of_panels)) >= 12
    for panel in drawn["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["targets"]
            assert panel["description"].endswith(".")
            assert panel["datasource"]["uid"] == "${datasource}"
    rules = yaml.safe_load((DEPLOY / "prometheus/rules/prefixmux.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert {"alert", "expr", "for", "labels", "annotations"} <= set(rule)
            assert rule["annotations"]["description"].endswith(".")
