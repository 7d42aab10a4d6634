"""The tasks of a key, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from web.browser import Visit, visit
from web.conftest import DEMO, TASKS, Site

PLANTED = "<img src=x onerror=window.violations.push('planted')>"


@pytest.fixture
def fresh(site: Site) -> Iterator[str]:
    """A task with two versions, of which the second is active."""
    with site.client() as client:
        for content in ("hotel", "laptop"):
            client.prefixes.upload("fresh", DEMO / "prefixes" / content, description=PLANTED)
        yield "fresh"
        client.prefixes.delete("fresh")


def test_a_wrong_key_then_a_right_one_then_out(browser: Browser, site: Site) -> None:
    with visit(browser, site.address) as visitor:
        visitor.expected = {401}
        visitor.sign_in("pmx_wrong")
        expect(visitor.page.get_by_role("alert")).to_contain_text("no key of this server")
        visitor.page.get_by_label("Key").fill(site.key)
        visitor.page.keyboard.press("Enter")
        expect(visitor.page.get_by_role("heading", name="Tasks")).to_be_visible()
        (cookie,) = visitor.page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/ui")
        assert visitor.page.evaluate("document.cookie") == ""
        visitor.page.get_by_role("button", name="Sign out").click()
        expect(visitor.page.get_by_label("Key")).to_be_visible()
        assert visitor.page.context.cookies() == []


def test_a_link_of_another_site_finds_who_is_signed_in(visitor: Visit) -> None:
    """The browser sends such a cookie only when the page itself asks."""
    visitor.expected = {401}
    visitor.page.goto("about:blank")
    visitor.page.set_content(f'<a href="{visitor.address}/ui/tasks/e2e">e2e</a>')
    visitor.page.get_by_role("link").click()
    expect(visitor.page.get_by_role("heading", name="e2e")).to_be_visible()
    visitor.page.context.clear_cookies()
    visitor.page.goto("about:blank")
    visitor.page.set_content(f'<a href="{visitor.address}/ui/tasks/e2e">e2e</a>')
    visitor.page.get_by_role("link").click()
    expect(visitor.page.get_by_label("Key")).to_be_visible()


def test_the_list_needs_no_script(browser: Browser, site: Site) -> None:
    with visit(browser, site.address, key=site.key, java_script_enabled=False) as visitor:
        visitor.open()
        assert set(TASKS) <= set(visitor.names())
        visitor.page.get_by_label("Part of a task’s name").fill("snip")
        visitor.page.get_by_role("button", name="Find").click()
        assert visitor.names() == ["snips"]
        visitor.page.get_by_role("link", name="snips").click()
        expect(visitor.page.get_by_role("article")).to_contain_text("PREFIX_TUNING")
        assert visitor.page.locator("button[data-act]:visible").count() == 0


def test_tasks_have_colours_of_their_own(visitor: Visit) -> None:
    found = visitor.page.locator("#list .task").evaluate_all(
        "all => all.map((one) => getComputedStyle(one, '::before').backgroundColor)"
    )
    assert len(set(found)) == len(found) >= len(TASKS)
    assert (
        visitor.page.evaluate("""async () => {
      const { tint } = await import("/ui/static/common.js");
      const node = document.createElement("i");
      tint(node, "e2e");
      return node.style.cssText;
    }""")
        == "--hue: 15; --shade: 7%;"
    )  # for ever: who knows a task by its colour goes on to


def test_versions_are_activated_pinned_and_deleted(visitor: Visit, fresh: str) -> None:
    page = visitor.page
    visitor.open(f"/ui/tasks/{fresh}")
    expect(page.get_by_role("article").first).to_contain_text("Version 2 active")
    expect(page.get_by_role("article").first).to_contain_text(PLANTED)
    older = page.get_by_role("article", name=re.compile("Version 1"))
    older.get_by_role("button", name="Activate").click()
    expect(page.get_by_role("article").first).to_contain_text("Version 1 active")
    older.get_by_role("button", name="Pin").click()
    expect(older.get_by_text("pinned")).to_be_visible()
    older.get_by_role("button", name="Unpin").click()
    expect(older.get_by_text("pinned")).to_be_hidden()
    newer = page.get_by_role("article", name=re.compile("Version 2"))
    newer.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text("version 2 of fresh")
    page.keyboard.press("Escape")
    expect(newer).to_be_visible()
    newer.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(newer).to_have_count(0)
    assert older.count() == 1


def test_what_another_has_deleted_is_told(visitor: Visit, site: Site) -> None:
    with site.client() as client:
        client.prefixes.upload("gone", DEMO / "prefixes" / "tv")
        visitor.open("/ui/tasks/gone")
        client.prefixes.delete("gone")
    visitor.expected = {404}
    visitor.page.get_by_role("button", name="Pin").click()
    expect(visitor.said).to_contain_text("task_not_found")
    visitor.page.get_by_role("button", name="Delete task").click()
    visitor.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(visitor.said).to_contain_text("task_not_found")


def test_a_reader_can_change_nothing(browser: Browser, site: Site) -> None:
    with visit(browser, site.address, key=site.reader) as visitor:
        visitor.open()
        assert set(TASKS) <= set(visitor.names())
        assert visitor.page.locator("#upload").count() == 0
        expect(visitor.page.get_by_role("link", name="Playground")).to_have_count(0)
        visitor.open("/ui/tasks/e2e")
        expect(visitor.page.get_by_role("article")).to_be_visible()
        assert visitor.page.locator("main button").count() == 0
