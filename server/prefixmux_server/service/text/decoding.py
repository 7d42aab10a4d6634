"""What is known of a tokenizer's decoder: how far a text is settled before its last token.

Read from what the `tokenizers` library says of it as JSON. A decoder is a chain of steps over the
list of tokens; once a step has joined them, a later one sees the whole text at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers.decoders import Decoder

# Steps that look at one token at a time, and at whether it is the first or the last.
LOCAL = frozenset({"Replace", "ByteFallback", "Metaspace", "WordPiece", "BPEDecoder", "Strip"})
JOINING = frozenset({"ByteLevel", "Fuse"})


@dataclass(frozen=True)
class Decoding:
    """`settles`: tokens that follow never change the text before, but for a character that is not
    whole yet (`joins_bytes`) and for a run of byte tokens, which is text only if all of it is
    (`byte_runs`). Where it is False nothing is sure before the end."""

    settles: bool
    joins_bytes: bool
    byte_runs: bool


def decoding_of(decoder: Decoder | None) -> Decoding:
    """None: tokens are joined by spaces."""
    # The whole tokenizer's JSON would say it too, and take a large vocabulary's time.
    steps = [] if decoder is None else list(_steps(json.loads(decoder.__getstate__())))
    kinds = {step["type"] for step in steps}
    return Decoding(
        settles=_settles(steps),
        joins_bytes="ByteLevel" in kinds,
        byte_runs="ByteFallback" in kinds,
    )


def _steps(decoder: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if decoder["type"] != "Sequence":
        yield decoder
        return
    for step in decoder["decoders"]:
        yield from _steps(step)


def _settles(steps: list[Mapping[str, Any]]) -> bool:
    joined = False
    for step in steps:
        kind = step["type"]
        if kind == "Strip" and joined:
            known = step["stop"] == 0
        else:
            known = kind == "Fuse" or (not joined and kind in LOCAL | JOINING)
        if not known:
            return False
        joined = joined or kind in JOINING
    return True
