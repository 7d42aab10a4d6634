"""Puts an engine together from its settings. Runs in the engine process only."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from prefixmux_server.engine.compile import Compiler
from prefixmux_server.engine.engine import Engine
from prefixmux_server.engine.errors import EngineStartError
from prefixmux_server.engine.failpoints import Failpoints
from prefixmux_server.engine.fit import Limits
from prefixmux_server.engine.forward import Forward
from prefixmux_server.engine.messages import Ready
from prefixmux_server.engine.model_info import ModelInfo, SiteInfo, SiteName, TokenizerInfo
from prefixmux_server.engine.sampling.choice import Chooser
from prefixmux_server.engine.sampling.sampler import Sampler
from prefixmux_server.engine.scheduler import Scheduler
from prefixmux_server.engine.settings import EngineSettings
from prefixmux_server.engine.shape import model_shape
from prefixmux_server.memory.host import Compile, as_stored
from prefixmux_server.memory.layout import SiteSpec
from prefixmux_server.memory.loader import PrefixLoader, loader_threads
from prefixmux_server.memory.memory import KVMemory, RowNeeds
from prefixmux_server.memory.prefix import DECODER
from prefixmux_server.memory.residency import Residency
from prefixmux_server.memory.select import (
    LayoutName,
    default_capacity,
    free_bytes,
    layout_name,
    make_memory,
)
from prefixmux_server.memory.source import StoreSource
from prefixmux_server.model.errors import UnsupportedModelError
from prefixmux_server.model.fingerprint import fingerprint, weights_digest
from prefixmux_server.model.load import LoadedModel, load_model, locate, resolve_device
from prefixmux_store.blobs import BlobStore
from prefixmux_store.files import OsFiles

_TRIAL_TOKENS = 512
# Some layouts give memory out in pieces of this many tokens.
_GRAIN = 64
_LOADER_THREADS = 2
# Logits of prompts that are made and ranked in one step, for which all other rows wait: 32 MB of
# them in float32.
_TOLD_VALUES = 1 << 23


def start_engine(settings: EngineSettings, wake: Callable[[], None]) -> tuple[Engine, Ready]:
    """`build_engine` for a process that does nothing else: sets what is set per process."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    # Subnormal numbers in a prefix would slow every product down by an order of magnitude.
    torch.set_flush_denormal(True)
    return build_engine(settings, wake)


def build_engine(settings: EngineSettings, wake: Callable[[], None]) -> tuple[Engine, Ready]:
    """`wake` is called from another thread when a step may find new work (a prefix was loaded).

    Raises EngineStartError.
    """
    try:
        return _Builder(settings, wake).build()
    except (UnsupportedModelError, ValueError) as error:
        raise EngineStartError("unsupported_model", str(error)) from error


@dataclass(frozen=True)
class _Builder:
    settings: EngineSettings
    wake: Callable[[], None]

    def build(self) -> tuple[Engine, Ready]:
        device = resolve_device(self.settings.device)
        folder = locate(self.settings.model)
        name = layout_name(self.settings.layout, device)

        def trial(specs: Mapping[str, SiteSpec], dtype: torch.dtype) -> KVMemory:
            return make_memory(name, specs, _TRIAL_TOKENS, dtype, device, poison=True)

        loaded = load_model(folder, device, self.settings.dtype, trial)
        _log_slow_layers(loaded.dense.kept, device)
        _log_left_out(loaded.left_out)
        dtype, rows = loaded.module.dtype, self.settings.max_batch_rows
        capacity = self.settings.kv_tokens or default_capacity(loaded.specs, dtype, device, rows)
        memory = make_memory(name, loaded.specs, capacity, dtype, device)
        if not memory.fits((), RowNeeds(1, encoded=1)):
            raise EngineStartError("invalid_request", "--kv-tokens is too small for one row")
        info = self._info(folder, loaded, memory.capacity_tokens)
        limits = Limits(
            rows,
            self.settings.max_batch_tokens,
            loaded.context,
            loaded.encoder_context,
            max_told=max(1, _TOLD_VALUES // loaded.vocabulary),
        )
        residency = self._residency(memory, loaded, info)
        return assemble(loaded, memory, residency, limits), Ready(info, _tokenizer(loaded))

    def _residency(self, memory: KVMemory, loaded: LoadedModel, info: ModelInfo) -> Residency:
        device, dtype = loaded.module.device, loaded.module.dtype
        shape = model_shape(info, self.settings.max_prefix_tokens)
        blobs = BlobStore(Path(self.settings.store), OsFiles())
        source = StoreSource(blobs, shape, dtype, pin=device.type == "cuda")
        loader = PrefixLoader(source, loader_threads(_LOADER_THREADS), self.wake)
        pool = memory.capacity_tokens * loaded.specs[DECODER].bytes_per_token(dtype)
        host, on_device = self.settings.prefix_host_bytes, self.settings.prefix_device_bytes
        return Residency(
            memory,
            loader,
            host_bytes=free_bytes(torch.device("cpu")) // 10 if host is None else host,
            device_bytes=pool // 2 if on_device is None else on_device,
            compile=compiler(loaded, memory),
        )

    def _info(self, folder: Path, loaded: LoadedModel, capacity: int) -> ModelInfo:
        spec = loaded.specs[DECODER]
        weights = weights_digest(folder, Path(self.settings.store) / "cache" / "weights.json")
        return ModelInfo(
            id=folder.name if Path(self.settings.model).is_dir() else self.settings.model,
            family=loaded.family,
            architecture=loaded.architecture,
            layers=spec.layers,
            kv_heads=spec.kv_heads,
            head_dim=spec.k_dim,
            hidden=loaded.hidden,
            vocabulary=loaded.vocabulary,
            dtype=str(loaded.module.dtype).removeprefix("torch."),
            device=loaded.module.device.type,
            context=loaded.context,
            fingerprint=fingerprint(loaded.architecture, loaded.module.config.to_dict(), weights),
            methods=loaded.methods,
            sites=_sites(loaded.specs),
            eos_token_ids=loaded.eos_token_ids,
            capacity_tokens=capacity,
            embedding_width=loaded.embedding_width,
            bos_token_id=loaded.bos_token_id,
            decoder_start_token_id=loaded.decoder_start_token_id,
            forced_bos_token_id=loaded.forced_bos_token_id,
            forced_eos_token_id=loaded.forced_eos_token_id,
        )


def assemble(
    loaded: LoadedModel,
    memory: KVMemory,
    residency: Residency,
    limits: Limits,
    *,
    failpoints: Failpoints | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Engine:
    """An engine over parts that are ready; it owns them from now on."""
    eos = frozenset(loaded.eos_token_ids)
    scheduler = Scheduler(memory, residency, limits, clock, eos)
    forward = Forward(loaded.model, memory, Chooser(Sampler(eos)), failpoints or Failpoints())
    return Engine(scheduler, forward, eos, clock=clock, encodes=loaded.family == "seq2seq")


def _sites(specs: Mapping[str, SiteSpec]) -> tuple[SiteInfo, ...]:
    names: tuple[SiteName, ...] = ("encoder", "decoder", "cross")
    found = [(name, specs[name]) for name in names if name in specs]
    return tuple(SiteInfo(n, s.layers, s.kv_heads, s.k_dim, s.v_dim) for n, s in found)


def compiler(loaded: LoadedModel, memory: KVMemory) -> Compile:
    """Runs virtual tokens in memory of its own, of the kind that `memory` is."""
    if loaded.family == "seq2seq":
        return as_stored
    name: LayoutName = "slots" if memory.shares_prefixes else "rows"
    module = loaded.module

    def scratch(tokens: int) -> KVMemory:
        whole = -(-tokens // _GRAIN) * _GRAIN
        return make_memory(name, loaded.specs, whole, module.dtype, module.device)

    return Compiler(loaded.model, scratch)


def _log_slow_layers(kept: Mapping[str, str], device: torch.device) -> None:
    """Say which layers run on the plain path of a CPU, and why: it is slower, not wrong."""
    if kept and device.type == "cpu":
        reasons = ", ".join(sorted(set(kept.values())))
        logging.getLogger(__name__).warning("%d dense layers not packed: %s", len(kept), reasons)


def _log_left_out(reasons: Mapping[str, str]) -> None:
    for method, reason in reasons.items():
        logging.getLogger(__name__).warning("%s is not served: %s", method, reason)


def _tokenizer(loaded: LoadedModel) -> TokenizerInfo | None:
    tokenizer = loaded.tokenizer
    if tokenizer is None:
        return None
    return TokenizerInfo(
        json=tokenizer.json,
        special_token_ids=tokenizer.special_token_ids,
        chat_template=tokenizer.chat_template,
        special_tokens=tokenizer.special_tokens,
    )
