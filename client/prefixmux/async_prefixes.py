"""`client.prefixes` of the awaited client."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from prefixmux import prefix_calls as calls
from prefixmux.call import Progress
from prefixmux.files import Download
from prefixmux.prefixes import active_of
from prefixmux.requests import Example, Kept, Part, example_bodies, given, part_bodies
from prefixmux.sender import AsyncSender
from prefixmux.stored import Task, Version
from prefixmux.wire import NOT_GIVEN, NotGiven


class AsyncPrefixes:
    """As `Prefixes`, awaited."""

    def __init__(self, sender: AsyncSender) -> None:
        self._sender = sender

    async def upload(
        self,
        task_id: str,
        path: str | os.PathLike[str],
        activate: bool = True,
        description: str | None = None,
        template: str | None = None,
        parameters: Mapping[str, object] | None = None,
        task_index: int | None = None,
        *,
        progress: Progress | None = None,
        timeout: float | NotGiven | None = NOT_GIVEN,
    ) -> Version:
        """As `Prefixes.upload`."""
        kept = Kept(activate, description, template, parameters)
        # A thread, because the digest takes reading the whole file.
        make = partial(calls.upload, task_id, Path(path), kept, task_index, progress)
        call = await anyio.to_thread.run_sync(make)
        return await self._sender.varied(timeout).send(call)

    async def upload_text(
        self,
        task_id: str,
        text: str | None = None,
        *,
        examples: Iterable[Example] | None = None,
        activate: bool = True,
        description: str | None = None,
        template: str | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> Version:
        """As `Prefixes.upload_text`."""
        shown = None if examples is None else example_bodies(examples)
        kept = Kept(activate, description, template, parameters)
        return await self._sender.send(calls.store(task_id, given(text=text, examples=shown), kept))

    async def compose(
        self,
        task_id: str,
        parts: Iterable[Part],
        *,
        activate: bool = True,
        description: str | None = None,
        template: str | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> Version:
        """As `Prefixes.compose`."""
        kept = Kept(activate, description, template, parameters)
        return await self._sender.send(calls.store(task_id, {"compose": part_bodies(parts)}, kept))

    async def list(
        self, *, query: str | None = None, limit: int | None = None
    ) -> AsyncIterator[Task]:
        """As `Prefixes.list`."""
        cursor = None
        while True:
            page = await self._sender.send(calls.list_tasks(limit, cursor, query))
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    async def versions(self, task_id: str, *, limit: int | None = None) -> AsyncIterator[Version]:
        """As `Prefixes.versions`."""
        cursor = None
        while True:
            page = await self._sender.send(calls.list_versions(task_id, limit, cursor))
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    async def get(self, task_id: str) -> Task:
        return await self._sender.send(calls.get_task(task_id))

    async def get_version(self, task_id: str, version: int) -> Version:
        return await self._sender.send(calls.get_version(task_id, version))

    async def activate(self, task_id: str, version: int) -> Task:
        """As `Prefixes.activate`."""
        return await self._sender.send(calls.activate(task_id, version))

    async def pin(self, task_id: str, version: int | None = None) -> Version:
        """As `Prefixes.pin`."""
        return await self._sender.send(calls.pin(task_id, version, True))

    async def unpin(self, task_id: str, version: int | None = None) -> Version:
        """As `Prefixes.unpin`."""
        return await self._sender.send(calls.pin(task_id, version, False))

    async def delete(self, task_id: str, version: int | None = None) -> None:
        """As `Prefixes.delete`."""
        await self._sender.send(calls.delete(task_id, version))

    async def download(
        self,
        task_id: str,
        path: str | os.PathLike[str],
        version: int | None = None,
        *,
        progress: Progress | None = None,
        timeout: float | NotGiven | None = NOT_GIVEN,
    ) -> Version:
        """As `Prefixes.download`."""
        if version is None:
            found = active_of(await self.get(task_id))
        else:
            found = await self.get_version(task_id, version)
        with Download(Path(path), found, progress) as download:
            call = calls.get_file(task_id, found.version, download)
            await self._sender.varied(timeout).send(call)
            download.finish()
        return found
