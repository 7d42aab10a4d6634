"""The bar: where somebody looks, and nowhere else."""

from __future__ import annotations

import pytest

from prefixmux.cli.progress import bar


def test_nobody_looks_at_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("uploading x") as progress:
        assert progress is None
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with bar("uploading [x]") as progress:
        assert progress is not None
        progress(1 << 20, 4 << 20)
        progress(4 << 20, 4 << 20)
    shown = capsys.readouterr()
    assert "uploading [x]" in shown.err
    assert "4.2/4.2 MB" in shown.err or "4.0/4.0 MiB" in shown.err
    assert shown.out == ""


def test_json_wants_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with bar("uploading", wanted=False) as progress:
        assert progress is None
