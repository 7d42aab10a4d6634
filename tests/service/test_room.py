from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from service.fakes import CAPACITY, CONTEXT, MODEL, SEQ2SEQ, native, native_at

from prefixmux_server.errors import PromptTooLong
from prefixmux_server.memory.layout import SiteSpec
from prefixmux_server.memory.rows import RowLayout
from prefixmux_server.memory.slots import SlotLayout
from prefixmux_server.service.generation.room import (
    PrefixSize,
    check_encoder,
    room,
    size_of,
    sure_room,
)
from prefixmux_store.content import of_file
from prefixmux_store.format import PrefixMeta, encode, parse

SHIFTED = PrefixSize(decoder=10, offset=10)
UNSHIFTED = PrefixSize(decoder=10)
TEXT = encode({}, PrefixMeta(method="TEXT", token_ids=(1, 2, 3, 4)))


@pytest.mark.parametrize(
    ("tokens", "prefix", "expected"),
    [
        (1, PrefixSize(), CONTEXT),
        (CONTEXT, PrefixSize(), 1),
        (CONTEXT + 1, PrefixSize(), 0),
        (5, SHIFTED, CONTEXT - 14),
        (5, UNSHIFTED, CONTEXT - 4),
    ],
)
def test_room_ends_with_the_position_table(tokens: int, prefix: PrefixSize, expected: int) -> None:
    assert room(tokens, prefix, MODEL) == expected


def test_room_without_a_table_ends_with_the_memory() -> None:
    assert room(5, SHIFTED, replace(MODEL, context=None)) == CAPACITY - 14


def test_room_never_exceeds_the_memory() -> None:
    assert room(5, SHIFTED, replace(MODEL, capacity_tokens=20)) == 6


SPEC = SiteSpec("decoder", 1, 1, 1, 1, 1)


@pytest.mark.parametrize("rows", [1, 2, 4, 16])
@pytest.mark.parametrize("tokens", [1, 5, 100, 960])
def test_room_for_rows_is_what_the_memory_takes(rows: int, tokens: int) -> None:
    """Rows that share their prefix have the most room, those that copy it have what is sure."""
    capacity = 1024
    model = replace(MODEL, context=None, capacity_tokens=capacity)

    def takes(layout: RowLayout | SlotLayout, new: int) -> bool:
        return layout.fits(10, tokens + new - 1, forks=rows - 1, shared=tokens)

    most = room(tokens, UNSHIFTED, model, rows)
    shared = SlotLayout(SPEC, capacity, torch.float32, torch.device("cpu"))
    assert takes(shared, most)
    assert not takes(shared, most + 1)
    sure = sure_room(tokens, UNSHIFTED, model, rows)
    copied = RowLayout(SPEC, capacity, torch.float32)
    assert sure < 1 or (takes(copied, sure) and takes(shared, sure))
    assert not takes(copied, max(1, sure + 1))


def test_rows_have_positions_of_their_own() -> None:
    assert room(5, SHIFTED, MODEL, 4) == sure_room(5, SHIFTED, MODEL, 4) == CONTEXT - 14


def test_what_does_not_fit_at_all_is_counted_once() -> None:
    assert room(21, UNSHIFTED, replace(MODEL, capacity_tokens=20), 4) == 1 - 11


@pytest.mark.parametrize(
    ("data", "causal", "seq2seq"),
    [
        (native(4), PrefixSize(4, 4), PrefixSize(4, 4)),
        (native(4, position_offset={"decoder": 0}), PrefixSize(4), PrefixSize(4)),
        (
            native_at({"embeddings": 4}, method="PROMPT_TUNING"),
            PrefixSize(4, 4),
            PrefixSize(encoder=4),
        ),
        (TEXT, PrefixSize(4, 4), PrefixSize(encoder=4)),
        (native(4, method="INFIX_TUNING"), PrefixSize(4, 4), None),
        (
            native_at({"embeddings": 4, "decoder": 4}, method="INFIX_EMBEDDING"),
            PrefixSize(4, 4),
            None,
        ),
        (
            native_at({"encoder": 2, "decoder": 3, "cross": 5}),
            None,
            PrefixSize(decoder=3, offset=3, cross=5),
        ),
    ],
)
def test_what_a_prefix_takes(
    data: bytes, causal: PrefixSize | None, seq2seq: PrefixSize | None
) -> None:
    content = of_file(parse(data))
    assert causal is None or size_of(content, MODEL) == causal
    assert seq2seq is None or size_of(content, SEQ2SEQ) == seq2seq


@pytest.mark.parametrize(
    ("context", "capacity", "prefix", "most"),
    [
        (64, 1000, PrefixSize(), 64),
        (64, 1000, PrefixSize(encoder=4), 60),
        (64, 1000, PrefixSize(decoder=30, offset=30, cross=30), 64),
        (None, 50, PrefixSize(encoder=4, cross=6), 40),
    ],
)
def test_the_encoder_reads_so_much(
    context: int | None, capacity: int, prefix: PrefixSize, most: int
) -> None:
    model = replace(SEQ2SEQ, context=context, capacity_tokens=capacity)
    check_encoder(most, prefix, model)
    with pytest.raises(PromptTooLong) as caught:
        check_encoder(most + 1, prefix, model)
    assert caught.value.param == "input"
    full = "encoder" if most + prefix.encoder == context else "--kv-tokens"
    assert full in caught.value.message
