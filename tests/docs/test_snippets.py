"""Every command and program of the documentation, run in order against a real server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from api.served import Served, served
from docs.snippets import ROOT, documents, run, snippets

# These begin with keys or with a server of their own; the others share one that is open.
ALONE = {"docs/security.md"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader stands: a model and a trained adapter of theirs beside the repository."""
    made = tmp_path_factory.mktemp("reader")
    (made / "demo").symlink_to(ROOT / "demo")
    (made / "model").symlink_to(ROOT / "demo/model")
    (made / "adapter").symlink_to(ROOT / "demo/prefixes/e2e")
    return made


@pytest.fixture(scope="module")
def shared_server(folder: Path) -> Iterator[Served]:
    with served(folder / "model", folder / "prefixes") as server:
        yield server


@pytest.mark.parametrize("document", sorted(set(documents()) - ALONE))
def test_snippets_run(document: str, folder: Path, shared_server: Served) -> None:
    _run_all(document, folder, shared_server)


@pytest.mark.parametrize("document", sorted(ALONE & set(documents())))
def test_snippets_run_on_a_server_of_their_own(document: str, folder: Path, tmp_path: Path) -> None:
    for name in ("demo", "model", "adapter"):
        (tmp_path / name).symlink_to((folder / name).resolve())
    with served(tmp_path / "model", tmp_path / "prefixes") as server:
        _run_all(document, tmp_path, server)


def test_every_block_says_what_it_is() -> None:
    """Without a language nobody knows whether a block could be run."""
    unknown = [
        f"{snippet.document}:{snippet.line}"
        for document in documents()
        for snippet in snippets(document)
        if snippet.language not in ("sh", "python", "json", "text", "yaml", "promql", "http")
    ]
    assert unknown == []


def test_most_snippets_run() -> None:
    """Being left out needs a reason, and stays rare."""
    found = [
        snippet
        for document in documents()
        for snippet in snippets(document)
        if snippet.language in ("sh", "python")
    ]
    assert sum(snippet.runs for snippet in found) >= 0.7 * len(found)


def _run_all(document: str, folder: Path, server: Served) -> None:
    address = str(server.client.base_url).removeprefix("http://").rstrip("/")
    for snippet in snippets(document):
        if not snippet.runs:
            continue
        started = time.monotonic()
        done = run(snippet, folder, address)
        while done.returncode and time.monotonic() - started < snippet.patience:
            time.sleep(0.1)
            done = run(snippet, folder, address)
        said = f"{document}:{snippet.line}\n{snippet.code}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, said
