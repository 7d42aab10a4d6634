"""Answers about the server itself: its model, its version, its health."""

from __future__ import annotations

from pydantic import Field

from prefixmux.answer import Answer, Wire


class Site(Wire):
    """One attention site: what a prefix for it must be shaped like."""

    layers: int
    kv_heads: int
    k_dim: int
    v_dim: int


class ModelInfo(Answer):
    """The resident model, its shape, and what can be uploaded for it.

    `family` is "causal" (decoder-only) or "seq2seq" (encoder-decoder). A special id is None where
    the model names none.
    """

    id: str
    family: str
    layers: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    dtype: str
    device: str
    context: int | None = None
    fingerprint: str | None = None
    methods: tuple[str, ...] = ()
    sites: dict[str, Site] = Field(default_factory=dict)
    embedding_width: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None
    decoder_start_token_id: int | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None


class ServerVersion(Answer):
    """The server's version; other fields (libraries) are kept as they come."""

    version: str


class Health(Answer):
    """Whether the server takes requests; `reason` says why not."""

    ready: bool
    status: str
    reason: str | None = None
