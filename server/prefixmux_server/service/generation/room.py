"""How much fits beside a prefix: positions that the model has, cells of KV memory.

Pure functions of sizes and `ModelInfo`, for both families. A decoder-only model holds everything
in one sequence; of an encoder-decoder model the encoder reads the input, whole, and the decoder
attends to it through the cross site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from prefixmux_server.engine.model_info import ModelInfo
from prefixmux_server.errors import PromptTooLong
from prefixmux_store.errors import InvalidPrefix

# Memory that is not shared is given to rows in pieces of this many tokens.
GRAIN = 64


class Sized(Protocol):
    """Anything that says where its virtual tokens are: a version, a target, an upload."""

    @property
    def sites(self) -> Mapping[str, int]: ...
    @property
    def position_offset(self) -> Mapping[str, int]: ...
    @property
    def prefix_tokens(self) -> int: ...


@dataclass(frozen=True)
class PrefixSize:
    """`decoder` and `cross` are cells of KV memory; `offset` is how far the decoder's real tokens
    are shifted; `encoder` counts the virtual tokens that the encoder reads before the input."""

    decoder: int = 0
    offset: int = 0
    cross: int = 0
    encoder: int = 0


def size_of(prefix: Sized, model: ModelInfo) -> PrefixSize:
    at, offset = prefix.sites, prefix.position_offset.get("decoder", 0)
    if model.family == "seq2seq":
        virtual = at.get("embeddings", 0) + at.get("text", 0)
        return PrefixSize(at.get("decoder", 0), offset, at.get("cross", 0), virtual)
    # What has no tensor for the decoder is run there once, from the first position on.
    run = prefix.prefix_tokens - at.get("decoder", 0)
    return PrefixSize(prefix.prefix_tokens, offset + run)


def room(decoder_tokens: int, prefix: PrefixSize, model: ModelInfo, rows: int = 1) -> int:
    """How many tokens can be generated, in each row, behind so many of the decoder's; below 1 by
    as many tokens as are too many. Memory may be organised so that fewer fit: see `sure_room`.

    The last token needs no position and no cell of its own: it is sampled, never fed.
    """
    spare = model.capacity_tokens - prefix.decoder - decoder_tokens
    by_memory = 1 + (spare // rows if spare > 0 else spare)
    return min(by_memory, _by_position(decoder_tokens, prefix, model, by_memory))


def sure_room(decoder_tokens: int, prefix: PrefixSize, model: ModelInfo, rows: int = 1) -> int:
    """`room` where each row holds a prefix and a prompt of its own, in whole grains."""
    each = model.capacity_tokens // rows
    if rows > 1:
        each = each // GRAIN * GRAIN
    by_memory = 1 + each - prefix.decoder - decoder_tokens
    return min(by_memory, _by_position(decoder_tokens, prefix, model, by_memory))


def _by_position(decoder_tokens: int, prefix: PrefixSize, model: ModelInfo, unbounded: int) -> int:
    if model.context is None:
        return unbounded
    return 1 + model.context - prefix.offset - decoder_tokens


def check_encoder(input_tokens: int, prefix: PrefixSize, model: ModelInfo) -> None:
    """Raises `PromptTooLong` where the encoder cannot read the input in one pass, or the decoder
    could not attend to all of it."""
    read = prefix.encoder + input_tokens
    most = model.capacity_tokens - prefix.cross
    if model.context is not None and model.context <= most and read > model.context:
        raise PromptTooLong(
            f"The prefix and the input are {read - model.context} tokens too long for the encoder:"
            " shorten the input.",
            param="input",
        )
    if read > most:
        raise PromptTooLong(
            f"The prefix and the input are {read - most} tokens too long for KV memory: shorten"
            " the input, or start the server with a larger --kv-tokens.",
            param="input",
        )


def check_positions(prefix: Sized, model: ModelInfo, param: str | None = None) -> None:
    """Raises `InvalidPrefix` for one that leaves no position for a single token: it could never
    be served. `param`: the field that it was made from."""
    size = size_of(prefix, model)
    if model.context is not None and max(size.offset, size.encoder) >= model.context:
        raise InvalidPrefix(
            "too_long",
            f"The prefix takes all of the model's {model.context} positions; use fewer tokens.",
            param=param,
        )
