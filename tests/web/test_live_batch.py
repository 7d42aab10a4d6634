"""The batch while it runs, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from playwright.sync_api import expect
from web.browser import Visit
from web.conftest import Site


@contextmanager
def under_way(site: Site, *requests: tuple[str, str | None]) -> Iterator[None]:
    """Streams that nobody reads: each has its row until it is closed. Of keys and tasks."""
    with ExitStack() as stack:
        for key, task in requests:
            stream = site.server.client.stream(
                "POST",
                "/generate",
                json={
                    "task_id": task,
                    "input": "name : Aromi",
                    "parameters": {"max_new_tokens": 400, "ignore_eos": True},
                    "stream": True,
                },
                headers={"authorization": f"Bearer {key}"},
            )
            assert stack.enter_context(stream).status_code == 200
        yield


def test_rows_of_all_and_names_of_ones_own(visitor: Visit, site: Site) -> None:
    page = visitor.page
    visitor.open("/ui/live")
    expect(page.get_by_text("Nothing runs now.")).to_be_visible()
    rows = page.locator("#batch li")
    with under_way(
        site, (site.key, "e2e"), (site.key, "hotel"), (site.foreign, "secret"), (site.key, None)
    ):
        expect(rows).to_have_count(4)
        expect(rows.locator(".name")).to_have_text(["e2e", "hotel", "another tenant", "bare model"])
        assert "secret" not in page.content() and "globex" not in page.content()
        expect(page.locator("#running")).to_have_text("4")
        expect(page.locator("#rows")).not_to_have_text("–")
        colours = rows.locator("i.decode").evaluate_all(
            "all => all.map((one) => getComputedStyle(one).backgroundColor)"
        )
        assert len(set(colours)) == 4
        expect(rows.nth(0).locator(".tokens")).to_contain_text("20 + 5 + ")
        expect(rows.nth(3).locator(".tokens")).to_contain_text("0 + 5 + ")
        widths = rows.nth(0).locator("i").evaluate_all("all => all.map((one) => one.style.width)")
        assert all(float(width.removesuffix("%")) > 0 for width in widths)
    expect(page.get_by_text("Nothing runs now.")).to_be_visible()
    expect(page.locator("#running")).to_have_text("0")


def test_it_can_be_held_still(visitor: Visit, site: Site) -> None:
    page = visitor.page
    visitor.open("/ui/live")
    with under_way(site, (site.key, "e2e")):
        expect(page.locator("#batch li")).to_have_count(1)
        page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Go on")).to_have_attribute("aria-pressed", "true")
    assert page.locator("#batch li").count() == 1
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("Nothing runs now.")).to_be_visible()
