"""The slow reference against each family's own eager attention, masks and caches included.

A prefix made of what real tokens leave behind must act as those tokens standing there. The
golden files prove the reference for what PEFT and the paper's code know; here are windows,
softcaps and every family of the list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from contract.families import ALL, DECODER, FAMILIES, WINDOW
from contract.pieces import random_ids
from support.models import save_tiny
from support.slow import Asked, Piece, Slow
from support.slow_attention import Extra
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

CAUSAL = [name for name, family in FAMILIES.items() if family.sites == DECODER]
SEQ2SEQ = [name for name, family in FAMILIES.items() if family.sites == ALL]
LOCAL = ["mistral-window", "qwen2-window", "gemma2", "gemma3_text"]


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save_tiny(FAMILIES[request.param].config(), tmp_path)


def own_logits(folder: Path, ids: tuple[int, ...]) -> Tensor:
    """`[n, vocabulary]` of a decoder-only model, by transformers alone."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.inference_mode():
        return torch.as_tensor(model(input_ids=torch.tensor([ids])).logits[0])


def check(slow: Slow, asked: Asked, truth: Tensor, tokens: tuple[int, ...]) -> None:
    """`truth` are the logits that `tokens` were followed by, step by step."""
    said = slow.greedy(asked)
    torch.testing.assert_close(said.logits[0], truth[len(tokens) - 1], atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("folder", CAUSAL, indirect=True)
@pytest.mark.parametrize("length", [3, 2 * WINDOW])
def test_a_prefix_of_real_tokens(folder: Path, length: int) -> None:
    """As KV of a shifted prefix, as text, and as two prefixes in a row."""
    slow, first, ids = Slow(folder), random_ids(length, 1), random_ids(6, 2)
    truth = own_logits(folder, first + ids)
    text = Piece("TEXT", token_ids=first)
    kv = slow.compile(text)
    whole = Piece("PREFIX_TUNING", {"decoder": kv}, length)
    halves = tuple(
        Piece("PREFIX_TUNING", {"decoder": kv[:, :, part]}, len(range(length)[part]))
        for part in (slice(0, 2), slice(2, length))
    )
    for pieces in ((text,), (whole,), halves):
        check(slow, Asked(ids, 1, pieces), truth, first + ids)
    check(slow, Asked(first + ids, 1), truth, first + ids)


@pytest.mark.parametrize("folder", CAUSAL, indirect=True)
def test_an_infix_of_real_tokens(folder: Path) -> None:
    slow = Slow(folder)
    x, between, y = random_ids(9, 1), random_ids(5, 2), random_ids(4, 3)
    truth = own_logits(folder, x + between + y)
    left = slow.compile(Piece("TEXT", token_ids=x + between))[:, :, len(x) :]
    infix = Piece("INFIX_TUNING", {"decoder": left}, len(between))
    check(slow, Asked(x, 1, (infix,), y), truth, x + between + y)
    run = slow.model.embed(between)
    embedded = Piece("INFIX_EMBEDDING", {"decoder": left * 0}, len(between), run)
    check(slow, Asked(x, 1, (embedded,), y), truth, x + between + y)


@pytest.mark.parametrize("folder", LOCAL, indirect=True)
@pytest.mark.parametrize("shifted", [True, False])
def test_where_a_window_ends(folder: Path, shifted: bool) -> None:
    """Layer 0 is local. Behind a prefix of two windows its first W + 1 keys are out of sight, but
    those of a prefix outside the position system never are."""
    slow, ids, tokens = Slow(folder), random_ids(3, 2), 2 * WINDOW
    layers, heads, width = slow.model.shapes()["decoder"]
    kv = torch.randn(layers, 2, tokens, heads, width, generator=torch.Generator().manual_seed(5))

    def logits(changed: slice) -> Tensor:
        sites = {"decoder": kv.clone()}
        sites["decoder"][0, :, changed] += 2
        prefix = Piece("PREFIX_TUNING", sites, tokens if shifted else 0)
        return slow.greedy(Asked(ids, 1, (prefix,))).logits

    def moved(changed: slice) -> float:
        return float((logits(changed) - logits(slice(0, 0))).abs().max())

    assert (moved(slice(0, WINDOW + 1)) == 0) == shifted
    assert moved(slice(WINDOW + 3, tokens)) > 1e-3


@pytest.mark.parametrize("folder", SEQ2SEQ, indirect=True)
def test_a_decoder_prefix_of_real_tokens(folder: Path) -> None:
    slow, x = Slow(folder), random_ids(7, 1)
    first, ids = (2, *random_ids(5, 2)), random_ids(4, 3)
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.inference_mode():
        truth = model(
            input_ids=torch.tensor([x]), decoder_input_ids=torch.tensor([first + ids])
        ).logits[0]
    check(slow, Asked(x, 1, (), first + ids), truth, first + ids)
    kv = slow.model.left("decoder")[:, :, : len(first)]
    piece = Piece("PREFIX_TUNING", {"decoder": kv}, len(first))
    check(slow, Asked(x, 1, (piece,), ids), truth, first + ids)


@pytest.mark.parametrize("folder", SEQ2SEQ, indirect=True)
def test_a_cross_prefix_of_encoder_states(folder: Path) -> None:
    """What the encoder said of the first tokens of x may as well come as a prefix."""
    slow, ids = Slow(folder).model, (2, *random_ids(3, 2))
    states, positions = slow.encode(random_ids(8, 1), {}), torch.arange(4)
    truth = slow.decode(states, ids, positions, {})
    prefix = Extra(slow.left("cross")[:, :, :3])
    found = slow.decode(states[3:], ids, positions, {"cross": [prefix]})
    torch.testing.assert_close(found, truth, atol=5e-5, rtol=1e-5)
    alone = slow.decode(states[3:], ids, positions, {})
    assert float((alone - truth).abs().max()) > 1e-3
