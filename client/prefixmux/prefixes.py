"""`client.prefixes`: a tenant's tasks and their versions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prefixmux import prefix_calls as calls
from prefixmux.call import Progress
from prefixmux.errors import NotFoundError
from prefixmux.files import Download
from prefixmux.requests import Example, Kept, Part, example_bodies, given, part_bodies
from prefixmux.sender import Sender
from prefixmux.stored import Task, Version
from prefixmux.wire import NOT_GIVEN, NotGiven


class Prefixes:
    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def upload(
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
        """Store a native `.safetensors` file or a PEFT adapter's folder as a version of `task_id`.

        `template` (text around `{input}`) and `parameters` are stored with it, for requests that
        say nothing; `task_index` picks one of a multitask adapter. The same content again answers
        with the version that holds it. Files are sent from disk, and `progress` is called with
        bytes sent and bytes in all, from 0 again when they are sent again. Raises
        InvalidArgumentError for pickled weights, OSError for files that cannot be read,
        UnprocessableEntityError for a prefix that is damaged or not made for the server's model.
        """
        kept = Kept(activate, description, template, parameters)
        call = calls.upload(task_id, Path(path), kept, task_index, progress)
        return self._sender.varied(timeout).send(call)

    def upload_text(
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
        """Store words as a prefix: `text`, or in-context `examples` (pairs of input and output).

        The template of examples shows one of them, as `{input}` and `{output}`; requests are put
        into it up to the output, and end at what follows it.
        """
        shown = None if examples is None else example_bodies(examples)
        kept = Kept(activate, description, template, parameters)
        return self._sender.send(calls.store(task_id, given(text=text, examples=shown), kept))

    def compose(
        self,
        task_id: str,
        parts: Iterable[Part],
        *,
        activate: bool = True,
        description: str | None = None,
        template: str | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> Version:
        """Store several prefixes, one behind another, as a version of `task_id`.

        `parts` are task ids (as active now) or pairs of task id and version.
        """
        kept = Kept(activate, description, template, parameters)
        return self._sender.send(calls.store(task_id, {"compose": part_bodies(parts)}, kept))

    def list(self, *, query: str | None = None, limit: int | None = None) -> Iterator[Task]:
        """Every task in order of `task_id`, fetched `limit` (1 to 500) at a time.

        `query` keeps the tasks whose id contains it.
        """
        cursor = None
        while True:
            page = self._sender.send(calls.list_tasks(limit, cursor, query))
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def versions(self, task_id: str, *, limit: int | None = None) -> Iterator[Version]:
        """Every version of a task, fetched `limit` (1 to 500) at a time."""
        cursor = None
        while True:
            page = self._sender.send(calls.list_versions(task_id, limit, cursor))
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def get(self, task_id: str) -> Task:
        return self._sender.send(calls.get_task(task_id))

    def get_version(self, task_id: str, version: int) -> Version:
        return self._sender.send(calls.get_version(task_id, version))

    def activate(self, task_id: str, version: int) -> Task:
        """Make `version` the one that requests get when they name none."""
        return self._sender.send(calls.activate(task_id, version))

    def pin(self, task_id: str, version: int | None = None) -> Version:
        """Keep a version (None: the active one) in the server's memory, also when nobody uses
        it."""
        return self._sender.send(calls.pin(task_id, version, True))

    def unpin(self, task_id: str, version: int | None = None) -> Version:
        """Let it go again when memory is short."""
        return self._sender.send(calls.pin(task_id, version, False))

    def delete(self, task_id: str, version: int | None = None) -> None:
        """Delete a version, or the whole task when `version` is None.

        Raises ConflictError for the active version, NotFoundError when there is none.
        """
        self._sender.send(calls.delete(task_id, version))

    def download(
        self,
        task_id: str,
        path: str | os.PathLike[str],
        version: int | None = None,
        *,
        progress: Progress | None = None,
        timeout: float | NotGiven | None = NOT_GIVEN,
    ) -> Version:
        """Write the native file of a version (None: the active one) to `path`, whole or not at all.

        Raises APIResponseError when the bytes are not those of the version's digest.
        """
        if version is None:
            found = active_of(self.get(task_id))
        else:
            found = self.get_version(task_id, version)
        with Download(Path(path), found, progress) as download:
            call = calls.get_file(task_id, found.version, download)
            self._sender.varied(timeout).send(call)
            download.finish()
        return found


def active_of(task: Task) -> Version:
    if task.active is None:
        raise NotFoundError(
            f"Task {task.task_id} has no active version; name one.",
            status_code=404,
            code="version_not_found",
        )
    return task.active
