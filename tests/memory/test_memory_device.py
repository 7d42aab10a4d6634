"""Memory on another device than the host, where prefixes lie: tried on one that only checks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from memory.groups import SPECS, placed, prefix_of

from prefixmux_server.attention.rules import RelativeBias
from prefixmux_server.memory.layout import SiteSpec
from prefixmux_server.memory.memory import KVMemory, RowNeeds, RowSpan
from prefixmux_server.memory.prefix import CROSS, DECODER, ENCODER
from prefixmux_server.memory.select import make_memory

META = torch.device("meta")


def on_device(spec: SiteSpec) -> SiteSpec:
    """Tables of biases are the model's, and where it is."""
    rules = [
        rule if rule.bias is None else replace(rule, bias=RelativeBias(rule.bias.table.to(META)))
        for rule in spec.rules
    ]
    return replace(spec, rules=tuple(rules))


@pytest.fixture
def memory() -> KVMemory:
    specs = {site: on_device(spec) for site, spec in SPECS.items()}
    return make_memory("slots", specs, 448, torch.float32, META)


def attend(memory: KVMemory, spans: list[RowSpan], asked: int, encoded: int) -> None:
    """Every layer of every site in turn."""
    new = {DECODER: asked, CROSS: encoded, ENCODER: encoded}
    for site, plan in memory.plans(spans).items():
        spec = SPECS[site]
        queries = encoded if site == ENCODER else asked
        query = torch.empty(spec.heads, queries, 8, device=META)
        kv = torch.empty(spec.kv_heads, new[site], 8, device=META)
        for layer in range(spec.layers):
            found = plan.attend(layer, query, kv, kv, 1.0)
            assert found.shape == (queries, spec.heads, 8)
            assert found.device == META


def test_no_step_mixes_devices(memory: KVMemory) -> None:
    """Prompts and decodes, with prefixes at every site and without, an infix among them."""
    prefixes = placed(
        memory,
        prefix_of(1, encoder=2, decoder=3, cross=4),
        prefix_of(2, shifts=False, decoder=2),
        prefix_of(3, infix=True, decoder=2),
    )
    rows = [
        memory.admit(prefixes, RowNeeds(8, infix_at=3, encoded=4)),
        memory.admit(prefixes[1:2], RowNeeds(8, encoded=6, rows=3, shared=2)),
    ]
    (one,), group = (leases for leases in rows if leases is not None)
    attend(memory, [RowSpan(one, 0, 3, 4), RowSpan(group[0], 0, 2, 6)], 5, 10)
    attend(memory, [RowSpan(one, 3, 2), *(RowSpan(row, 2, 1) for row in group)], 5, 0)
    memory.add(one, 1, torch.zeros(2, 2, 2, 2, 8))
    assert memory.read(group[0]).device == META
