"""Every page light and dark, wide and narrow: nothing juts out, all can be read and named."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from web.browser import NARROW, WIDE, visit
from web.conftest import Site

PAGES = {
    "tasks": "/ui",
    "task": "/ui/tasks/e2e",
    "playground": "/ui/playground?task=e2e&task=hotel",
    "live": "/ui/live",
    "missing": "/ui/tasks/missing",
}
UNNAMED = """all => all.filter((one) =>
  !one.labels?.length && !one.getAttribute("aria-label")).map((one) => one.outerHTML)"""
# The contrast of each text with what lies under it, as WCAG reckons it; the least of all.
FAINT = """() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colour) => {
    paint.clearRect(0, 0, 1, 1);
    paint.fillStyle = colour;
    paint.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = paint.getImageData(0, 0, 1, 1).data;
    const line = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return a < 250 ? null : 0.2126 * line(r) + 0.7152 * line(g) + 0.0722 * line(b);
  };
  const under = (node) => {
    for (; node; node = node.parentElement) {
      const found = light(getComputedStyle(node).backgroundColor);
      if (found !== null) return found;
    }
    return 1;
  };
  const faint = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    const unseen = "button:disabled, noscript, .hidden, .skip";
    if (!texts.currentNode.data.trim() || !node.checkVisibility() || node.closest(unseen)) continue;
    const pair = [light(getComputedStyle(node).color), under(node)].sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (contrast < 4.5) faint.push(`${contrast.toFixed(2)} ${texts.currentNode.data.trim()}`);
  }
  return faint;
}"""


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page(
    browser: Browser,
    site: Site,
    tmp_path: Path,
    size: tuple[int, int],
    scheme: Literal["light", "dark"],
) -> None:
    with visit(browser, site.address, size, color_scheme=scheme) as visitor:
        visitor.expected = {401, 404}
        page = visitor.page
        visitor.open()
        looked = ["sign-in", *PAGES]
        for name in looked:
            if name in PAGES:
                visitor.open(PAGES[name])
            expect(page.locator("h1")).to_have_count(1)
            assert visitor.overflow() <= 0, name
            assert page.locator("input, textarea").evaluate_all(UNNAMED) == [], name
            assert page.evaluate(FAINT) == [], name
            page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
            if name == "sign-in":
                visitor.sign_in(site.key)
                expect(page.locator("table")).to_be_visible()
        dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (dark == "rgb(18, 20, 22)") is (scheme == "dark")


def test_the_keyboard_is_enough(browser: Browser, site: Site) -> None:
    with visit(browser, site.address, key=site.key) as visitor:
        visitor.open()
        keyboard, focused = visitor.page.keyboard, visitor.page.locator(":focus")
        keyboard.press("Tab")
        expect(focused).to_have_text("Skip to the content")
        keyboard.press("Enter")
        expect(focused).to_have_attribute("id", "main")
        keyboard.press("Tab")
        expect(focused).to_have_attribute("id", "query")
        assert (
            visitor.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            == "solid"
        )
