"""One input to several tasks, streaming side by side, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from api.served import until
from playwright.sync_api import Locator, Request, expect

from web.browser import Visit
from web.conftest import DEMO, Site

INPUT = "name : Aromi | eatType : pub =>"
PLANTED = "<img src=x onerror=window.violations.push('planted')>"
LONG = "endless"


@pytest.fixture(scope="module", autouse=True)
def endless(site: Site) -> Iterator[None]:
    """A task whose answers go on until they are long."""
    with site.client() as client:
        path = DEMO / "prefixes" / "e2e"
        client.prefixes.upload(LONG, path, parameters={"ignore_eos": True})
        yield


def ask(visitor: Visit, *tasks: str, tokens: int = 8, **fields: str) -> None:
    visitor.open("/ui/playground?" + "&".join(f"task={task}" for task in tasks))
    visitor.page.get_by_label("Input").fill(INPUT)
    visitor.page.get_by_label("Max new tokens").fill(str(tokens))
    for label, value in fields.items():
        visitor.page.get_by_label(label, exact=False).fill(value)
    visitor.page.get_by_role("button", name="Run").click()


def column(visitor: Visit, name: str) -> Locator:
    return visitor.page.get_by_role("region", name=name, exact=True)


def running(site: Site) -> int:
    headers = {"authorization": f"Bearer {site.key}"}
    found: int = site.server.client.get("/ui/api/live", headers=headers).json()["running"]
    return found


def test_side_by_side(visitor: Visit, site: Site) -> None:
    ask(visitor, "e2e", "hotel", tokens=12)
    expect(visitor.page.locator("#overall")).to_have_text("All answers have ended.")
    with site.client() as client:
        for task in ("e2e", "hotel", None):
            answer = client.generate(task, INPUT, max_new_tokens=12)
            shown = column(visitor, task or "bare model")
            assert shown.locator(".output").evaluate("one => one.textContent") == answer.text
            expect(shown.locator(".tokens")).to_have_text(str(answer.usage.generated_tokens))
            expect(shown.locator(".ttft")).to_contain_text("ms")
            digest = answer.prefix_digest
            told = "–" if digest is None else digest.removeprefix("sha256:")[:12]
            expect(shown.locator(".digest")).to_have_text(told)


def test_tokens_come_one_after_another_and_stop_frees_the_rows(visitor: Visit, site: Site) -> None:
    ask(visitor, LONG, tokens=400)
    endless = column(visitor, LONG)
    tokens = endless.locator(".tokens")
    expect(tokens).not_to_have_text("–")
    first = int(tokens.inner_text())
    until(lambda: int(tokens.inner_text()) > first)
    expect(endless).to_have_attribute("aria-busy", "true")
    visitor.page.get_by_role("button", name="Stop", exact=True).first.click()
    expect(endless.locator(".phase")).to_have_text("stopped")
    expect(visitor.page.locator("#stop-all")).to_be_disabled()
    until(lambda: running(site) == 0)
    assert first < int(tokens.inner_text()) < 400
    ask(visitor, LONG, tokens=400)
    expect(endless).to_have_attribute("aria-busy", "true")
    visitor.page.keyboard.press("Escape")
    expect(endless.locator(".phase")).to_have_text("stopped")
    until(lambda: running(site) == 0)


def test_one_column_is_stopped_alone_and_leaving_stops_all(visitor: Visit, site: Site) -> None:
    ask(visitor, LONG, tokens=400)
    until(lambda: running(site) >= 1)
    column(visitor, "bare model").locator(".output").wait_for()
    column(visitor, LONG).get_by_role("button", name="Stop").click()
    expect(column(visitor, LONG).locator(".phase")).to_have_text("stopped")
    visitor.page.get_by_role("checkbox", name="Bare model").uncheck()
    visitor.page.keyboard.press("Control+Enter")
    expect(visitor.page.locator(".answer")).to_have_count(1)
    until(lambda: running(site) == 1)
    visitor.open("/ui")
    until(lambda: running(site) == 0)


def test_each_column_has_its_own_error(visitor: Visit) -> None:
    visitor.expected = {404}
    ask(visitor, "e2e", "nothing")
    expect(column(visitor, "nothing").locator(".problem")).to_contain_text("task_not_found")
    expect(column(visitor, "e2e").locator(".phase")).to_have_text("at its length")


def test_parameters_go_out_as_they_were_given(visitor: Visit) -> None:
    sent: list[object] = []

    def asked(request: Request) -> None:
        if request.method == "POST":
            sent.append(request.post_data_json)

    visitor.page.on("request", asked)
    fields = {"Temperature": "0.5", "Top k": "4", "Seed": "7", "Stop, one": "\\n\nEND"}
    ask(visitor, "e2e", tokens=5, **fields)
    expect(visitor.page.locator("#overall")).to_have_text("All answers have ended.")
    expected = {"temperature": 0.5, "top_k": 4, "seed": 7, "stop": ["\n", "END"]}
    given = {"input": INPUT, "parameters": {"max_new_tokens": 5, **expected}, "stream": True}
    assert sent == [{**given, "task_id": "e2e"}, {**given, "task_id": None}]


def test_what_the_server_refuses_is_shown(visitor: Visit) -> None:
    visitor.expected = {422}
    ask(visitor, "e2e", tokens=4, Temperature="11")
    told = column(visitor, "e2e").locator(".problem")
    expect(told).to_contain_text("invalid_parameter")
    expect(told).to_contain_text("parameters.temperature")
    visitor.page.get_by_label("Temperature").fill("")
    visitor.page.get_by_label("Seed").fill("9" * 18)
    visitor.page.get_by_role("button", name="Run").click()
    expect(visitor.page.locator("#problem")).to_contain_text("seed")


def test_columns_are_added_found_and_taken_out(visitor: Visit) -> None:
    page = visitor.page
    visitor.open("/ui/playground")
    page.get_by_label("Add a task").fill("sni")
    expect(page.locator("#known option")).to_have_count(1)
    page.get_by_label("Add a task").fill("snips")
    page.keyboard.press("Enter")
    expect(page.locator(".chip")).to_have_text(["snips×"])
    assert page.url.endswith("?task=snips")
    page.get_by_label("Add a task").fill("<b>")
    page.keyboard.press("Enter")
    expect(page.locator("#problem")).to_have_text("No task has such a name.")
    for number in range(5):
        page.get_by_label("Add a task").fill(f"t{number}")
        page.keyboard.press("Enter")
    page.get_by_label("Input").fill("a")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#problem")).to_contain_text("At most 6 columns")
    page.get_by_role("button", name="Take snips out").click()
    expect(page.locator(".chip")).to_have_count(5)


@pytest.mark.parametrize("kind", ["token", "error", "refusal"])
def test_what_comes_from_a_model_or_an_error_stays_text(visitor: Visit, kind: str) -> None:
    error = {"code": PLANTED, "message": PLANTED, "param": PLANTED, "request_id": "x"}
    token = {"index": 0, "text": PLANTED, "token_ids": [1], "logprobs": None}
    events = f"event: token\ndata: {json.dumps(token)}\n\n"
    if kind == "error":
        events += f"event: error\ndata: {json.dumps({'error': error})}\n\n"
    body = json.dumps({"error": error}) if kind == "refusal" else events
    status = 422 if kind == "refusal" else 200
    visitor.expected = {422}
    visitor.page.route(
        "**/ui/api/generate",
        lambda route: route.fulfill(status=status, content_type="text/event-stream", body=body),
    )
    ask(visitor, "e2e")
    expect(column(visitor, "e2e").locator(".phase")).to_have_text("failed")
    expect(column(visitor, "e2e")).to_contain_text(PLANTED)
    assert visitor.page.locator(".answer img").count() == 0
