"""The batch while it runs, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import httpx2
from api.served import until
from playwright.sync_api import expect

from web.browser import Visit
from web.conftest import Site

NAMES = ["another tenant", "bare model", "e2e", "hotel"]


@contextmanager
def under_way(site: Site, *requests: tuple[str, str | None]) -> Iterator[None]:
    """A row for each, of a key and a task, however fast the machine is: when one has ended, the
    next begins."""
    over = Event()
    with ThreadPoolExecutor(len(requests)) as pool:
        running = [pool.submit(_run, site.address, key, task, over) for key, task in requests]
        try:
            yield
        finally:
            over.set()
    for one in running:
        one.result()


def _run(address: str, key: str, task: str | None, over: Event) -> None:
    body = {
        "task_id": task,
        "input": "name : Aromi",
        "parameters": {"max_new_tokens": 400, "ignore_eos": True},
        "stream": True,
    }
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=address, headers=headers, timeout=60) as client:
        while not over.is_set():
            with client.stream("POST", "/generate", json=body) as answer:
                assert answer.status_code == 200
                for _ in answer.iter_bytes():
                    if over.is_set():
                        break


def test_rows_of_all_and_names_of_ones_own(visitor: Visit, site: Site) -> None:
    page = visitor.page
    visitor.open("/ui/live")
    expect(page.get_by_text("Nothing runs now.")).to_be_visible()
    rows = page.locator("#batch li")

    def colours() -> set[str]:
        return set(
            rows.locator("i.decode").evaluate_all(
                "all => all.map((one) => getComputedStyle(one).backgroundColor)"
            )
        )

    with under_way(
        site, (site.key, "e2e"), (site.key, "hotel"), (site.foreign, "secret"), (site.key, None)
    ):
        until(lambda: sorted(rows.locator(".name").all_inner_texts()) == NAMES)
        assert "secret" not in page.content() and "globex" not in page.content()
        expect(page.locator("#running")).to_have_text("4")
        expect(page.locator("#rows")).not_to_have_text("–")
        until(lambda: len(colours()) == len(NAMES))
        e2e, bare = rows.filter(has_text="e2e"), rows.filter(has_text="bare model")
        expect(e2e.locator(".tokens")).to_contain_text("20 + 5 + ")
        expect(bare.locator(".tokens")).to_contain_text("0 + 5 + ")
        for part in ("prefix", "prompt", "decode"):
            expect(e2e.locator(f"i.{part}")).not_to_have_css("width", "0px")
    expect(page.get_by_text("Nothing runs now.")).to_be_visible()
    expect(page.locator("#running")).to_have_text("0")


def test_it_can_be_held_still(visitor: Visit, site: Site) -> None:
    page = visitor.page
    rows = page.locator("#batch li")
    visitor.open("/ui/live")
    with under_way(site, (site.key, "e2e")):
        expect(rows).to_have_count(1)
        page.get_by_role("button", name="Pause").click()
        held = rows.count()
    expect(page.get_by_role("button", name="Go on")).to_have_attribute("aria-pressed", "true")
    assert rows.count() == held
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("Nothing runs now.")).to_be_visible()
