"""Where prefixes come from: the stored file, verified and validated, as tensors.

Runs in loader threads. It knows the blob store and the model's shape, never the catalogue.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from prefixmux_server.memory.prefix import DECODER, PrefixKey, PrefixKV
from prefixmux_store.blobs import BlobStore
from prefixmux_store.errors import IncompatiblePrefix, StoreError, UnsupportedMethod
from prefixmux_store.format import PrefixFile, parse
from prefixmux_store.tensors import RawTensor
from prefixmux_store.validate import ModelShape, check_model

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class PrefixLoadError(Exception):
    """A prefix cannot be served: `code` and `message` are fit for the client."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class PrefixSource(Protocol):
    """Loads prefixes by key. `load` may be slow; `size` is not."""

    def size(self, key: PrefixKey) -> int:
        """Bytes that the loaded prefix will take in host memory; 0 if it cannot be known."""
        ...

    def load(self, key: PrefixKey) -> PrefixKV:
        """Raises PrefixLoadError."""
        ...


class StoreSource:
    """Reads blobs of the prefix store; every load re-hashes and re-validates the file."""

    def __init__(
        self, blobs: BlobStore, shape: ModelShape, dtype: torch.dtype, *, pin: bool
    ) -> None:
        self._blobs = blobs
        self._shape = shape
        self._dtype = dtype
        self._pin = pin

    def size(self, key: PrefixKey) -> int:
        item = self._dtype.itemsize
        try:
            return self._blobs.resident_bytes(key.tenant, key.digest, item, self._token_bytes())
        except (StoreError, OSError):
            return 0

    def load(self, key: PrefixKey) -> PrefixKV:
        try:
            file = parse(self._blobs.read(key.tenant, key.digest))
            check_model(file, self._shape)
        except (IncompatiblePrefix, UnsupportedMethod) as error:
            # Stored for another model, or under other limits: for good, not for now.
            raise PrefixLoadError(error.code, error.message) from error
        except (StoreError, OSError) as error:
            raise PrefixLoadError(
                "prefix_unavailable",
                "The stored prefix of this task cannot be read or fails its checks; "
                "upload it again.",
            ) from error
        return self._to_host(key, file)

    def _token_bytes(self) -> int | None:
        """Of a virtual token whose inputs become KV, as all do where there is no encoder."""
        site = self._shape.sites[DECODER]
        if self._shape.family != "causal":
            return None
        return site.layers * site.kv_heads * (site.k_dim + site.v_dim) * self._dtype.itemsize

    def _to_host(self, key: PrefixKey, file: PrefixFile) -> PrefixKV:
        tensors = {name: self._tensor(raw) for name, raw in file.tensors.items()}
        embeddings, method = tensors.pop("embeddings", None), file.meta.method
        if method == "INFIX_EMBEDDING":
            delta = tensors.pop(DECODER)
            return PrefixKV(key, {}, {}, infix=True, embeddings=embeddings, delta=delta)
        return PrefixKV(
            key,
            tensors,
            {name: file.offset(name) for name in tensors},
            infix=method == "INFIX_TUNING",
            embeddings=embeddings,
            token_ids=file.meta.token_ids or (),
        )

    def _tensor(self, raw: RawTensor) -> Tensor:
        """Widened to float32 and then cast, as PEFT does with a 16-bit file."""
        values = torch.frombuffer(bytearray(raw.data), dtype=_DTYPES[raw.dtype])
        tensor = values.reshape(raw.shape).float().to(self._dtype).contiguous()
        return tensor.pin_memory() if self._pin else tensor
