"""`client.prefixes`: uploads of both forms, paging, and the other calls."""

from __future__ import annotations

import hashlib
import json
from email import message_from_bytes
from pathlib import Path

import httpx2
import pytest
from client.events import Streaming
from client.scripted import ScriptedServer, refusal, sent_json, task, version

from prefixmux import (
    APIResponseError,
    Client,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    ServiceUnavailableError,
)
from prefixmux.requests import Example


def parts(request: httpx2.Request) -> dict[str, bytes]:
    """The multipart form of a request, by part name."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    found: dict[str, bytes] = {}
    for part in message_from_bytes(head + request.content).walk():
        name = part.get_param("name", header="content-disposition")
        if isinstance(name, str):
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            found[name] = payload
    return found


@pytest.fixture
def native(tmp_path: Path) -> Path:
    path = tmp_path / "prefix.safetensors"
    path.write_bytes(b"native bytes")
    return path


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes(b'{"peft_type": "PREFIX_TUNING"}')
    (folder / "adapter_model.safetensors").write_bytes(b"tensors")
    return folder


def created() -> httpx2.Response:
    return httpx2.Response(201, json=version())


def test_upload_of_a_native_file_claims_its_digest(
    scripted: type[ScriptedServer], native: Path
) -> None:
    server = scripted(created())
    stored = server.client().prefixes.upload("e2e", native, description="first")
    assert (server.last.method, server.last.url.path) == ("POST", "/prefixes")
    assert parts(server.last) == {
        "task_id": b"e2e",
        "activate": b"true",
        "description": b"first",
        "sha256": b"sha256:" + hashlib.sha256(b"native bytes").hexdigest().encode(),
        "file": b"native bytes",
    }
    assert (stored.version, stored.residency) == (1, "disk")


def test_upload_with_what_requests_may_leave_out(
    scripted: type[ScriptedServer], adapter: Path
) -> None:
    server = scripted(created())
    server.client().prefixes.upload(
        "e2e",
        adapter,
        template="Q: {input}",
        parameters={"stop": ["."], "seed": None},
        task_index=0,
    )
    sent = parts(server.last)
    assert sent["template"] == b"Q: {input}"
    assert json.loads(sent["parameters"]) == {"stop": ["."]}
    assert sent["task_index"] == b"0"


def test_parameters_that_json_cannot_carry_are_refused_before_sending(
    scripted: type[ScriptedServer], native: Path
) -> None:
    server = scripted()
    for value in (float("nan"), object()):
        with pytest.raises(InvalidArgumentError):
            server.client().prefixes.upload("e2e", native, parameters={"top_p": value})
    assert server.requests == []


def test_words_are_uploaded_as_json(scripted: type[ScriptedServer]) -> None:
    server = scripted(created(), created())
    prefixes = server.client().prefixes
    prefixes.upload_text("e2e", "Be brief.", activate=False, parameters={"top_k": 1, "seed": None})
    assert (server.last.method, server.last.url.path) == ("POST", "/prefixes")
    assert sent_json(server.last) == {
        "task_id": "e2e",
        "text": "Be brief.",
        "activate": False,
        "parameters": {"top_k": 1},
    }
    shown: list[Example] = [("hot", "cold"), {"input": "up", "output": "down"}]
    prefixes.upload_text("e2e", examples=shown, template="{input} {output}", description="d")
    assert sent_json(server.last) == {
        "task_id": "e2e",
        "examples": [{"input": "hot", "output": "cold"}, {"input": "up", "output": "down"}],
        "activate": True,
        "description": "d",
        "template": "{input} {output}",
    }


def test_compose_names_its_parts_in_order(scripted: type[ScriptedServer]) -> None:
    server = scripted(created())
    server.client().prefixes.compose(
        "both", ["b", ("a", 2), {"task_id": "c", "version": None}], template="{input}!"
    )
    assert sent_json(server.last) == {
        "task_id": "both",
        "compose": [{"task_id": "b"}, {"task_id": "a", "version": 2}, {"task_id": "c"}],
        "activate": True,
        "template": "{input}!",
    }


def test_an_upload_in_json_is_tried_again_when_the_server_was_busy(
    scripted: type[ScriptedServer],
) -> None:
    busy = refusal(503, "engine_unavailable", headers={"retry-after": "0"})
    server = scripted(busy, created())
    server.client(max_retries=1).prefixes.upload_text("e2e", "x")
    assert len(server.requests) == 2


def test_a_version_tells_its_parts_and_defaults(scripted: type[ScriptedServer]) -> None:
    part = {"task_id": "a", "version": 1, "digest": "sha256:1", "tokens": 3, "method": "TEXT"}
    body = version(parts=[part], template="{input}", parameters={"top_k": 1})
    server = scripted(httpx2.Response(200, json=body))
    found = server.client().prefixes.get_version("e2e", 1)
    assert (found.parts[0].method, found.parts[0].tokens) == ("TEXT", 3)
    assert (found.template, found.parameters) == ("{input}", {"top_k": 1})


def test_upload_of_a_peft_folder_sends_its_two_files(
    scripted: type[ScriptedServer], adapter: Path
) -> None:
    server = scripted(created())
    server.client().prefixes.upload("e2e", str(adapter), activate=False)
    assert parts(server.last) == {
        "task_id": b"e2e",
        "activate": b"false",
        "adapter_config": b'{"peft_type": "PREFIX_TUNING"}',
        "adapter_model": b"tensors",
    }


def test_upload_tells_nothing_of_this_machine(scripted: type[ScriptedServer], native: Path) -> None:
    server = scripted(created())
    server.client().prefixes.upload("e2e", native)
    assert b"prefix.safetensors" not in server.last.content
    assert str(native.parent).encode() not in server.last.content


def test_an_upload_cut_in_the_middle_is_sent_again_whole(
    scripted: type[ScriptedServer], native: Path
) -> None:
    busy = refusal(503, "engine_unavailable", headers={"retry-after": "0"})
    server = scripted(busy, created())
    server.client(max_retries=1).prefixes.upload("e2e", native)
    assert [parts(request)["file"] for request in server.requests] == [b"native bytes"] * 2


@pytest.mark.parametrize("name", ["prefix.bin", "prefix.PT", "prefix.pkl"])
def test_pickled_weights_are_refused_with_the_way_out(
    scripted: type[ScriptedServer], tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(InvalidArgumentError, match=r"save_pretrained.*prefixmux convert"):
        scripted().client().prefixes.upload("e2e", tmp_path / name)


def test_a_pickled_adapter_is_refused_with_the_way_out(
    scripted: type[ScriptedServer], adapter: Path
) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(InvalidArgumentError, match=r"save_pretrained"):
        scripted().client().prefixes.upload("e2e", adapter)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_half_an_adapter_is_refused_by_name(
    scripted: type[ScriptedServer], adapter: Path, missing: str
) -> None:
    (adapter / missing).unlink()
    with pytest.raises(InvalidArgumentError, match=f"{missing}.*prefixmux convert"):
        scripted().client().prefixes.upload("e2e", adapter)


def test_the_weights_of_an_adapter_alone_point_to_their_folder(
    scripted: type[ScriptedServer], adapter: Path
) -> None:
    with pytest.raises(InvalidArgumentError, match="give its folder"):
        scripted().client().prefixes.upload("e2e", adapter / "adapter_model.safetensors")


def test_a_missing_file_is_an_os_error(scripted: type[ScriptedServer], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        scripted().client().prefixes.upload("e2e", tmp_path / "none.safetensors")


def test_list_follows_the_cursor(scripted: type[ScriptedServer]) -> None:
    server = scripted(
        httpx2.Response(200, json={"items": [task("a"), task("b")], "next_cursor": "c+/="}),
        httpx2.Response(200, json={"items": [task("c", active=None)], "next_cursor": None}),
    )
    tasks = list(server.client().prefixes.list(query="x", limit=2))
    assert [item.task_id for item in tasks] == ["a", "b", "c"]
    assert tasks[2].active_version is None
    assert dict(server.requests[0].url.params) == {"limit": "2", "query": "x"}
    assert dict(server.requests[1].url.params) == {"limit": "2", "query": "x", "cursor": "c+/="}


def test_list_asks_only_for_the_pages_that_are_read() -> None:
    page = httpx2.Response(200, json={"items": [task("a"), task("b")], "next_cursor": "more"})
    server = ScriptedServer(page)
    assert next(server.client().prefixes.list()).task_id == "a"
    assert len(server.requests) == 1


def test_versions_follows_the_cursor(scripted: type[ScriptedServer]) -> None:
    server = scripted(
        httpx2.Response(200, json={"items": [version(1)], "next_cursor": "2"}),
        httpx2.Response(200, json={"items": [version(2)], "next_cursor": None}),
    )
    assert [v.version for v in server.client().prefixes.versions("e2e")] == [1, 2]
    assert server.last.url.path == "/prefixes/e2e/versions"


def test_the_other_calls_name_their_routes(scripted: type[ScriptedServer]) -> None:
    server = scripted(
        httpx2.Response(200, json=task()),
        httpx2.Response(200, json=version(2)),
        httpx2.Response(200, json=task(active=2)),
        httpx2.Response(204),
        httpx2.Response(204),
    )
    prefixes = server.client().prefixes
    assert prefixes.get("e2e").active_version == 1
    assert prefixes.get_version("e2e", 2).version == 2
    assert prefixes.activate("e2e", 2).active_version == 2
    prefixes.delete("e2e", 1)
    prefixes.delete("e2e")
    assert [f"{request.method} {request.url.path}" for request in server.requests] == [
        "GET /prefixes/e2e",
        "GET /prefixes/e2e/versions/2",
        "POST /prefixes/e2e/activate",
        "DELETE /prefixes/e2e/versions/1",
        "DELETE /prefixes/e2e",
    ]
    assert sent_json(server.requests[2]) == {"version": 2}


def test_deleting_the_active_version_is_a_conflict(scripted: type[ScriptedServer]) -> None:
    server = scripted(refusal(409, "version_active"))
    with pytest.raises(ConflictError):
        server.client().prefixes.delete("e2e", 1)


def test_a_task_id_never_reaches_another_route(scripted: type[ScriptedServer]) -> None:
    server = scripted(refusal(404, "task_not_found"))
    with pytest.raises(NotFoundError):
        server.client().prefixes.get("../model?x#y")
    assert server.last.url.raw_path == b"/prefixes/..%2Fmodel%3Fx%23y"


@pytest.mark.parametrize("task_id", ["", ".", ".."])
def test_a_task_id_that_a_path_would_swallow_is_refused(
    scripted: type[ScriptedServer], task_id: str
) -> None:
    with pytest.raises(InvalidArgumentError):
        scripted().client().prefixes.delete(task_id)


def stored(data: bytes) -> dict[str, object]:
    return version(2, prefix_digest=f"sha256:{hashlib.sha256(data).hexdigest()}")


def serving(data: bytes, sent: bytes) -> Client:
    active = task() | {"active_version": 2, "active": stored(data)}
    return ScriptedServer(
        httpx2.Response(200, json=active), httpx2.Response(200, content=sent)
    ).client()


def test_download_writes_the_active_version(tmp_path: Path) -> None:
    path = tmp_path / "out.safetensors"
    path.write_bytes(b"older")
    assert serving(b"native", sent=b"native").prefixes.download("e2e", path).version == 2
    assert path.read_bytes() == b"native"
    assert list(tmp_path.iterdir()) == [path]


def test_download_of_damaged_bytes_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.safetensors"
    path.write_bytes(b"older")
    with pytest.raises(APIResponseError):
        serving(b"native", sent=b"nativ").prefixes.download("e2e", path)
    assert path.read_bytes() == b"older"


def test_download_of_a_named_version(scripted: type[ScriptedServer], tmp_path: Path) -> None:
    server = scripted(
        httpx2.Response(200, json=stored(b"native")), httpx2.Response(200, content=b"native")
    )
    server.client().prefixes.download("e2e", tmp_path / "out", version=2)
    assert server.last.url.path == "/prefixes/e2e/versions/2/file"


def test_download_without_an_active_version_is_not_found(
    scripted: type[ScriptedServer], tmp_path: Path
) -> None:
    server = scripted(httpx2.Response(200, json=task(active=None)))
    with pytest.raises(NotFoundError) as caught:
        server.client().prefixes.download("e2e", tmp_path / "out")
    assert caught.value.code == "version_not_found"


@pytest.mark.parametrize("version_given", [None, 2])
@pytest.mark.parametrize("pinned", [True, False])
def test_pin_and_unpin(
    scripted: type[ScriptedServer], pinned: bool, version_given: int | None
) -> None:
    server = scripted(httpx2.Response(200, json=version(2, pinned=pinned)))
    prefixes = server.client().prefixes
    change = prefixes.pin if pinned else prefixes.unpin
    assert change("e2e", version_given).pinned is pinned
    assert (server.last.method, server.last.url.path) == ("POST", "/prefixes/e2e/pin")
    assert sent_json(server.last) == {"version": version_given, "pinned": pinned}


def test_an_upload_is_read_from_disk_in_pieces_and_tells_its_progress(
    scripted: type[ScriptedServer], adapter: Path
) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(b"x" * 200_000)
    total = 200_000 + (adapter / "adapter_config.json").stat().st_size
    told: list[tuple[int, int]] = []
    server = scripted(created())
    server.client().prefixes.upload("e2e", adapter, progress=lambda *sent: told.append(sent))
    assert told[-1] == (total, total)
    sent = [moved for moved, _ in told]
    assert sent == sorted(sent)
    steps = [after - before for before, after in zip([0, *sent], sent, strict=False)]
    assert max(steps) <= 64 * 1024
    assert parts(server.last)["adapter_model"] == b"x" * 200_000


def test_an_upload_that_is_sent_again_is_whole_and_tells_its_progress_from_the_start(
    scripted: type[ScriptedServer], native: Path
) -> None:
    told: list[int] = []
    busy = refusal(503, "engine_unavailable", headers={"retry-after": "0"})
    server = scripted(busy, created())
    server.client(max_retries=1).prefixes.upload(
        "e2e", native, progress=lambda sent, total: told.append(sent)
    )
    assert [moved for moved in told if moved] == [12, 12, 12, 12]
    assert parts(server.requests[0])["file"] == parts(server.last)["file"] == b"native bytes"


def test_a_download_tells_its_progress_and_begins_anew_after_a_cut(
    scripted: type[ScriptedServer], tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    found = httpx2.Response(200, json=stored(b"native") | {"bytes": 6})
    cut = Streaming(b"nat", failure=httpx2.ReadError("cut"))
    server = scripted(found, cut, Streaming(b"nat", b"ive"))
    server.client(max_retries=1).prefixes.download(
        "e2e", tmp_path / "out", 2, progress=lambda *moved: told.append(moved)
    )
    assert (tmp_path / "out").read_bytes() == b"native"
    assert told == [(3, 6), (3, 6), (6, 6)]
    assert cut.body.closed


def test_a_refused_download_leaves_nothing(scripted: type[ScriptedServer], tmp_path: Path) -> None:
    server = scripted(httpx2.Response(200, json=stored(b"x")), refusal(503, "prefix_unavailable"))
    with pytest.raises(ServiceUnavailableError):
        server.client().prefixes.download("e2e", tmp_path / "out", 2)
    assert list(tmp_path.iterdir()) == []
