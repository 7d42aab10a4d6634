"""Which layout serves a device, and how much memory it gets by default."""

from __future__ import annotations

import os
from typing import Literal

import torch

from prefixmux_server.memory.layout import KVLayout, SiteSpec
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


def free_bytes(device: torch.device) -> int:
    """Memory that is free now, on the GPU or on the host."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def default_capacity(spec: SiteSpec, dtype: torch.dtype, device: torch.device, rows: int) -> int:
    """Tokens of KV memory: what `rows` requests of 1024 need, within a share of what is free."""
    share = 0.6 if device.type == "cuda" else 0.25
    affordable = int(free_bytes(device) * share) // spec.bytes_per_token(dtype)
    return max(1024, min(rows * 1024, affordable))
