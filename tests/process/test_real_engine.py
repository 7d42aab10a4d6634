"""The engine that ships, in its own process, with a tiny random model and a prefix in a store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from process.conftest import Run
from process.talk import generate, request
from support.models import FAMILIES, save_tiny

from prefixmux_server.engine.build import start_engine
from prefixmux_server.engine.pipes.client import EngineClient
from prefixmux_server.engine.pipes.process import Factory
from prefixmux_server.engine.settings import EngineSettings
from prefixmux_store.blobs import BlobStore
from prefixmux_store.files import OsFiles
from prefixmux_store.format import PrefixMeta, RawTensor, encode

SHAPE = (2, 2, 5, 4, 8)  # layers, keys and values, tokens, heads, head_dim of the tiny GPT-2
UNKNOWN = "sha256:" + "0" * 64


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def digest(store: Path) -> str:
    values = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    tensor = RawTensor("F32", SHAPE, memoryview(values.numpy().tobytes()))
    return BlobStore(store, OsFiles()).write("tenant", encode({"decoder": tensor}, PrefixMeta()))


@pytest.fixture
def client(tmp_path: Path, store: Path) -> EngineClient:
    model = save_tiny(FAMILIES["gpt2"](), tmp_path / "model")
    return EngineClient(EngineSettings(str(model), str(store), device="cpu", threads=1))


def test_the_builder_is_a_factory() -> None:
    factory: Factory = start_engine
    assert callable(factory)


@pytest.mark.parametrize("run", ["uvloop"], indirect=True)
def test_it_answers_with_and_without_a_prefix(run: Run, client: EngineClient, digest: str) -> None:
    async def work() -> None:
        try:
            ready = await client.start()
            assert ready.model.architecture == "GPT2LMHeadModel"
            assert client.residency("tenant", digest) == "disk"
            assert await client.probe("tenant", (digest,)) is None
            assert client.residency("tenant", digest) != "disk"
            alone = await generate(client, request("alone", length=12, prefixes=(digest,)))
            bare, mixed, lost = await asyncio.gather(
                generate(client, request("bare", length=12)),
                generate(client, request("mixed", length=12, prefixes=(digest,))),
                generate(client, request("lost", prefixes=(UNKNOWN,))),
            )
            assert mixed[0] == alone[0] != bare[0]
            assert mixed[1] is not None
            assert mixed[1].prefixes == (digest,)
            assert mixed[1].prefix_tokens == (5,)
            assert lost[1] is not None
            assert lost[1].error is not None
            assert lost[1].error.code == "prefix_unavailable"
        finally:
            await client.close()

    run(work())
