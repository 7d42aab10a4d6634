"""Which base model this is: a digest of its weights, and of its shape with them.

Hashing the weights of a large model takes a while, so the digest is remembered in a small JSON
file by path, size and modification time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from prefixmux_server.memory.layout import SiteSpec


def weights_digest(folder: Path, cache: Path | None) -> str:
    """`sha256:<hex>` over the names and contents of the folder's safetensors files."""
    files = sorted(folder.glob("*.safetensors"))
    stats = [(file, file.stat()) for file in files]
    stamp = json.dumps([[str(f.resolve()), s.st_size, s.st_mtime_ns] for f, s in stats])
    known = _read_cache(cache)
    if stamp not in known:
        digest = hashlib.sha256()
        for file in files:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        known = {stamp: "sha256:" + digest.hexdigest()}
        _write_cache(cache, known)
    return known[stamp]


def fingerprint(
    architecture: str, spec: SiteSpec, hidden: int, vocabulary: int, weights: str
) -> str:
    """`sha256:<hex>` over the canonical shape fields and the weights' digest."""
    fields = {
        "architecture": architecture,
        "layers": spec.layers,
        "heads": spec.heads,
        "kv_heads": spec.kv_heads,
        "head_dim": spec.k_dim,
        "hidden": hidden,
        "vocabulary": vocabulary,
        "weights": weights,
    }
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def _read_cache(cache: Path | None) -> Mapping[str, str]:
    if cache is None:
        return {}
    try:
        known = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_cache(cache: Path | None, known: Mapping[str, str]) -> None:
    if cache is None:
        return
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps(known))
    except OSError:
        return  # only a cache: the digest is computed again next time
