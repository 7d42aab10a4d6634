"""`client.prefixes`: a tenant's tasks and their versions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prefixmux import calls
from prefixmux.errors import APIResponseError, NotFoundError
from prefixmux.requests import Example, Part, example_bodies, given, part_bodies
from prefixmux.sender import Sender
from prefixmux.stored import Task, Version
from prefixmux.uploads import json_text, parts_of


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
    ) -> Version:
        """Store a native `.safetensors` file or a PEFT adapter's folder as a version of `task_id`.

        `template` (text around `{input}`) and `parameters` are stored with it, for requests that
        say nothing; `task_index` picks one of a multitask adapter. The same content again answers
        with the version that holds it. Raises InvalidArgumentError for pickled weights, OSError
        for files that cannot be read, UnprocessableEntityError for a prefix that is damaged or
        not made for the server's model.
        """
        parts = parts_of(Path(path))
        said = {
            "task_id": task_id,
            "activate": "true" if activate else "false",
            "description": description,
            "template": template,
            "parameters": None if parameters is None else json_text(given(**parameters)),
            "task_index": None if task_index is None else str(task_index),
        }
        form = {name: text for name, text in said.items() if text is not None}
        return self._sender.send(calls.upload({**form, **parts.form}, parts.files))

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
        about = _about(activate, description, template, parameters)
        return self._sender.send(
            calls.store(given(task_id=task_id, text=text, examples=shown) | about)
        )

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
        body: dict[str, object] = {"task_id": task_id, "compose": part_bodies(parts)}
        about = _about(activate, description, template, parameters)
        return self._sender.send(calls.store(body | about))

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

    def delete(self, task_id: str, version: int | None = None) -> None:
        """Delete a version, or the whole task when `version` is None.

        Raises ConflictError for the active version, NotFoundError when there is none.
        """
        self._sender.send(calls.delete(task_id, version))

    def download(
        self, task_id: str, path: str | os.PathLike[str], version: int | None = None
    ) -> Version:
        """Write the native file of a version (None: the active one) to `path`, whole or not at all.

        Raises APIResponseError when the bytes are not those of the version's digest.
        """
        found = self._active(task_id) if version is None else self.get_version(task_id, version)
        data = self._sender.send(calls.get_file(task_id, found.version))
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != found.prefix_digest:
            raise APIResponseError(f"The bytes received are not {found.prefix_digest}.")
        _write_whole(Path(path), data)
        return found

    def _active(self, task_id: str) -> Version:
        active = self.get(task_id).active
        if active is None:
            raise NotFoundError(
                f"Task {task_id} has no active version; name one.",
                status_code=404,
                code="version_not_found",
            )
        return active


def _about(
    activate: bool,
    description: str | None,
    template: str | None,
    parameters: Mapping[str, object] | None,
) -> dict[str, object]:
    said = None if parameters is None else given(**parameters)
    return given(activate=activate, description=description, template=template, parameters=said)


def _write_whole(path: Path, data: bytes) -> None:
    """A reader of `path` sees the old file or the new one, never a part."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
