"""What the importers make of PEFT's files and the paper's: the tensors that the rules say."""

from __future__ import annotations

import json

import pytest
import torch
from support.golden import NAMES, Golden
from support.golden_engine import imported, prefix_key
from support.native import tensor_of
from support.slow import Piece, Slow

from prefixmux_store.format import PrefixFile, parse
from prefixmux_store.meta import METHODS
from prefixmux_store.validate import ModelShape, SiteShape

pytestmark = pytest.mark.shared


def shape_for(golden: Golden, name: str) -> ModelShape:
    """As the model's own forward pass and its config show it."""
    slow = Slow(golden.model(name)).model
    config = json.loads((golden.model(name) / "config.json").read_text())
    layers, heads, width = slow.shapes()["decoder"]
    return ModelShape(
        architecture=config["architectures"][0],
        family="seq2seq" if slow.seq2seq else "causal",
        layers=layers,
        kv_heads=heads,
        head_dim=width,
        hidden=slow.embed([0]).shape[1],
        vocabulary=config["vocab_size"],
        fingerprint=None,
        methods=tuple(METHODS),
        sites={site: SiteShape(*s, s[-1]) for site, s in slow.shapes().items()},
        max_prefix_tokens=1024,
    )


def check(file: PrefixFile, piece: Piece, name: str) -> None:
    """Bit for bit, whatever the dtype; a product of matrices may be rounded in another order."""
    wanted = dict(piece.sites)
    if piece.embeddings is not None:
        wanted["embeddings"] = piece.embeddings
    assert file.tensors.keys() == wanted.keys(), name
    for site, tensor in wanted.items():
        exact = 1e-6 if piece.method == "MULTITASK_PROMPT_TUNING" else 0.0
        found = tensor_of(file.tensors[site]).float()
        torch.testing.assert_close(found, tensor, atol=exact, rtol=exact, msg=name)
    assert file.meta.method == piece.method
    assert file.offset("decoder") == piece.offset, name


@pytest.mark.parametrize("name", NAMES)
def test_every_adapter_of_peft(golden: Golden, name: str) -> None:
    shape = shape_for(golden, name)
    cases = {prefix_key(c): c for c in golden.cases(name) if c["adapter"] is not None}
    for case in cases.values():
        check(parse(imported(golden, case, shape)), golden.piece(case), case["id"])
    adapters = {case["adapter"] for case in cases.values()}
    of_model = [a for a, about in golden.content["adapters"].items() if about["model"] == name]
    assert adapters == set(of_model)
