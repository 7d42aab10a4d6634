"""What the HTTP process knows about the resident model, told once by the engine as it is ready.

Owns no model and knows of no request. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SiteName = Literal["encoder", "decoder", "cross"]


@dataclass(frozen=True)
class SiteInfo:
    """One attention site of the resident model."""

    site: SiteName
    layers: int
    kv_heads: int
    k_dim: int
    v_dim: int


@dataclass(frozen=True)
class ModelInfo:
    """What the HTTP process knows about the resident model.

    `layers`, `kv_heads` and `head_dim` are the decoder's, `embedding_width` is what a virtual
    token's embedding has (None: `hidden`). The special ids are those of its generation config or
    config; None where it has none. `context` is the number of positions (None: no limit).
    `fingerprint` is `sha256:<hex>`. `capacity_tokens` is the size of the KV memory in tokens.
    """

    id: str
    family: Literal["causal", "seq2seq"]
    architecture: str
    layers: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    dtype: str
    device: str
    context: int | None
    fingerprint: str
    methods: tuple[str, ...]
    sites: tuple[SiteInfo, ...]
    eos_token_ids: tuple[int, ...]
    capacity_tokens: int
    embedding_width: int | None = None
    bos_token_id: int | None = None
    decoder_start_token_id: int | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None


@dataclass(frozen=True)
class TokenizerInfo:
    """The fast tokenizer as the `tokenizers` library's JSON, so that no torch is needed.

    `special_tokens` are the texts of those that have a name: `bos_token`, `eos_token`, ...
    """

    json: str
    special_token_ids: tuple[int, ...]
    chat_template: str | None = None
    special_tokens: dict[str, str] = field(default_factory=dict)
