"""A real browser on the page, which watches what no visitor should ever see."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    sync_playwright,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 10_000
WIDE, NARROW = (1400, 900), (360, 740)
# Before the page's own scripts: a violation of its policy is told to nobody else.
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""
# A drop as scripts can make one.
DROP = """(zone, files) => {
  const transfer = new DataTransfer();
  for (const { name, bytes } of files)
    transfer.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name));
  for (const kind of ["dragover", "drop"])
    zone.dispatchEvent(
      new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """With a profile of its own, gone afterwards. Skips where there is no browser."""
    if CHROMIUM is None:
        pytest.skip("no chromium here (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """One tab with cookies of its own. `expected`: statuses that the browser may complain of."""

    page: Page
    address: str
    wrong: list[str] = field(default_factory=list)
    expected: set[int] = field(default_factory=set)

    def open(self, path: str = "/ui") -> None:
        self.page.goto(self.address + path)

    def sign_in(self, key: str) -> None:
        self.open()
        self.page.get_by_label("Key").fill(key)
        with self.page.expect_navigation():
            self.page.get_by_role("button", name="Sign in").click()

    def drop(self, files: Mapping[str, bytes]) -> None:
        told = [
            {"name": name, "bytes": base64.b64encode(data).decode()} for name, data in files.items()
        ]
        self.page.locator("#upload").wait_for()  # shown by the script that listens
        self.page.locator("#drop").evaluate(DROP, told)

    def names(self) -> list[str]:
        """Of the tasks that the list shows."""
        return self.page.locator("#list tbody th").all_inner_texts()

    @property
    def said(self) -> Locator:
        """Where a page tells what the server said."""
        return self.page.locator("#said")

    def overflow(self) -> int:
        """Pixels that the page is wider than its window."""
        wider: int = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return wider

    def check(self) -> None:
        violations: list[str] = self.page.evaluate("window.violations ?? []")
        assert self.wrong + violations == []

    def heard(self, message: ConsoleMessage) -> None:
        tolerated = any(f"status of {status} " in message.text for status in self.expected)
        if message.type in ("error", "warning") and not tolerated:
            self.wrong.append(message.text)

    def asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme != "data" and f"{parts.scheme}://{parts.netloc}" != self.address:
            self.wrong.append(f"asked {request.url}")


@contextmanager
def visit(
    browser: Browser,
    address: str,
    size: tuple[int, int] = WIDE,
    key: str | None = None,
    **options: Any,
) -> Iterator[Visit]:
    """With `key`, signed in before. Fails where a script failed, the policy was violated, or
    another origin was asked."""
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    context.set_default_timeout(WAIT_MS)
    context.add_init_script(WATCH)
    if key is not None:
        # As the server sets it.
        context.add_cookies(
            [
                {
                    "name": "prefixmux_key",
                    "value": key,
                    "domain": urlsplit(address).hostname or "",
                    "path": "/ui",
                    "httpOnly": True,
                    "sameSite": "Strict",
                }
            ]
        )
    visiting = Visit(context.new_page(), address.rstrip("/"))
    visiting.page.on("console", visiting.heard)
    visiting.page.on("pageerror", lambda error: visiting.wrong.append(str(error)))
    visiting.page.on("request", visiting.asked)
    try:
        yield visiting
        visiting.check()
    finally:
        context.close()


def folder(path: Path) -> dict[str, bytes]:
    """What a drop of all files of a folder holds."""
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}
