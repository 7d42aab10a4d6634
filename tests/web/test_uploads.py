"""Uploads by drag and drop, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from web.browser import Visit, folder
from web.conftest import DEMO, Site

PLANTED = "<img src=x onerror=window.violations.push('planted')>"


def upload(visitor: Visit) -> None:
    visitor.page.get_by_role("button", name="Upload").click()


def test_pefts_two_files_dropped_together(visitor: Visit, site: Site) -> None:
    files = folder(DEMO / "prefixes" / "tv")
    visitor.drop(files)
    expect(visitor.page.locator("#chosen li")).to_have_count(2)
    visitor.page.get_by_label("Task", exact=True).fill("dropped")
    visitor.page.get_by_label("Description").fill(PLANTED)
    upload(visitor)
    expect(visitor.said).to_contain_text("dropped has version 1 now")
    expect(visitor.page.locator("#list tbody th", has_text="dropped")).to_be_visible()
    with site.client() as client:
        (version,) = client.prefixes.versions("dropped")
        assert version.description == PLANTED
        expect(visitor.said).to_contain_text(version.prefix_digest)
        visitor.drop(files)
        visitor.page.get_by_label("Task", exact=True).fill("dropped")
        upload(visitor)
        expect(visitor.said).to_contain_text("holds the same content already, as version 1")
        client.prefixes.delete("dropped")


def test_a_folder_or_a_native_file_dropped_by_hand(
    visitor: Visit, site: Site, tmp_path: Path
) -> None:
    """As the browser itself hears of a drop, with the files' names for their tasks'."""
    with site.client() as client:
        native = tmp_path / "My Native.safetensors"
        client.prefixes.download("hotel", native)
        for path, task in ((DEMO / "prefixes" / "restaurant", "restaurant"), (native, "my-native")):
            by_hand(visitor, path)
            expect(visitor.page.get_by_label("Task", exact=True)).to_have_value(task)
            upload(visitor)
            expect(visitor.said).to_contain_text(f"{task} has version 1 now")
            client.prefixes.delete(task)


def by_hand(visitor: Visit, path: Path) -> None:
    visitor.page.locator("#upload").wait_for()
    zone = visitor.page.locator("#drop").bounding_box()
    assert zone is not None
    browser = visitor.page.context.new_cdp_session(visitor.page)
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.send(
            "Input.dispatchDragEvent",
            {
                "type": kind,
                "x": zone["x"] + 20,
                "y": zone["y"] + 10,
                "data": {"items": [], "files": [str(path)], "dragOperationsMask": 1},
            },
        )
    browser.detach()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"evil.bin": b"\x80\x04" + b"x" * 64}, ["unsafe_format"]),
        ({"cut.safetensors": b"\xff" * 4}, ["invalid_prefix", "truncated"]),
        ({"adapter_config.json": b"{", "adapter_model.safetensors": b""}, ["invalid_prefix"]),
    ],
    ids=["pickle", "truncated", "no JSON"],
)
def test_what_the_validator_says_is_shown(
    visitor: Visit, files: dict[str, bytes], told: list[str]
) -> None:
    visitor.expected = {415, 422}
    visitor.drop(files)
    visitor.page.get_by_label("Task", exact=True).fill("bad")
    upload(visitor)
    for word in [*told, "request id"]:
        expect(visitor.said).to_contain_text(word)
    assert "bad" not in visitor.names()


def test_half_of_an_adapter_is_told_before_it_is_sent(visitor: Visit) -> None:
    visitor.drop({"adapter_model.safetensors": b"x"})
    expect(visitor.said).to_contain_text("drop adapter_config.json with it")
    visitor.drop({"one": b"x", "two": b"y"})
    expect(visitor.said).to_contain_text("these are 2 files")
    expect(visitor.page.get_by_role("button", name="Upload")).to_be_disabled()
