"""The resident model as the prefix store's checks see it. Imports no torch."""

from __future__ import annotations

from prefixmux_server.engine.model_info import ModelInfo
from prefixmux_store.validate import ModelShape, SiteShape


def model_shape(info: ModelInfo, max_prefix_tokens: int) -> ModelShape:
    """What a prefix file is checked against."""
    return ModelShape(
        architecture=info.architecture,
        family=info.family,
        layers=info.layers,
        kv_heads=info.kv_heads,
        head_dim=info.head_dim,
        hidden=info.hidden,
        vocabulary=info.vocabulary,
        fingerprint=info.fingerprint,
        methods=info.methods,
        sites={s.site: SiteShape(s.layers, s.kv_heads, s.k_dim, s.v_dim) for s in info.sites},
        max_prefix_tokens=max_prefix_tokens,
        embedding_width=info.embedding_width,
    )
