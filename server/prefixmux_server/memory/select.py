"""Which layout serves a device, and how much memory it gets by default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

import torch

from prefixmux_server.memory.layout import KVLayout, SiteSpec
from prefixmux_server.memory.memory import KVMemory
from prefixmux_server.memory.prefix import ENCODER
from prefixmux_server.memory.rows import RowLayout
from prefixmux_server.memory.slots import SlotLayout

LayoutName = Literal["rows", "slots"]


def layout_name(wanted: Literal["auto", "rows", "slots"], device: torch.device) -> LayoutName:
    """Rows on a CPU, slots elsewhere; rows on a GPU are refused with ValueError."""
    if wanted == "auto":
        return "rows" if device.type == "cpu" else "slots"
    if wanted == "rows" and device.type != "cpu":
        raise ValueError("the row layout is for CPUs only")
    return wanted


def make_layout(
    name: LayoutName,
    spec: SiteSpec,
    capacity_tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    poison: bool = False,
) -> KVLayout:
    if name == "rows":
        return RowLayout(spec, capacity_tokens, dtype, poison=poison)
    return SlotLayout(spec, capacity_tokens, dtype, device, poison=poison)


def make_memory(
    name: LayoutName,
    specs: Mapping[str, SiteSpec],
    capacity_tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    poison: bool = False,
) -> KVMemory:
    """`capacity_tokens` at each of the sites that keep KV: an encoder keeps none."""
    layouts = {
        site: make_layout(name, spec, capacity_tokens, dtype, device, poison=poison)
        for site, spec in specs.items()
        if site != ENCODER
    }
    return KVMemory(layouts, specs.get(ENCODER), device)


def free_bytes(device: torch.device) -> int:
    """Memory that is free now, on the GPU or on the host."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def default_capacity(
    specs: Mapping[str, SiteSpec], dtype: torch.dtype, device: torch.device, rows: int
) -> int:
    """Tokens of KV memory: what `rows` requests of 1024 need, within a share of what is free."""
    share = 0.6 if device.type == "cuda" else 0.25
    token = sum(spec.bytes_per_token(dtype) for site, spec in specs.items() if site != ENCODER)
    affordable = int(free_bytes(device) * share) // token
    return max(1024, min(rows * 1024, affordable))
