"""The whole server over real HTTP: what it answers, how it drains, and its exit status."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
import torch
from api.served import WAIT_SECONDS, Served, command, environment, served, until
from service.fakes import EOS, EOS_TEXT, VOCABULARY, ids, tokenizer
from support.models import save_tiny
from support.reference import greedy, load_reference
from transformers import GPT2Config, PreTrainedModel, PreTrainedTokenizerFast

from prefixmux_server.main import main
from prefixmux_store.format import PrefixMeta, RawTensor, encode
from prefixmux_store.names import digest_of

LAYERS, HEADS, DIM, POSITIONS = 2, 4, 8, 2048
PROMPT = "name : Blue Spice"
LONG = {"max_new_tokens": 1000, "ignore_eos": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    config = GPT2Config(
        n_embd=HEADS * DIM,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=POSITIONS,
        vocab_size=VOCABULARY,
        eos_token_id=EOS,
        bos_token_id=EOS,
    )
    save_tiny(config, folder)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer(), eos_token=EOS_TEXT)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reference(model: Path) -> PreTrainedModel:
    return load_reference(model)


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(model, tmp_path_factory.mktemp("store") / "new") as running:
        yield running


def prefix(tokens: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((LAYERS, 2, tokens, HEADS, DIM), generator=generator)


def file_of(values: torch.Tensor) -> bytes:
    tensor = RawTensor("F32", tuple(values.shape), memoryview(values.numpy().tobytes()))
    return encode({"decoder": tensor}, PrefixMeta())


def put(server: Served, task_id: str, values: torch.Tensor) -> None:
    answer = server.client.put(f"/prefixes/{task_id}", content=file_of(values))
    assert answer.status_code in (200, 201), answer.text


def test_the_ready_line_is_an_address(server: Served) -> None:
    assert re.fullmatch(r"ready http://127\.0\.0\.1:[1-9][0-9]*\n", server.ready)
    assert server.client.get("/health/ready").status_code == 200
    assert server.client.get("/model").json()["vocabulary"] == VOCABULARY


def test_head_leaves_the_connection_in_order(server: Served) -> None:
    for path in ("/model", "/nothing"):
        head = server.client.head(path)
        assert (head.content, server.client.get(path).status_code) == (b"", head.status_code)
        assert int(head.headers["content-length"]) > 0


def test_a_mixed_batch_answers_as_the_models_own_code(
    server: Served, reference: PreTrainedModel
) -> None:
    prefixes = {f"task-{tokens}": prefix(tokens, seed=tokens) for tokens in (1, 4, 9)}
    for name, values in prefixes.items():
        put(server, name, values)
    parameters = {"max_new_tokens": 24, "ignore_eos": True}
    asked = [(task_id, PROMPT[:n]) for n in (3, 9, 17) for task_id in (None, *prefixes)]
    rows = [{"task_id": id, "input": input, "parameters": parameters} for id, input in asked]
    before = len(server.steps())
    results = server.client.post("/generate/batch", json={"requests": rows}).json()["results"]
    for (task_id, text), result in zip(asked, results, strict=True):
        answer = result["response"]
        used = None if task_id is None else prefixes[task_id]
        expected = greedy(reference, ids(text), 24, used)
        assert answer["outputs"][0]["token_ids"] == expected
        assert answer["outputs"][0]["text"] == tokenizer().decode(expected)
        assert answer["prefix_digest"] == (None if used is None else digest_of(file_of(used)))
        assert answer["usage"]["prefix_tokens"] == (0 if used is None else used.shape[2])
    batched = [{row["task_id"] for row in step["rows"]} for step in server.steps()[before:]]
    assert max(map(len, batched)) == 4
    version = server.client.get("/prefixes/task-4/versions/1").json()
    assert version["residency"] != "disk"


def test_a_stop_string_frees_the_row(server: Served) -> None:
    free = server.generate(input=PROMPT, parameters={"max_new_tokens": 40, "ignore_eos": True})
    (output,) = free["outputs"]
    stop = output["text"][5:8]
    parameters = {**LONG, "stop": [stop]}
    answer = server.generate(input=PROMPT, parameters=parameters)
    (stopped,) = answer["outputs"]
    assert stopped["stop"] == stop
    assert stopped["text"] == output["text"][: output["text"].index(stop)]
    assert stopped["token_ids"] == output["token_ids"][: len(stopped["token_ids"])]
    assert answer["usage"]["generated_tokens"] == len(stopped["token_ids"]) <= 40
    after = server.generate(input="a", parameters={"max_new_tokens": 4, "ignore_eos": True})
    rows = [row for step in server.steps() for row in step["rows"]]
    assert sum(row["request_id"] == after["id"] for row in rows) == 4
    assert sum(row["request_id"] == answer["id"] for row in rows) < 100


def test_a_client_that_leaves_frees_its_row(server: Served) -> None:
    host, port = server.client.base_url.host, server.client.base_url.port
    body = b'{"input": "leaving", "parameters": {"max_new_tokens": 1900, "ignore_eos": true}}'
    last = server.steps()[-1]["step"]
    with socket.create_connection((host, port), timeout=WAIT_SECONDS) as leaving:
        head = f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        leaving.sendall(head.encode() + body)
        until(lambda: bool(server.steps(last)))
    until(lambda: alone(server))
    assert len(server.steps(last)) < 1900


def alone(server: Served) -> bool:
    """Whether a request has the batch to itself."""
    answer = server.generate(input="a", parameters={"max_new_tokens": 2, "ignore_eos": True})
    mine = [
        step["rows"]
        for step in server.steps()
        if any(row["request_id"] == answer["id"] for row in step["rows"])
    ]
    return all(len(rows) == 1 for rows in mine)


def test_a_dead_engine_is_told_and_replaced(server: Served) -> None:
    put(server, "e2e", prefix(3, seed=1))
    pinned = server.client.post("/prefixes/e2e/pin", json={"pinned": True}).json()
    assert pinned["pinned"] is True
    until(lambda: resident(server, "e2e"))
    with ThreadPoolExecutor(1) as threads:
        lost = accept(server, threads)
        subprocess.run(["kill", "-9", str(server.engine_pid())], check=True)
        answer = lost.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
    assert server.client.get("/health/live").status_code == 200
    until(lambda: server.client.get("/health/ready").status_code == 200)
    until(lambda: resident(server, "e2e"))
    assert server.generate(task_id="e2e", input="a")["usage"]["prefix_tokens"] == 3


def resident(server: Served, task_id: str) -> bool:
    """Loaded, though nothing may have asked for it."""
    active = server.client.get(f"/prefixes/{task_id}").json()["active"]
    return bool(active["residency"] != "disk")


def test_a_drain_a_restart_and_a_drain_that_is_cut(model: Path, tmp_path: Path) -> None:
    with served(model, tmp_path / "store") as first, ThreadPoolExecutor(1) as threads:
        put(first, "e2e", prefix(3, seed=1))
        before = first.generate(task_id="e2e", input=PROMPT)
        accepted = accept(first, threads)
        first.terminate()
        until(lambda: draining(first))
        assert first.client.post("/generate", json={"input": "late"}).status_code == 503
        finished = accepted.result().json()
        assert finished["usage"]["generated_tokens"] == LONG["max_new_tokens"]
        assert first.status() == 0
    bounded = ("--drain-seconds", "0.05", "--preload", "e2e, default/e2e")
    with served(model, tmp_path / "store", *bounded) as second, ThreadPoolExecutor(1) as threads:
        assert resident(second, "e2e")
        assert second.client.get("/prefixes/e2e").json()["active"]["pinned"] is True
        after = second.generate(task_id="e2e", input=PROMPT)
        assert after["outputs"] == before["outputs"]
        assert after["prefix_digest"] == before["prefix_digest"]
        accepted = accept(second, threads)
        second.terminate()
        answer = accepted.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
        assert second.status() == 0


def accept(server: Served, threads: ThreadPoolExecutor) -> Future[httpx2.Response]:
    """A long request that has begun to run."""
    last = server.steps()[-1]["step"]
    sent = threads.submit(post_long, server)
    until(lambda: bool(server.steps(last)))
    return sent


def post_long(server: Served) -> httpx2.Response:
    return server.client.post("/generate", json={"input": PROMPT, "parameters": LONG})


def draining(running: Served) -> bool:
    answer = running.client.get("/health/ready")
    return answer.status_code == 503 and answer.json()["reason"] == "draining"


def test_a_server_that_is_told_to_stop_while_it_loads(model: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = (str(model), "--store", str(tmp_path / "s"), "--port", str(port))
    loading = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
    )
    with loading, httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
        until(lambda: reason_of(client) == "starting")
        assert client.get("/health/live").status_code == 200
        assert client.post("/generate", json={"input": "a"}).status_code == 503
        loading.terminate()
        assert loading.communicate(timeout=WAIT_SECONDS)[0] == b""
    assert loading.returncode == 0


def reason_of(client: httpx2.Client) -> str | None:
    try:
        return str(client.get("/health/ready").json()["reason"])
    except httpx2.ConnectError:
        return None


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        env=environment(),
    )


def test_an_open_server_binds_loopback_only(model: Path, tmp_path: Path) -> None:
    refused = run(str(model), "--store", str(tmp_path / "s"), "--host", "0.0.0.0", "--port", "0")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "127.0.0.1" in refused.stderr
    assert "--allow-anonymous" in refused.stderr
    assert "prefixmux keys create" in refused.stderr


def test_a_task_to_preload_that_does_not_exist(model: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "s")
    refused = run(str(model), "--store", store, "--port", "0", "--preload", "acme/e2e")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "acme/e2e" in refused.stderr


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "", "x" * 300])
def test_a_host_that_is_not_known(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    for anonymous in (False, True):
        flags = {"model": str(model), "store": tmp_path / "s", "host": host}
        assert main({**flags, "allow_anonymous": anonymous}) == 2
        told = capsys.readouterr().err
        assert "--host" in told
        assert "--allow-anonymous" not in told
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("flag", [("--port", "70000"), ("--max-batch-rows", "0")])
def test_bad_flags(model: Path, flag: tuple[str, str]) -> None:
    ended = run(str(model), *flag)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert flag[0].removeprefix("--") in ended.stderr


def test_a_taken_port(model: Path, tmp_path: Path, server: Served) -> None:
    port = str(httpx2.URL(server.client.base_url).port)
    ended = run(str(model), "--store", str(tmp_path / "s"), "--port", port)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--port" in ended.stderr and "Traceback" not in ended.stderr


def test_a_model_that_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}')
    ended = run(str(tmp_path / "model"), "--store", str(tmp_path / "s"), "--port", "0")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Traceback" not in ended.stderr
