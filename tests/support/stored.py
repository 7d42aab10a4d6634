"""Engines that read their prefixes from a real store, as the server's do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from prefixmux_server.engine.engine import Engine
from prefixmux_server.engine.failpoints import Failpoints
from prefixmux_server.memory.select import LayoutName
from prefixmux_server.memory.source import PrefixSource, StoreSource
from prefixmux_server.model.load import LoadedModel
from prefixmux_store.blobs import BlobStore
from prefixmux_store.files import OsFiles
from prefixmux_store.store import PrefixStore
from support.engines import TENANT, engine_over
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
    wrap: Callable[[PrefixSource], PrefixSource] = lambda source: source,
    **options: Any,
) -> Engine:
    """`root` is the store's folder; options as in `engine_over`. What no live row owns is NaN."""
    options = {"capacity": 16384, **options}
    source = StoreSource(
        BlobStore(root, OsFiles()), shape_of(loaded), loaded.module.dtype, pin=False
    )
    engine, _, _ = engine_over(loaded, layout, wrap(source), **options)
    return engine
