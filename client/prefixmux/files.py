"""Files of this machine on their way to a server or from it, a piece at a time."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from prefixmux.call import Progress
from prefixmux.errors import APIResponseError
from prefixmux.stored import Version


def opened(
    files: Mapping[str, Path], progress: Progress | None, stack: ExitStack
) -> dict[str, IO[bytes]]:
    """Open until `stack` ends; `progress` is told of all of them together."""
    if progress is None:
        return {name: stack.enter_context(path.open("rb")) for name, path in files.items()}
    count = _Count(progress, sum(path.stat().st_size for path in files.values()))
    return {name: stack.enter_context(_Counted(path, count.add)) for name, path in files.items()}


class _Count:
    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._moved = 0

    def add(self, moved: int) -> None:
        self._moved += moved
        self._progress(self._moved, self._total)


class _Counted(io.BufferedReader):
    """A file that says how much of it was read."""

    def __init__(self, path: Path, read: Callable[[int], None]) -> None:
        super().__init__(path.open("rb", buffering=0))
        self._read = read

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self._read(len(piece))
        return piece


class Download:
    """A version's file on its way to `path`, whose readers see the old file or the new one, never
    a part. A sink: `begin` and `write` for each attempt, then `finish`; leaving cleans up."""

    def __init__(self, path: Path, version: Version, progress: Progress | None) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._version = version
        self._progress = progress

    def begin(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self._written = 0

    def write(self, piece: bytes) -> None:
        self._file.write(piece)
        self._hash.update(piece)
        self._written += len(piece)
        if self._progress is not None:
            self._progress(self._written, self._version.bytes)

    def finish(self) -> None:
        """Raises APIResponseError when the bytes are not those of the version's digest."""
        digest = self._version.prefix_digest
        if f"sha256:{self._hash.hexdigest()}" != digest:
            raise APIResponseError(f"The bytes received are not {digest}.")
        self._file.close()
        self._part.replace(self._path)

    def __enter__(self) -> Self:
        self._file = self._part.open("wb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)
