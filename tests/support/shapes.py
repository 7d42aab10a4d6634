"""A loaded model as the prefix store's checks see it."""

from __future__ import annotations

from prefixmux_server.model.load import LoadedModel
from prefixmux_store.validate import ModelShape, SiteShape


def shape_of(loaded: LoadedModel, max_prefix_tokens: int = 1024) -> ModelShape:
    decoder = loaded.specs["decoder"]
    return ModelShape(
        architecture=loaded.architecture,
        family=loaded.family,
        layers=decoder.layers,
        kv_heads=decoder.kv_heads,
        head_dim=decoder.k_dim,
        hidden=loaded.hidden,
        vocabulary=loaded.vocabulary,
        fingerprint=None,
        methods=loaded.methods,
        sites={
            site: SiteShape(spec.layers, spec.kv_heads, spec.k_dim, spec.v_dim)
            for site, spec in loaded.specs.items()
        },
        max_prefix_tokens=max_prefix_tokens,
        embedding_width=loaded.embedding_width,
    )
