"""The life of tasks and versions over HTTP, and what an upload is refused for."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import httpx2
import pytest
from api.conftest import MAX_PREFIX_TOKENS, MAX_UPLOAD, Api, error_of
from service.fakes import CONTEXT, HEADS, LAYERS, multitask, native, peft

from prefixmux_server.engine.front import EngineHealth
from prefixmux_server.engine.messages import EngineError
from prefixmux_store.errors import StoreReadOnly
from prefixmux_store.format import parse
from prefixmux_store.meta import BaseClaim
from prefixmux_store.names import digest_of

pytestmark = pytest.mark.anyio


def content_digest(data: bytes, algorithm: str = "sha256") -> str:
    name = {"sha256": "sha-256", "sha512": "sha-512"}[algorithm]
    return f"{name}=:{base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}:"


async def post(api: Api, files: dict[str, bytes], **fields: str) -> httpx2.Response:
    return await api.client.post("/prefixes", data=fields, files=files)


async def test_a_native_file_put_is_stored_and_shown(api: Api) -> None:
    data = native(provenance={"base_model": "tiny-base"})
    digest = {"content-digest": content_digest(data)}
    answer = await api.client.put("/prefixes/e2e", content=data, headers=digest)
    assert answer.status_code == 201
    version = answer.json()
    created_at = version.pop("created_at")
    assert version == {
        "task_id": "e2e",
        "version": 1,
        "prefix_digest": digest_of(data),
        "method": "PREFIX_TUNING",
        "sites": {"decoder": 3},
        "prefix_tokens": 3,
        "bytes": len(data),
        "base_model": "tiny-base",
        "base_fingerprint": None,
        "description": None,
        "residency": "disk",
        "pinned": False,
        "parts": [
            {
                "task_id": "e2e",
                "version": 1,
                "digest": digest_of(data),
                "tokens": 3,
                "method": "PREFIX_TUNING",
            }
        ],
        "template": None,
        "parameters": {},
    }
    version["created_at"] = created_at
    task = (await api.client.get("/prefixes/e2e")).json()
    assert task["created_at"] == task["updated_at"] == created_at
    assert (task["task_id"], task["active_version"], task["versions"]) == ("e2e", 1, 1)
    assert task["active"] == version
    assert api.engine.probed == [("default", (digest_of(data),), ())]
    stored = await api.client.get("/prefixes/e2e/versions/1/file")
    assert stored.content == data
    assert stored.headers["content-type"] == "application/octet-stream"
    assert stored.headers["content-digest"] == content_digest(data)


async def test_a_multipart_upload(api: Api) -> None:
    data = native()
    sha256 = hashlib.sha256(data).hexdigest()
    fields = {"task_id": "e2e", "description": "Menüs", "sha256": sha256, "activate": "true"}
    answer = await post(api, {"file": data}, **fields)
    assert answer.status_code == 201
    assert answer.json()["description"] == "Menüs"
    fields["sha256"] = f"sha256:{sha256}"
    assert (await post(api, {"file": data}, **fields)).status_code == 200


async def test_pefts_two_files_are_the_native_file_they_mean(api: Api) -> None:
    config, model = peft(fill=0.25)
    files = {"adapter_config": config, "adapter_model": model}
    answer = await post(api, files, task_id="e2e")
    assert answer.status_code == 201, answer.text
    assert answer.json()["base_model"] == "tiny"
    stored = parse((await api.client.get("/prefixes/e2e/versions/1/file")).content)
    same = parse(native(fill=0.25)).tensors["decoder"]
    assert stored.tensors["decoder"].shape == same.shape
    assert bytes(stored.tensors["decoder"].data) == bytes(same.data)
    assert (await post(api, files, task_id="e2e")).status_code == 200


async def test_the_same_content_is_the_same_version(api: Api) -> None:
    first = await api.put("e2e", native(fill=1))
    second = await api.put("e2e", native(fill=2))
    again = await api.client.put("/prefixes/e2e", content=native(fill=1))
    assert again.status_code == 200
    assert (first["version"], second["version"], again.json()["version"]) == (1, 2, 1)
    assert (await api.client.get("/prefixes/e2e")).json()["active_version"] == 1


async def test_numbers_go_on_after_a_task_is_deleted(api: Api) -> None:
    await api.put("e2e")
    assert (await api.client.delete("/prefixes/e2e")).status_code == 204
    error_of(await api.client.delete("/prefixes/e2e"), 404, "task_not_found")
    error_of(await api.client.get("/prefixes/e2e"), 404, "task_not_found")
    assert (await api.put("e2e"))["version"] == 2


async def test_activation_and_the_end_of_versions(api: Api) -> None:
    for fill in (1, 2, 3):
        await api.put("e2e", native(fill=fill))
    task = await api.client.post("/prefixes/e2e/activate", json={"version": 1})
    assert task.json()["active_version"] == task.json()["active"]["version"] == 1
    active = await api.client.delete("/prefixes/e2e/versions/1")
    error_of(active, 409, "version_active")
    assert (await api.client.delete("/prefixes/e2e/versions/2")).status_code == 204
    gone = await api.client.delete("/prefixes/e2e/versions/2")
    error_of(gone, 404, "version_not_found")
    error_of(await api.client.get("/prefixes/e2e/versions/2"), 404, "version_not_found")
    listed = (await api.client.get("/prefixes/e2e/versions")).json()
    assert [version["version"] for version in listed["items"]] == [1, 3]
    bad = await api.client.post("/prefixes/e2e/activate", json={"version": 2})
    error_of(bad, 404, "version_not_found")


async def test_a_first_version_may_stay_inactive(api: Api) -> None:
    stored = await post(api, {"file": native()}, task_id="e2e", activate="false")
    assert stored.status_code == 201
    task = (await api.client.get("/prefixes/e2e")).json()
    assert task["active_version"] is task["active"] is None
    error_of(await api.generate(task_id="e2e", input="a"), 404, "version_not_found")
    assert (await api.generate(task_id="e2e", version=1, input="a")).status_code == 200


async def test_create_only(api: Api) -> None:
    headers = {"if-none-match": "*"}
    first = await api.client.put("/prefixes/e2e", content=native(), headers=headers)
    assert first.status_code == 201
    second = await api.client.put("/prefixes/e2e", content=native(fill=2), headers=headers)
    error_of(second, 412, "precondition_failed")
    assert (await api.client.get("/prefixes/e2e")).json()["versions"] == 1
    assert api.stored() == (1, 1)
    assert len(api.engine.probed) == 1
    assert (await api.client.delete("/prefixes/e2e")).status_code == 204
    third = await api.client.put("/prefixes/e2e", content=native(fill=2), headers=headers)
    assert third.status_code == 201


async def test_residency_is_the_engines_word(api: Api) -> None:
    await api.put("e2e")
    await api.generate(task_id="e2e", input="a")
    version = (await api.client.get("/prefixes/e2e/versions/1")).json()
    assert version["residency"] == "device"


async def test_listing_in_pages(api: Api) -> None:
    for number in range(5):
        await api.put(f"task-{number}")
    found, cursor = [], None
    for _ in range(3):
        query = {"limit": "2", **({} if cursor is None else {"cursor": cursor})}
        page = (await api.client.get("/prefixes", params=query)).json()
        found += [task["task_id"] for task in page["items"]]
        cursor = page["next_cursor"]
    assert found == [f"task-{number}" for number in range(5)]
    assert cursor is None
    some = (await api.client.get("/prefixes", params={"query": "k-3"})).json()
    assert [task["task_id"] for task in some["items"]] == ["task-3"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "501"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"limit": "1.5"}, "limit"),
        ({"cursor": "no cursor"}, "cursor"),
        ({"cursor": "\ud7ff"}, "cursor"),
        ({"order": "asc"}, "order"),
    ],
)
async def test_bad_queries(api: Api, query: dict[str, str], param: str) -> None:
    answer = await api.client.get("/prefixes", params=query)
    assert error_of(answer, 422, "invalid_request")["param"] == param


# (files, fields, param)
BAD_FORMS: list[tuple[dict[str, bytes], dict[str, str], str | None]] = [
    ({}, {"task_id": "e2e"}, "file"),
    ({"file": native()}, {}, "task_id"),
    ({"file": native()}, {"task_id": ""}, "task_id"),
    ({"file": native()}, {"task_id": "../e2e"}, "task_id"),
    ({"file": native()}, {"task_id": "E2E"}, "task_id"),
    ({"file": native()}, {"task_id": "\U0001f600"}, "task_id"),
    ({"file": native(), "adapter_config": b"{}"}, {"task_id": "e2e"}, "file"),
    ({"adapter_config": b"{}"}, {"task_id": "e2e"}, "file"),
    ({"adapter_model": b"{}"}, {"task_id": "e2e"}, "file"),
    ({"file": native()}, {"task_id": "e2e", "activate": "yes"}, "activate"),
    ({"file": native()}, {"task_id": "e2e", "activate": "True"}, "activate"),
    ({"file": native()}, {"task_id": "e2e", "sha256": "abc"}, "sha256"),
    ({"file": native()}, {"task_id": "e2e", "sha256": "z" * 64}, "sha256"),
    ({"file": native()}, {"task_id": "e2e", "task_index": "0"}, "task_index"),
    ({"file": native()}, {"task_id": "e2e", "task_index": "x"}, "task_index"),
    ({"file": native()}, {"task_id": "e2e", "task_index": "-1"}, "task_index"),
    ({"file": native()}, {"task_id": "e2e", "description": "x" * 1001}, "description"),
    ({"file": native()}, {"task_id": "e2e", "description": "a\x00b"}, "description"),
    ({"file": native()}, {"task_id": "e2e", "description": "a\x1b[2J"}, "description"),
    ({"file": native()}, {"task_id": "e2e", "description": "a\r\nb"}, "description"),
    ({"file": native()}, {"task_id": "e2e", "description": "a\x85"}, "description"),
    ({"file": native()}, {"task_id": "e2e", "tenant": "other"}, None),
    ({"file": native(), "task_id": b"e2e"}, {}, "task_id"),
    ({"file": native(), "other": b""}, {"task_id": "e2e"}, None),
    (dict.fromkeys(("file", "adapter_config", "adapter_model"), b""), {"task_id": "a"}, None),
    ({"file": native()}, {f"field{number}": "" for number in range(9)}, None),
    ({"file": native()}, {"task_id": "e2e", "description": "x" * 70_000}, "description"),
]


async def test_bad_forms(api: Api, subtests: pytest.Subtests) -> None:
    for files, fields, param in BAD_FORMS:
        with subtests.test(files=list(files), fields={k: v[:20] for k, v in fields.items()}):
            answer = await post(api, files, **fields)
            if answer.status_code == 422:
                assert error_of(answer, 422, "invalid_request")["param"] == param
            else:
                error_of(answer, 415, "unsupported_media_type")
                assert not files
    assert api.stored() == (0, 0)


async def test_a_field_twice(api: Api) -> None:
    files = [("file", native()), ("file", native(fill=2))]
    answer = await api.client.post("/prefixes", data={"task_id": "e2e"}, files=files)
    assert error_of(answer, 422, "invalid_request")["param"] == "file"


@pytest.mark.parametrize(
    "body", [b"", b"--x", b"--x\r\n\r\n", b'--x\r\nContent-Disposition: form-data; name="file"']
)
async def test_broken_multipart(api: Api, body: bytes) -> None:
    for boundary in ("; boundary=x", "", "; boundary=", f"; boundary={'y' * 300}"):
        headers = {"content-type": f"multipart/form-data{boundary}"}
        answer = await api.client.post("/prefixes", content=body, headers=headers)
        error_of(answer, 422, "invalid_request")


def form(*parts: tuple[str, bytes], end: bytes = b"--x--\r\n") -> bytes:
    """`parts`: what stands after `form-data; `, and the content."""
    opened = (b"--x\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" for _ in parts)
    filled = (one % (name.encode(), data) for one, (name, data) in zip(opened, parts, strict=True))
    return b"".join(filled) + end


NATIVE_PART = ('name="file"; filename="f"', native())


@pytest.mark.parametrize("name", ["task_id", "description", "activate", "sha256", "task_index"])
@pytest.mark.parametrize("charset", ["", "; charset=latin-1", "; charset=utf-16", "; charset=x"])
async def test_text_of_a_form_is_utf8(api: Api, name: str, charset: str) -> None:
    fields = {"task_id": b"e2e", name: b"Men\xfc"}
    parts = [(f'name="{key}"', value) for key, value in fields.items()]
    headers = {"content-type": f"multipart/form-data; boundary=x{charset}"}
    answer = await api.client.post("/prefixes", content=form(*parts, NATIVE_PART), headers=headers)
    assert error_of(answer, 422, "invalid_request")["param"] == name
    assert api.stored() == (0, 0)


async def test_a_form_is_utf8_whatever_charset_it_claims(api: Api) -> None:
    parts = [('name="task_id"', b"e2e"), ('name="description"', "Menü".encode()), NATIVE_PART]
    headers = {"content-type": "multipart/form-data; boundary=x; charset=latin-1"}
    answer = await api.client.post("/prefixes", content=form(*parts), headers=headers)
    assert answer.json()["description"] == "Menü"


@pytest.mark.parametrize("end", [b"", b"--x", b"--x-", b"--x\r\n"])
async def test_a_form_that_breaks_off_is_told_so(api: Api, end: bytes) -> None:
    whole = form(('name="task_id"', b"e2e"), NATIVE_PART, end=end)
    headers = {"content-type": "multipart/form-data; boundary=x"}
    for body in (whole, whole[: len(whole) // 2]):
        answer = await api.client.post("/prefixes", content=body, headers=headers)
        assert "breaks off" in error_of(answer, 422, "invalid_request")["message"]
    assert api.stored() == (0, 0)


@pytest.mark.parametrize(
    ("method", "path", "content_type"),
    [
        ("POST", "/prefixes", "application/octet-stream"),
        ("POST", "/prefixes", "text/plain"),
        ("POST", "/prefixes", "application/x-www-form-urlencoded"),
        ("PUT", "/prefixes/e2e", "multipart/form-data; boundary=x"),
        ("PUT", "/prefixes/e2e", "application/json"),
        ("PUT", "/prefixes/e2e", "application/zip"),
    ],
)
async def test_other_media_types(api: Api, method: str, path: str, content_type: str) -> None:
    headers = {"content-type": content_type}
    answer = await api.client.request(method, path, content=native(), headers=headers)
    error_of(answer, 415, "unsupported_media_type")
    assert api.stored() == (0, 0)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"content-digest": content_digest(b"other")}, 422, "digest_mismatch"),
        ({"content-digest": "sha-256=:abc:"}, 422, "invalid_request"),
        ({"content-digest": "sha-256=:YWJj:"}, 422, "invalid_request"),
        ({"content-digest": "md5"}, 422, "invalid_request"),
        ({"content-digest": f"{content_digest(b'other')};a=1"}, 422, "digest_mismatch"),
        ({"content-digest": f"{content_digest(native())};"}, 422, "invalid_request"),
        ({"content-digest": f"{content_digest(native())},"}, 422, "invalid_request"),
        ({"content-digest": f"{content_digest(native())} x=:YWJj:"}, 422, "invalid_request"),
        ({"content-digest": ""}, 422, "invalid_request"),
        ({"if-none-match": '"etag"'}, 422, "invalid_request"),
        ({"content-encoding": "gzip"}, 415, "unsupported_media_type"),
    ],
)
async def test_bad_headers(api: Api, headers: dict[str, str], status: int, code: str) -> None:
    answer = await api.client.put("/prefixes/e2e", content=native(), headers=headers)
    error_of(answer, status, code)
    assert api.stored() == (0, 0)


async def test_digests_of_other_algorithms_are_passed_over(api: Api) -> None:
    data = native()
    both = f"{content_digest(b'other', 'sha512')}, {content_digest(data)}"
    described = f'{content_digest(data)};a;b=1 ; c="x, y=:z: \\" ;"'
    first = f'sha-512=:YWJj:;note="sha-256=:YWJj:, " ,{described}'
    for header in (content_digest(b"other", "sha512"), both, described, first):
        headers = {"content-digest": header}
        answer = await api.client.put("/prefixes/e2e", content=data, headers=headers)
        assert answer.is_success


async def test_a_wrong_sha256_of_a_form(api: Api) -> None:
    answer = await post(api, {"file": native()}, task_id="e2e", sha256="0" * 64)
    error_of(answer, 422, "digest_mismatch")
    assert api.stored() == (0, 0)


BAD_FILES: list[tuple[bytes, int, str, str | None]] = [
    (b"", 422, "invalid_prefix", "truncated"),
    (b"x", 422, "invalid_prefix", "truncated"),
    (native()[:-1], 422, "invalid_prefix", None),
    (native() + b"\0", 422, "invalid_prefix", None),
    (b"PK\x03\x04" + bytes(100), 415, "unsafe_format", None),
    (b"\x80\x04\x95" + bytes(100), 415, "unsafe_format", None),
    (b"GGUF" + bytes(100), 415, "unsafe_format", None),
    (b"\x93NUMPY" + bytes(100), 415, "unsafe_format", None),
    (b"\x00" * 64, 422, "invalid_prefix", None),
    (b"\xff" * 64, 422, "invalid_prefix", None),
    (native(MAX_PREFIX_TOKENS + 1), 422, "invalid_prefix", "too_long"),
    (native(CONTEXT), 422, "invalid_prefix", "too_long"),
]


async def test_bad_files_leave_no_trace(api: Api, subtests: pytest.Subtests) -> None:
    for data, status, code, reason in BAD_FILES:
        with subtests.test(data=data[:20], length=len(data)):
            answer = await api.client.put("/prefixes/e2e", content=data)
            error = error_of(answer, status, code)
            assert ("reason" in error) == (code == "invalid_prefix")
            assert reason in (None, error.get("reason"))
            as_form = await post(api, {"file": data}, task_id="e2e")
            assert error_of(as_form, status, code).get("reason") == error.get("reason")
    assert api.stored() == (0, 0)
    assert api.engine.probed == []


async def test_bad_peft_files(api: Api, subtests: pytest.Subtests) -> None:
    config, model = peft()
    for changed in ({"peft_type": "LORA"}, {"num_layers": LAYERS + 1}, {"num_virtual_tokens": 9}):
        with subtests.test(changed=changed):
            bad = json.dumps({**json.loads(config), **changed}).encode()
            files = {"adapter_config": bad, "adapter_model": model}
            answer = await post(api, files, task_id="e2e")
            assert answer.status_code == 422, answer.text
            assert answer.json()["error"]["code"] in (
                "unsupported_method",
                "incompatible_prefix",
                "invalid_prefix",
            )
    assert api.stored() == (0, 0)


async def several_tasks(api: Api, **fields: str) -> httpx2.Response:
    config, model = multitask(tasks=2)
    files = {"adapter_config": config, "adapter_model": model}
    return await post(api, files, task_id="e2e", **fields)


async def test_a_peft_file_of_several_tasks_gives_the_one_that_is_named(api: Api) -> None:
    digests = set()
    for index in ("0", "1"):
        stored = await several_tasks(api, task_index=index)
        assert stored.status_code == 201, stored.text
        assert stored.json()["method"] == "MULTITASK_PROMPT_TUNING"
        digests.add(stored.json()["prefix_digest"])
    assert len(digests) == 2


async def test_a_peft_file_of_several_tasks_needs_to_be_told_which(api: Api) -> None:
    for fields in ({}, {"task_index": "2"}):
        answer = await several_tasks(api, **fields)
        assert error_of(answer, 422, "invalid_request")["param"] == "task_index"
    assert api.stored() == (0, 0)


async def test_another_models_prefix_names_both_sides(api: Api) -> None:
    data = native(base=BaseClaim(kv_heads=HEADS + 1))
    answer = await api.client.put("/prefixes/e2e", content=data)
    message = error_of(answer, 422, "incompatible_prefix")["message"]
    assert str(HEADS + 1) in message
    assert str(HEADS) in message


async def test_an_upload_of_the_largest_size_is_read_and_one_byte_more_is_not(api: Api) -> None:
    full = bytes(MAX_UPLOAD)
    error_of(await api.client.put("/prefixes/e2e", content=full), 422, "invalid_prefix")
    error_of(await api.client.put("/prefixes/e2e", content=full + b"x"), 413, "prefix_too_large")
    error_of(await post(api, {"file": full}, task_id="e2e"), 422, "invalid_prefix")
    error_of(await post(api, {"file": full + b"x"}, task_id="e2e"), 413, "prefix_too_large")
    half = {"adapter_config": full[: MAX_UPLOAD // 2], "adapter_model": full[: MAX_UPLOAD // 2 + 1]}
    error_of(await post(api, half, task_id="e2e"), 413, "prefix_too_large")
    assert api.stored() == (0, 0)


async def test_an_upload_without_length_is_counted_as_it_comes(api: Api) -> None:
    async def endless() -> Any:
        for _ in range(10 * MAX_UPLOAD // 1000):
            yield bytes(1000)

    answer = await api.client.put("/prefixes/e2e", content=endless())
    error_of(answer, 413, "prefix_too_large")


async def test_a_trial_forward_that_overflows_keeps_the_upload_out(api: Api) -> None:
    api.engine.probe_error = EngineError("non_finite_output", "Not finite.")
    answer = await api.client.put("/prefixes/e2e", content=native())
    assert error_of(answer, 422, "invalid_prefix")["reason"] == "non_finite"
    assert api.stored() == (0, 0)
    api.engine.probe_error = EngineError("engine_unavailable", "Down.")
    answer = await api.client.put("/prefixes/e2e", content=native())
    error_of(answer, 503, "engine_unavailable")
    assert api.stored() == (0, 0)


@pytest.mark.parametrize(
    ("error", "flag"),
    [
        (EngineError("prompt_too_long", "Too long."), "--kv-tokens"),
        (EngineError("prefix_unavailable", "Too large.", "too_long"), "--prefix-host-bytes"),
    ],
)
async def test_a_prefix_that_no_memory_holds_is_too_long(
    api: Api, error: EngineError, flag: str
) -> None:
    api.engine.probe_error = error
    for answer in (
        await api.client.put("/prefixes/e2e", content=native()),
        await api.client.post("/prefixes", json={"task_id": "e2e", "text": "a"}),
    ):
        refusal = error_of(answer, 422, "invalid_prefix")
        assert refusal["reason"] == "too_long"
        assert flag in refusal["message"]
    assert len(api.engine.probed) == 2
    assert api.stored() == (0, 0)


async def test_a_trial_forward_that_fails_leaves_nothing(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: str) -> None:
        assert api.stored() == (0, 1)
        raise RuntimeError

    monkeypatch.setattr(api.engine, "probe", broken)
    answer = await api.client.put("/prefixes/e2e", content=native())
    error_of(answer, 500, "internal_error")
    assert api.stored() == (0, 0)


async def test_an_upload_that_comes_second_leaves_nothing(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def another_is_first(*_: str) -> None:
        first = api.store.stage("default", native(fill=2))
        api.store.commit("default", "e2e", first)

    monkeypatch.setattr(api.engine, "probe", another_is_first)
    headers = {"if-none-match": "*"}
    answer = await api.client.put("/prefixes/e2e", content=native(), headers=headers)
    error_of(answer, 412, "precondition_failed")
    assert api.stored() == (1, 1)
    assert (await api.client.get("/prefixes/e2e/versions/1/file")).content == native(fill=2)


async def test_a_store_that_cannot_discard_hides_no_refusal(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: str) -> None:
        raise StoreReadOnly

    monkeypatch.setattr(api.store, "discard", read_only)
    api.engine.probe_error = EngineError("non_finite_output", "Not finite.")
    answer = await api.client.put("/prefixes/e2e", content=native())
    error_of(answer, 422, "invalid_prefix")


async def test_a_refused_upload_leaves_what_a_version_holds(api: Api) -> None:
    await api.put("e2e")
    api.engine.probe_error = EngineError("non_finite_output", "Not finite.")
    answer = await api.client.put("/prefixes/other", content=native())
    error_of(answer, 422, "invalid_prefix")
    assert (await api.client.get("/prefixes/e2e/versions/1/file")).content == native()


async def test_without_an_engine_nothing_is_uploaded_but_all_is_read(api: Api) -> None:
    await api.put("e2e")
    api.engine.ready, api.engine.health = None, EngineHealth(False, "restarting")
    answer = await api.client.put("/prefixes/other", content=native())
    error_of(answer, 503, "engine_unavailable")
    assert (await api.client.get("/prefixes")).json()["items"][0]["task_id"] == "e2e"
    assert (await api.client.get("/prefixes/e2e/versions/1/file")).content == native()


BAD_VERSIONS = ["0", "-1", "01", "1.0", "x", "\u0661", "9" * 30, str(2**63), "1%20", "1e0"]


async def test_bad_numbers_of_versions_are_versions_that_do_not_exist(api: Api) -> None:
    await api.put("e2e")
    missing = (await api.client.get("/prefixes/e2e/versions/7")).json()["error"]["message"]
    for number in BAD_VERSIONS:
        for path in (f"/prefixes/e2e/versions/{number}", f"/prefixes/e2e/versions/{number}/file"):
            error = error_of(await api.client.get(path), 404, "version_not_found")
            assert error["message"] == missing


@pytest.mark.parametrize(
    "body", [{}, {"version": "1"}, {"version": 0}, {"version": True}, {"version": 1, "x": 1}]
)
async def test_bad_activations(api: Api, body: dict[str, Any]) -> None:
    await api.put("e2e")
    error_of(await api.client.post("/prefixes/e2e/activate", json=body), 422, "invalid_request")
