"""Immutable files named by the sha256 of their content, one folder per tenant.

Knows bytes and digests, and of the format only how much a header announces; knows no task and no
version. Blobs of two tenants are never
shared, even with equal content: sharing would show in timing and muddle quotas and deletion.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import threading
from pathlib import Path

from prefixmux_store import container, faults, format
from prefixmux_store.errors import BlobCorrupt, BlobMissing, InvalidPrefix
from prefixmux_store.files import Files, FileStat
from prefixmux_store.names import check_tenant, digest_of, is_blob_name, is_digest, is_name

_TEMPORARY = ".tmp-"


class BlobStore:
    """Blobs under `root`/blobs. Any number of these may look at one folder, in any process."""

    def __init__(self, root: Path, files: Files) -> None:
        self._folder = root / "blobs"
        self._files = files
        self._lock = threading.Lock()
        self._lasting: set[Path] = set()

    def write(self, tenant: str, data: bytes) -> str:
        """Returns the digest once the blob would survive a power cut.

        Always writes anew: that repairs a damaged blob, restarts the grace period of one nobody
        uses, and needs no trust in what an earlier process had synced. Raises `StorageFull`,
        `StorageFailed`, or `StoreReadOnly` after a failed sync, whose data may be lost although
        a second sync would succeed: the caller has to stop writing.
        """
        digest = digest_of(data)
        target = self._path(tenant, digest)
        with faults.changing():
            self._make_lasting(target.parent)
            temporary = target.parent / f"{_TEMPORARY}{secrets.token_hex(16)}"
            try:
                self._write_synced(temporary, data)
                self._files.rename(temporary, target)
            except BaseException:
                with contextlib.suppress(OSError):
                    self._files.unlink(temporary)
                raise
            with faults.syncing():
                self._files.sync_folder(target.parent)
        return digest

    def read(self, tenant: str, digest: str) -> bytes:
        """The content, hashed again. Raises `BlobMissing`, `BlobCorrupt`, `StorageFailed`."""
        with faults.reading():
            data = self._files.read(self._path(tenant, digest))
        if digest_of(data) != digest:
            raise BlobCorrupt
        return data

    def size(self, tenant: str, digest: str) -> int:
        """Bytes on disk; raises as `read` does, but looks at no content."""
        with faults.reading():
            return self._files.stat(self._path(tenant, digest)).size

    def lasting_size(self, tenant: str, digest: str) -> int:
        """As `size`, once the blob would survive a power cut.

        It may be of a write that is still under way elsewhere: which synced the content before
        it gave the name, but not yet the name. Raises `StoreReadOnly` too, as `write` does.
        """
        size = self.size(tenant, digest)
        with faults.syncing():
            self._files.sync_folder(self._path(tenant, digest).parent)
        return size

    def resident_bytes(
        self, tenant: str, digest: str, item_bytes: int, token_bytes: int | None = None
    ) -> int:
        """What the tensors take in memory with `item_bytes` bytes per number, whatever their
        dtype in the file. Raises as `read` does.

        With `token_bytes`, virtual tokens that are stored as a model's inputs (embeddings alone,
        or text) take so many bytes each instead: what they are once they are keys and values.

        Reads the header alone. That is not hashed, but it has to account for every byte of the
        file: so what a damaged one announces is no larger than the file bears out.
        """
        path = self._path(tenant, digest)
        with faults.reading():
            try:
                length = self._files.read_start(path, container.LENGTH_BYTES)
                head = self._files.read_start(path, container.head_bytes(length))
                outline = container.outline(head, self._files.stat(path).size)
                inputs = format.input_tokens(outline)
            except InvalidPrefix as error:
                raise BlobCorrupt from error
        if inputs and token_bytes is not None:
            return inputs * token_bytes
        return (outline.values or inputs) * item_bytes

    def tenants(self) -> list[str]:
        """Those that have a folder."""
        with faults.reading():
            try:
                return [name for name in self._files.names(self._folder) if is_name(name)]
            except FileNotFoundError:
                return []

    def listing(self, tenant: str) -> list[str]:
        """Digests of the tenant's blobs."""
        with faults.reading():
            names = self._files.names(self._folder / check_tenant(tenant))
            return [f"sha256:{name}" for name in names if is_blob_name(name)]

    def remove(self, tenant: str, digest: str, before: float) -> int:
        """Bytes freed; 0 if it is gone already or was written at or after `before`."""
        return self._remove(self._path(tenant, digest), before) or 0

    def remove_temporary(self, tenant: str, before: float) -> int:
        """Removes what unfinished writes left behind; returns how many files."""
        folder = self._folder / check_tenant(tenant)
        with faults.reading():
            names = [name for name in self._files.names(folder) if name.startswith(_TEMPORARY)]
        return sum(self._remove(folder / name, before) is not None for name in names)

    def _remove(self, path: Path, before: float) -> int | None:
        with faults.changing():
            try:
                found: FileStat = self._files.stat(path)
                if found.modified >= before:
                    return None
                self._files.unlink(path)
            except FileNotFoundError:
                return None
            return found.size

    def _path(self, tenant: str, digest: str) -> Path:
        if not is_digest(digest):
            raise BlobMissing
        return self._folder / check_tenant(tenant) / digest.removeprefix("sha256:")

    def _write_synced(self, path: Path, data: bytes) -> None:
        descriptor = self._files.create(path)
        try:
            rest = memoryview(data)
            while rest:
                written = self._files.write(descriptor, rest)
                if written <= 0:
                    raise OSError(errno.EIO, "nothing was written")
                rest = rest[written:]
            with faults.syncing():
                self._files.sync(descriptor)
        finally:
            self._files.close(descriptor)

    def _make_lasting(self, folder: Path) -> None:
        """Makes a tenant's folder and syncs the way to it, once in the life of this object.

        Also when another process made it, which may have died before its own sync.
        """
        with self._lock:
            if folder in self._lasting:
                return
            for made in (self._folder, folder):
                self._files.make_folder(made)
                with faults.syncing():
                    self._files.sync_folder(made.parent)
            self._lasting.add(folder)
