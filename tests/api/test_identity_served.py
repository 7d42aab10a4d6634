"""Keys on a real server: changed while it runs, tried through raw sockets, and never told."""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api.served import WAIT_SECONDS, Served, served, until
from service.fakes import EOS, EOS_TEXT, VOCABULARY, tokenizer
from support.models import save_tiny
from transformers import GPT2Config, PreTrainedTokenizerFast
from typer.testing import CliRunner

from prefixmux.cli import build_app
from prefixmux_store.format import PrefixMeta, RawTensor, encode
from prefixmux_store.store import PrefixStore

LAYERS, HEADS, DIM = 2, 4, 8
SECOND = 1.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    config = GPT2Config(
        n_embd=HEADS * DIM,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=512,
        vocab_size=VOCABULARY,
        eos_token_id=EOS,
        bos_token_id=EOS,
    )
    save_tiny(config, folder)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer(), eos_token=EOS_TEXT)
    fast.save_pretrained(folder)
    return folder


@dataclass
class Keyed:
    """A server, its store's folder and what it wrote on stderr."""

    server: Served
    store: Path
    log: Path

    def key(
        self, tenant: str = "acme", scope: str = "admin", description: str = ""
    ) -> dict[str, Any]:
        words = ("--tenant", tenant, "--scope", scope, "--description", description)
        return self.keys("create", *words)

    def keys(self, *words: str) -> dict[str, Any]:
        """What the command prints; it runs beside the server, on the same store."""
        arguments = ["keys", *words, "--store", str(self.store), "--json"]
        result = CliRunner().invoke(build_app(), arguments)
        assert result.exit_code == 0, result.output
        told: dict[str, Any] = json.loads(result.stdout)
        return told

    def status(self, key: str | None, path: str = "/model") -> int:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return self.server.client.get(path, headers=headers).status_code

    def seconds_until(self, key: str | None, status: int) -> float:
        started = time.monotonic()
        until(lambda: self.status(key) == status)
        return time.monotonic() - started

    def raw(self, *lines: str) -> bytes:
        """The answer to a request as it is written here."""
        url = self.server.client.base_url
        with socket.create_connection((url.host, url.port), timeout=WAIT_SECONDS) as connection:
            connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
            return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture(scope="module")
def keyed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("keyed")
    # With a key other machines may reach it.
    store, log = folder / "store", folder / "log"
    with PrefixStore.open(store) as found:
        found.keys.create("first", ["read"])
    with served(model, store, "--host", "0.0.0.0", log=log) as server:
        yield Keyed(server, store, log)


@pytest.fixture(scope="module")
def opened(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A server of a store without keys: the flag lets everyone in for as long as that is so."""
    folder = tmp_path_factory.mktemp("opened")
    words = ("--host", "0.0.0.0", "--allow-anonymous")
    with served(model, folder / "store", *words, log=folder / "log") as server:
        yield Keyed(server, folder / "store", folder / "log")


def test_keys_change_while_the_server_runs(keyed: Keyed) -> None:
    assert keyed.status(None) == 401
    made = keyed.key()
    assert keyed.seconds_until(made["key"], 200) < SECOND
    keyed.keys("revoke", made["id"])
    assert keyed.seconds_until(made["key"], 401) < SECOND
    listed = keyed.keys("ls")["items"]
    assert made["key"] not in json.dumps(listed)


def test_an_open_server_closes_within_a_second(opened: Keyed) -> None:
    assert opened.status(None) == 200
    made = opened.key()
    assert opened.seconds_until(None, 401) < SECOND
    assert opened.status(made["key"]) == 200


@pytest.mark.parametrize(
    "lines",
    [
        ["GET /prefixes HTTP/1.1", "Host: localhost"],
        ["GET /prefixes HTTP/1.1", "Host: localhost/health/live?"],
        ["GET /prefixes HTTP/1.1", "Host: x", "X-Forwarded-Prefix: /health/live"],
        ["GET http://localhost/prefixes HTTP/1.1", "Host: localhost"],
        ["GET http://localhost/health/live/../../prefixes HTTP/1.1", "Host: localhost"],
        ["GET /health/live/../../prefixes HTTP/1.1", "Host: localhost"],
        ["GET /health/live/%2e%2e/%2e%2e/prefixes HTTP/1.1", "Host: localhost"],
        ["GET //prefixes HTTP/1.1", "Host: localhost"],
        ["GET /%70refixes HTTP/1.1", "Host: localhost"],
        ["GET /prefixes?a=/health/live HTTP/1.1", "Host: localhost"],
        ["GET /prefixes#/health/live HTTP/1.1", "Host: localhost"],
        ["OPTIONS * HTTP/1.1", "Host: localhost"],
        ["HEAD /prefixes HTTP/1.1", "Host: localhost"],
        ["GET /prefixes HTTP/1.0"],
        ["POST /generate HTTP/1.1", "Host: x", "Content-Length: 1000000"],
        ["GET /prefixes HTTP/1.1", "Host: x", "Authorization: Bearer \xff\xfe"],
        ["GET /prefixes HTTP/1.1", "Host: x", "Authorization: Bearer " + "k" * 20_000],
    ],
    ids=lambda lines: lines[0] if len(lines) < 3 else lines[2][:40],
)
def test_no_way_to_ask_is_open(keyed: Keyed, lines: list[str]) -> None:
    status = int(keyed.raw(*lines).split(b" ", 2)[1])
    # What is no request at all is refused as such, before anybody asks for a key.
    assert status in (400, 401)


@dataclass
class Canaries:
    """Texts that nobody else would write, and where each was planted."""

    planted: dict[str, str] = field(default_factory=dict)

    def plant(self, where: str) -> str:
        text = f"canary{secrets.token_hex(8)}"
        self.planted[text] = where
        return text

    def found(self, text: str) -> set[str]:
        return {where for canary, where in self.planted.items() if canary in text}


def native(canaries: Canaries) -> bytes:
    shape = (LAYERS, 2, 3, HEADS, DIM)
    count = 4 * 2 * LAYERS * 3 * HEADS * DIM
    tensor = RawTensor("F32", shape, memoryview(bytes(count)))
    return encode({"decoder": tensor}, PrefixMeta(provenance={"by": canaries.plant("provenance")}))


def test_secrets_are_told_nowhere(opened: Keyed) -> None:
    """The last one: what the server wrote is whole when it has ended."""
    canaries, server = Canaries(), opened.server
    description = canaries.plant("description of a key")
    key = opened.key("acme", "admin", description=description)["key"]
    canaries.planted[key] = "the key"
    opened.seconds_until(key, 200)
    sender = Sender(server, key, canaries)
    errors = sender.everything()
    told = [server.client.get(path, headers=sender.headers) for path in ("/metrics", "/usage")]
    used = told[1].json()["items"]
    server.terminate()
    assert server.status() == 0
    out = server.process.stdout.read() if server.process.stdout else ""
    with PrefixStore.open(opened.store) as store:
        # What was used in the server's last second is kept, too.
        assert [asdict(entry) | {"tenant": "acme"} for entry in store.usage.of("acme")] == [
            {**item, "tenant": "acme"} for item in used
        ]
    assert len(errors) > 20
    for answer in errors:
        assert answer.status_code >= 400, answer.text
        assert not canaries.found(answer.text + str(answer.headers)), answer.text
    for answer in told:
        assert answer.status_code == 200
        assert not canaries.found(answer.text)
    audit = (opened.store / "audit.jsonl").read_text()
    kept = {"stdout": out, "stderr": opened.log.read_text(), "audit": audit}
    assert {name: canaries.found(text) for name, text in kept.items()} == {
        "stdout": set(),
        "stderr": set(),
        "audit": set(),
    }
    assert '"route": "/generate"' in kept["stderr"]
    assert '"event": "upload"' in kept["audit"]
    assert '"event": "request"' in kept["audit"]


@dataclass
class Sender:
    """Plants canaries wherever a client can write text."""

    server: Served
    key: str
    canaries: Canaries

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def everything(self) -> list[httpx2.Response]:
        """Requests that are answered and such that are refused: the refusals."""
        self._stores()
        self._generates()
        self._other_apis()
        return [*self._bad_keys(), *self._bad_requests(), *self._bad_files()]

    def _post(self, path: str, body: Mapping[str, Any]) -> httpx2.Response:
        return self.server.client.post(path, json=body, headers=self.headers)

    def _stores(self) -> None:
        plant, file = self.canaries.plant, native(self.canaries)
        about = {
            "task_id": "e2e",
            "description": plant("description"),
            "template": plant("template") + "{input}",
        }
        form = {"file": (plant("file name"), file)}
        answer = self.server.client.post("/prefixes", data=about, files=form, headers=self.headers)
        assert answer.status_code == 201, answer.text
        recipe = {
            "task_id": "text",
            "text": plant("text")[:12],
            "description": plant("description"),
        }
        assert self._post("/prefixes", recipe).status_code == 201

    def _generates(self) -> None:
        plant = self.canaries.plant
        for task_id in ("e2e", "text", None):
            parameters = {
                "max_new_tokens": 40,
                "ignore_eos": True,
                "stop": [plant("stop")],
            }
            body = {"task_id": task_id, "input": plant("input"), "parameters": parameters}
            answer = self._post("/generate", body)
            assert answer.status_code == 200, answer.text
            text = answer.json()["outputs"][0]["text"]
            self.canaries.planted[text[5:25]] = "output"
            self.canaries.planted[json.dumps(text[5:25])[1:-1]] = "output, escaped"
            rows = {"requests": [body, {**body, "task_id": "missing"}]}
            assert self._post("/generate/batch", rows).status_code == 200

    def _other_apis(self) -> None:
        plant = self.canaries.plant
        said = [{"role": "user", "content": plant("message")}]
        asked: list[tuple[str, dict[str, Any]]] = [
            ("/generate", {"task_id": "e2e", "input": plant("input"), "stream": True}),
            ("/score", {"task_id": "e2e", "input": plant("input"), "targets": [plant("target")]}),
            ("/v1/completions", {"model": "e2e", "prompt": plant("prompt"), "user": plant("user")}),
            ("/v1/chat/completions", {"model": "e2e", "messages": said}),
        ]
        for path, body in asked:
            answer = self._post(path, body)
            assert answer.status_code == 200, answer.text

    def _bad_keys(self) -> Iterator[httpx2.Response]:
        client, bad = self.server.client, self.canaries.plant("bad key")
        for text in (f"Bearer {bad}", f"Basic {bad}", bad, f"Bearer {self.key}x"):
            yield client.get("/prefixes", headers={"authorization": text})
        yield client.get("/prefixes", params={"api_key": self.key})
        yield client.get("/v1/models", headers={"authorization": f"Bearer {bad}"})
        yield client.get("/ui", headers={"cookie": f"prefixmux_key={bad}", "accept": "text/html"})
        yield client.post("/ui/sign-in", data={"key": bad}, headers={"accept": "text/html"})
        yield client.get("/nothing", headers={"cookie": self.key, "x-api-key": self.key})

    def _bad_requests(self) -> Iterator[httpx2.Response]:
        plant = self.canaries.plant
        bad: list[dict[str, Any]] = [
            {"task_id": "missing"},
            {"task_id": "e2e", "version": 9},
            {"task_id": plant("task").upper()},
            {"parameters": {"stop": plant("stop")}},
            {"parameters": {"max_new_tokens": plant("number")}},
            {"parameters": {"temperature": plant("number")}},
            {"parameters": {"max_new_tokens": 10**6}},
            {"parameters": {"top_k": 10**6}},
            {"parameters": plant("parameters")},
            {"version": plant("version")},
            {"stream": plant("stream")},
            {"compose": plant("compose")},
            {"compose": [{"task_id": "e2e", "version": plant("version")}]},
            {"decoder_input": plant("decoder input")},
            {"input": [plant("token")]},
            {"input": plant("input") * 100},
            {"input": {"text": plant("input")}},
        ]
        for body in bad:
            yield self._post("/generate", {"input": plant("input"), **body})
        raw = [f'{{"input": "{plant("broken")}', f'{{"input": NaN, "a": "{plant("broken")}"}}']
        for text in raw:
            sent = {**self.headers, "content-type": "application/json"}
            yield self.server.client.post("/generate", content=text, headers=sent)
        yield self._post("/prefixes", {"task_id": "new", "text": {"is": plant("text")}})
        yield self._post("/prefixes", {"task_id": "new", "text": plant("text") * 1000})
        yield self._post(
            "/prefixes", {"task_id": "new", "text": "a", "template": plant("template")}
        )
        yield self._post("/prefixes/e2e/activate", {"version": plant("version")})
        yield self._post(
            "/v1/completions", {"model": "e2e", "prompt": "a", "stop": {plant("a"): 1}}
        )
        yield self._post("/v1/chat/completions", {"model": "e2e", "messages": plant("messages")})
        yield self._post("/score", {"input": plant("input"), "targets": [{"is": plant("target")}]})
        where = {"cursor": plant("cursor")}
        yield self.server.client.get("/prefixes", params=where, headers=self.headers)

    def _bad_files(self) -> Iterator[httpx2.Response]:
        canaries, client = self.canaries, self.server.client
        good = native(canaries)
        yield client.put("/prefixes/bad", content=good[:-8], headers=self.headers)
        yield client.put("/prefixes/bad", content=canaries.plant("file") * 9, headers=self.headers)
        renamed = good.replace(b'"decoder"', b'"decodes"')
        yield client.put("/prefixes/bad", content=renamed, headers=self.headers)
        meta = good.replace(b'"format\\":1', b'"format\\":9').replace(b"format", b"f0rmat")
        yield client.put("/prefixes/bad", content=meta, headers=self.headers)
        form = {"file": (canaries.plant("file name"), good)}
        data = {"task_id": "bad", "sha256": canaries.plant("digest")}
        yield client.post("/prefixes", data=data, files=form, headers=self.headers)
        digest = {**self.headers, "content-digest": canaries.plant("digest")}
        yield client.put("/prefixes/bad", content=good, headers=digest)
