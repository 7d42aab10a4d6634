"""The step record as the demo's table reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2
import pytest
from demo.steps import PAGE, fetch_steps, fullest_step, shared_steps


def _step(number: int, *rows: tuple[str, str | None]) -> dict[str, Any]:
    return {"step": number, "rows": [{"request_id": name, "task_id": task} for name, task in rows]}


RECORD = [
    _step(4, ("a", "e2e")),
    _step(5, ("a", "e2e"), ("b", "scan"), ("c", None)),
    _step(6, ("b", "scan"), ("c", None)),
    _step(7, ("c", None), ("d", None)),
]


def test_the_whole_record_is_read_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    record = [_step(number, ("a", None)) for number in range(5, 5 + 2 * PAGE)]

    def get(_url: str, *, params: Mapping[str, int], timeout: float) -> httpx2.Response:
        later = [step for step in record if step["step"] > params["since"]]
        page = {"items": later[: params["limit"]]}
        return httpx2.Response(200, json=page, request=httpx2.Request("GET", "http://there/steps"))

    monkeypatch.setattr(httpx2, "get", get)
    assert fetch_steps("http://there") == record


def test_a_request_is_shown_with_its_span_and_its_largest_company() -> None:
    assert str(shared_steps(RECORD, "a")) == "4-5 (with up to 2 others)"
    assert str(shared_steps(RECORD, "d")) == "7-7 (with up to 1 others)"


def test_a_request_that_the_record_has_lost_has_no_span() -> None:
    assert shared_steps(RECORD, "gone") is None


def test_the_fullest_step_counts_requests_and_tasks() -> None:
    assert fullest_step(RECORD) == (3, 2)
    assert fullest_step([]) == (0, 0)
