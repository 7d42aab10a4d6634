"""From the bytes of an upload request to an `Upload`: multipart forms, raw files, JSON.

Knows headers, form fields and bodies; what is in the files is the store's.
"""

from __future__ import annotations

import re

from fastapi import Request
from starlette.datastructures import FormData

from prefixmux_server.api.http.body import (
    media_type,
    parse_json,
    read,
    refuse_encoding,
    too_large,
)
from prefixmux_server.api.http.forms import bytes_of, read_form, text_of
from prefixmux_server.api.http.headers import content_digest, create_only
from prefixmux_server.api.upload_schemas import About, about, recipe
from prefixmux_server.errors import InvalidJson, InvalidRequest, UnsupportedMediaType
from prefixmux_server.service.prefixes.upload import NativeFile, PeftFiles, Upload
from prefixmux_store.errors import PrefixTooLarge
from prefixmux_store.names import check_task_id

FILES = ("file", "adapter_config", "adapter_model")
ABOUT = ("description", "template", "parameters")
FIELDS = ("task_id", "activate", "sha256", "task_index", *ABOUT)
SHA256 = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
INDEX = re.compile(r"[0-9]{1,6}", re.ASCII)


async def raw_upload(
    request: Request, task_id: str, limit: int, template: str | None, parameters: str | None
) -> Upload:
    """`PUT`: the body is a native file of at most `limit` bytes; `parameters` are JSON text."""
    check_task_id(task_id)
    if media_type(request) not in ("", "application/octet-stream"):
        raise UnsupportedMediaType("Send the native file as application/octet-stream.")
    only = create_only(request.headers.get("if-none-match"))
    digest = content_digest(request.headers.get("content-digest"))
    said = _about({"template": template, "parameters": parameters})
    data = await read(request, limit, PrefixTooLarge(limit))
    return Upload(task_id, NativeFile(data, digest), create_only=only, **said)


async def posted_upload(request: Request, body_limit: int, file_limit: int) -> Upload:
    """`POST`: JSON of at most `body_limit` bytes, or a form whose files have at most `file_limit`
    together."""
    kind = media_type(request)
    if kind == "application/json":
        raw = await read(request, body_limit, too_large(body_limit))
        return recipe(parse_json(raw))
    if kind != "multipart/form-data":
        raise UnsupportedMediaType(
            "Send multipart/form-data or application/json, or PUT the raw file to its task."
        )
    refuse_encoding(request)
    form = await read_form(request, file_limit, PrefixTooLarge(file_limit))
    try:
        return await _upload(form, file_limit)
    finally:
        await form.close()


async def _upload(form: FormData, limit: int) -> Upload:
    _check_names(form)
    task_id = check_task_id(text_of(form, "task_id") or "")
    activate = _flag(form, "activate")
    said = _about({name: text_of(form, name) for name in ABOUT})
    content = await _content(form)
    _check_size(content, limit)
    return Upload(task_id, content, activate, task_index=_index(form), **said)


def _about(texts: dict[str, str | None]) -> About:
    """Of texts as a form or a query holds them."""
    given: dict[str, object] = {name: text for name, text in texts.items() if text is not None}
    try:
        if (parameters := texts["parameters"]) is not None:
            given["parameters"] = parse_json(parameters.encode())
    except InvalidJson:
        raise InvalidRequest("This is a JSON object.", param="parameters") from None
    return about(given)


def _check_names(form: FormData) -> None:
    seen: set[str] = set()
    for name in (name for name, _ in form.multi_items()):
        if name not in FILES + FIELDS:
            raise InvalidRequest("The form has a field that is not known; see /docs.")
        if name in seen:
            raise InvalidRequest("The form has this field twice.", param=name)
        seen.add(name)


async def _content(form: FormData) -> NativeFile | PeftFiles:
    native = await bytes_of(form, "file")
    config, model = await bytes_of(form, "adapter_config"), await bytes_of(form, "adapter_model")
    if native is not None and config is None and model is None:
        return NativeFile(native, _digest(form))
    if native is None and config is not None and model is not None:
        if text_of(form, "sha256") is not None:
            raise InvalidRequest("sha256 is of `file`; leave it out here.", param="sha256")
        return PeftFiles(config, model)
    raise InvalidRequest(
        "Send either `file`, or `adapter_config` and `adapter_model`.", param="file"
    )


def _check_size(content: NativeFile | PeftFiles, limit: int) -> None:
    if isinstance(content, NativeFile):
        size = len(content.data)
    else:
        size = len(content.adapter_config) + len(content.adapter_model)
    if size > limit:
        raise PrefixTooLarge(limit)


def _flag(form: FormData, name: str) -> bool:
    text = text_of(form, name)
    if text not in (None, "true", "false"):
        raise InvalidRequest('This is "true" or "false".', param=name)
    return text != "false"


def _index(form: FormData) -> int | None:
    text = text_of(form, "task_index")
    if text is not None and not INDEX.fullmatch(text):
        raise InvalidRequest("This is a number from 0.", param="task_index")
    return None if text is None else int(text)


def _digest(form: FormData) -> str | None:
    text = text_of(form, "sha256")
    if text is None:
        return None
    if (match := SHA256.fullmatch(text)) is None:
        raise InvalidRequest("A sha256 has 64 hexadecimal digits.", param="sha256")
    return f"sha256:{match[1].lower()}"
