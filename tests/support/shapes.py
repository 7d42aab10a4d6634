"""A loaded model as the prefix store's checks see it."""

from __future__ import annotations

from prefixmux_server.model.load import LoadedModel
from prefixmux_store.validate import ModelShape, SiteShape


def shape_of(loaded: LoadedModel, max_prefix_tokens: int = 1024) -> ModelShape:
    spec = loaded.spec
    return ModelShape(
        architecture=loaded.architecture,
        family="causal",
        layers=spec.layers,
        kv_heads=spec.kv_heads,
        head_dim=spec.k_dim,
        hidden=loaded.hidden,
        vocabulary=loaded.vocabulary,
        fingerprint=None,
        methods=("PREFIX_TUNING", "CARTRIDGE"),
        sites={"decoder": SiteShape(spec.layers, spec.kv_heads, spec.k_dim, spec.v_dim)},
        max_prefix_tokens=max_prefix_tokens,
    )
