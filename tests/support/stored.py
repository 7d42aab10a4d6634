"""Engines that read their prefixes from a real store, as the server's do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from prefixmux_server.engine.build import assemble
from prefixmux_server.engine.engine import Engine
from prefixmux_server.engine.failpoints import Failpoints
from prefixmux_server.engine.scheduler import Limits
from prefixmux_server.memory.loader import PrefixLoader
from prefixmux_server.memory.residency import Residency
from prefixmux_server.memory.select import LayoutName, make_layout
from prefixmux_server.memory.source import StoreSource
from prefixmux_server.model.load import LoadedModel
from prefixmux_store.blobs import BlobStore
from prefixmux_store.files import OsFiles
from prefixmux_store.store import PrefixStore
from support.engines import TENANT, InlineExecutor
from support.shapes import shape_of


class LogitsRecorder(Failpoints):
    """Keeps the logits that every request's tokens were chosen from, `[steps, vocabulary]`."""

    def __init__(self) -> None:
        self._seen: dict[str, list[torch.Tensor]] = {}

    def after_forward(self, ids: Sequence[str], logits: torch.Tensor) -> torch.Tensor:
        for request_id, row in zip(ids, logits, strict=True):
            self._seen.setdefault(request_id, []).append(row.clone())
        return logits

    def of(self, request_id: str) -> torch.Tensor:
        return torch.stack(self._seen[request_id])


def upload(store: PrefixStore, loaded: LoadedModel, task_id: str, data: bytes) -> str:
    """Stores a native file as the server would; returns the digest that the task resolves to."""
    staged = store.stage(TENANT, data, shape=shape_of(loaded))
    store.commit(TENANT, task_id, staged)
    (digest,) = store.resolve(TENANT, task_id, None).digests
    return digest


def stored_engine(
    loaded: LoadedModel,
    layout: LayoutName,
    root: Path,
    *,
    tokens: int = 2048,
    failpoints: Failpoints | None = None,
) -> Engine:
    """`root` is the store's folder. What no live row owns is NaN."""
    module = loaded.module
    memory = make_layout(layout, loaded.spec, 16384, module.dtype, module.device, poison=True)
    blobs = BlobStore(root, OsFiles())
    source = StoreSource(blobs, shape_of(loaded), module.dtype, pin=False)
    loader = PrefixLoader(source, InlineExecutor(), lambda: None)
    residency = Residency(memory, loader, host_bytes=1 << 28, device_bytes=1 << 28)
    limits = Limits(32, tokens, loaded.context)
    return assemble(loaded, memory, residency, limits, failpoints=failpoints)
