"""Between client and server everything breaks: no answer is short, no upload is there twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from api.served import Served
from client.faults import Fault, FaultProxy, faulty

from prefixmux import Client, GenerateRequest, PrefixmuxError, retry

PROMPT = "name : Aromi | eatType : pub =>"
DEMO = Path(__file__).parents[2] / "demo"


@dataclass(frozen=True)
class Line:
    """A client behind the proxy."""

    proxy: FaultProxy
    http: httpx2.Client

    def client(self, max_retries: int = 0) -> Client:
        return Client(self.proxy.address, max_retries=max_retries, http_client=self.http)


@pytest.fixture
def line(demo_server: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """Of one connection per call, so that each meets the next fault; retries wait for nothing."""
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.0)
    url = demo_server.client.base_url
    limits = httpx2.Limits(max_keepalive_connections=0)
    with faulty((url.host, url.port or 0)) as proxy, httpx2.Client(limits=limits) as http:
        yield Line(proxy, http)


def drawn(seed: int, reach: int) -> Fault:
    """Somewhere in the first `reach` bytes of one way."""
    draw = random.Random(seed)
    kind = draw.choice(("close", "reset", "garbage"))
    way = "down" if kind == "garbage" else draw.choice(("up", "down"))
    return Fault(kind, way, draw.randrange(reach))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(24))
def test_a_broken_stream_is_an_error_or_the_whole_answer(line: Line, seed: int) -> None:
    with line.client().stream("e2e", PROMPT, max_new_tokens=12, seed=1) as stream:
        whole = stream.until_done().outputs
    line.proxy.faults.append(drawn(seed, 3000))
    texts: list[str] = []
    try:
        with line.client().stream("e2e", PROMPT, max_new_tokens=12, seed=1) as stream:
            texts = [event.text or "" for event in stream]
    except PrefixmuxError:
        return
    assert stream.response.outputs == whole
    assert "".join(texts) == whole[0].text


@pytest.mark.parametrize("seed", range(10))
def test_a_broken_answer_is_asked_for_again(line: Line, seed: int) -> None:
    row = GenerateRequest("e2e", PROMPT, parameters={"max_new_tokens": 4, "seed": 1})
    (expected,) = line.client().generate_many([row])
    before = line.proxy.connections
    kinds = [Fault("busy"), Fault("reset", "up", seed * 17), Fault("close", "down", seed * 31)]
    line.proxy.faults.extend(random.Random(seed).sample(kinds, 3))
    (found,) = line.client(3).generate_many([row])
    assert found.unwrap().outputs == expected.unwrap().outputs
    assert 1 < line.proxy.connections - before <= 4


@pytest.mark.parametrize("seed", range(8))
def test_an_upload_that_broke_again_and_again_is_there_once(line: Line, seed: int) -> None:
    size = (DEMO / "prefixes" / "tv" / "adapter_model.safetensors").stat().st_size
    draw = random.Random(seed)
    line.proxy.faults.extend(
        draw.choice(
            (
                Fault("busy"),
                Fault("close", "up", draw.randrange(size)),
                Fault("reset", "up", draw.randrange(size)),
                # The server has it already; its answer is lost.
                Fault("reset", "down", draw.randrange(300)),
            )
        )
        for _ in range(4)
    )
    task = f"upload-{seed}"
    client = line.client(5)
    stored = client.prefixes.upload(task, DEMO / "prefixes" / "tv")
    line.proxy.faults.clear()
    versions = list(client.prefixes.versions(task))
    assert [version.version for version in versions] == [stored.version] == [1]


@pytest.mark.parametrize("seed", range(8))
def test_a_broken_download_leaves_the_whole_file_or_none(
    line: Line, tmp_path: Path, seed: int
) -> None:
    clean = line.client()
    stored = clean.prefixes.upload("tv", DEMO / "prefixes" / "tv")
    # The version is asked for first, and answered.
    line.proxy.faults.extend([Fault("close", "down", 1 << 30), drawn(seed, stored.bytes)])
    path = tmp_path / "tv.safetensors"
    try:
        clean.prefixes.download("tv", path, 1)
    except PrefixmuxError:
        assert list(tmp_path.iterdir()) == []
    else:
        assert path.stat().st_size == stored.bytes
