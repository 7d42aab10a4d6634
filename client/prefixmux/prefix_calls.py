"""The calls about what a tenant has stored: tasks, versions, files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from prefixmux.call import Call, Progress, Sink, given_params, reading
from prefixmux.errors import InvalidArgumentError
from prefixmux.requests import Kept
from prefixmux.stored import Task, TaskPage, Version, VersionPage
from prefixmux.uploads import parts_of


def upload(
    task_id: str, path: Path, kept: Kept, task_index: int | None, progress: Progress | None
) -> Call[Version]:
    """Reads the file once, for its digest. Raises InvalidArgumentError for what cannot be
    uploaded, OSError for what cannot be read.

    Repeatable: the same content for the same task answers with the version that holds it.
    """
    parts = parts_of(path)
    index = {} if task_index is None else {"task_index": str(task_index)}
    form = {"task_id": task_id, **kept.form(), **index, **parts.form}
    call = Call("POST", "/prefixes", reading(Version), repeatable=True)
    return replace(call, form=form, files=parts.files, progress=progress)


def store(task_id: str, content: Mapping[str, object], kept: Kept) -> Call[Version]:
    """An upload without files: a text, examples, a composition. Repeatable, as `upload` is."""
    body = {"task_id": task_id, **content, **kept.body()}
    return Call("POST", "/prefixes", reading(Version), json=body, repeatable=True)


def list_tasks(limit: int | None, cursor: str | None, query: str | None) -> Call[TaskPage]:
    params = given_params(limit=limit, cursor=cursor, query=query)
    return Call("GET", "/prefixes", reading(TaskPage), params=params, repeatable=True)


def get_task(task_id: str) -> Call[Task]:
    return Call("GET", _task_path(task_id), reading(Task), repeatable=True)


def list_versions(task_id: str, limit: int | None, cursor: str | None) -> Call[VersionPage]:
    path = f"{_task_path(task_id)}/versions"
    params = given_params(limit=limit, cursor=cursor)
    return Call("GET", path, reading(VersionPage), params=params, repeatable=True)


def get_version(task_id: str, version: int) -> Call[Version]:
    return Call("GET", _version_path(task_id, version), reading(Version), repeatable=True)


def get_file(task_id: str, version: int, sink: Sink) -> Call[None]:
    path = f"{_version_path(task_id, version)}/file"
    headers = {"accept": "application/octet-stream"}
    return Call("GET", path, lambda response: None, headers=headers, sink=sink, repeatable=True)


def activate(task_id: str, version: int) -> Call[Task]:
    path = f"{_task_path(task_id)}/activate"
    return Call("POST", path, reading(Task), json={"version": version}, repeatable=True)


def pin(task_id: str, version: int | None, pinned: bool) -> Call[Version]:
    path = f"{_task_path(task_id)}/pin"
    body = {"version": version, "pinned": pinned}
    return Call("POST", path, reading(Version), json=body, repeatable=True)


def delete(task_id: str, version: int | None) -> Call[None]:
    """Not repeatable: a second deletion answers 404, which would hide that the first one worked."""
    path = _task_path(task_id) if version is None else _version_path(task_id, version)
    return Call("DELETE", path, lambda response: None)


def _task_path(task_id: str) -> str:
    # A path of dots alone would be normalised away and address another route.
    if not task_id.strip("."):
        raise InvalidArgumentError("task_id must not be empty nor dots alone.")
    return f"/prefixes/{quote(task_id, safe='')}"


def _version_path(task_id: str, version: int) -> str:
    return f"{_task_path(task_id)}/versions/{version}"
