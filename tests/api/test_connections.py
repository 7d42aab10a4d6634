"""Connections that misbehave: what they are told, when they are cut, and that nobody else minds."""

from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from api.conftest import MAX_BODY, Api
from api.raw import PATIENCE_S, Line, Raw, Site, listening, request
from service.fakes import ids, native, reply_with

from prefixmux_server.api.http import body
from prefixmux_server.api.http.protocol import Limits

pytestmark = pytest.mark.anyio

GET = b"GET /version HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /generate HTTP/1.1\r\nHost: x\r\n"
ASK = b'{"input": "a"}'
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"


def head(*lines: bytes) -> bytes:
    return b"\r\n".join([b"GET /version HTTP/1.1", b"Host: x", *lines, b"", b""])


def posted(length: bytes, content: bytes = ASK) -> bytes:
    return POST + b"Content-Length: " + length + b"\r\n\r\n" + content


def chunked(*chunks: bytes) -> bytes:
    return CHUNKED + b"\r\n" + b"".join(chunks)


WHOLE = chunked(b"%x\r\n%s\r\n" % (len(ASK), ASK), b"0\r\n\r\n")

# name, what is sent, the status of the answer
CASES: list[tuple[str, bytes, int]] = [
    # what is in order
    ("plain", GET + b"\r\n", 200),
    ("lower case header names", b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n", 200),
    ("HTTP/1.0", b"GET /version HTTP/1.0\r\n\r\n", 200),
    ("a body nobody asked for", GET + b"Content-Length: 3\r\n\r\nabc", 200),
    ("a hundred headers", head(*[b"x-%d: y" % n for n in range(99)]), 200),
    ("a long header", head(b"x: " + b"y" * 60_000), 200),
    ("chunked", WHOLE, 200),
    ("chunks with extensions", chunked(b"e;a=b\r\n%s\r\n" % ASK, b"0\r\n\r\n"), 200),
    ("trailers", chunked(b"e\r\n%s\r\n" % ASK, b"0\r\nx: y\r\n\r\n"), 200),
    ("an upgrade is not taken", head(b"Connection: upgrade", b"Upgrade: websocket"), 200),
    ("h2c is not taken", head(b"Connection: upgrade", b"Upgrade: h2c"), 200),
    ("the length twice, the same", posted(b"14, 14"), 200),
    ("zeros before the length", posted(b"0014"), 200),
    # targets
    ("absolute form", b"GET http://x/version HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ("authority form", b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ("asterisk form", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ("up and up", b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ("a fragment", b"GET /version#x HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ("bad UTF-8, quoted", b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ("an open path in the host", b"GET /x HTTP/1.1\r\nHost: x/health/live?\r\n\r\n", 404),
    ("a method nobody knows", b"BREW /version HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    ("a long target", b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 50_000), 404),
    # request lines
    ("a line before the request", b"\r\n" + GET + b"\r\n", 400),
    ("noise", b"\x00\x01\x02\x03\r\n\r\n", 400),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 60 + b"\r\n\r\n", 400),
    ("no version", b"GET /version\r\nHost: x\r\n\r\n", 400),
    ("another protocol", b"GET /version RTSP/1.0\r\nHost: x\r\n\r\n", 400),
    ("a version of three parts", b"GET /version HTTP/1.1.1\r\nHost: x\r\n\r\n", 400),
    ("a blank in the target", b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("bad UTF-8 in the target", b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a blank before the method", b" GET /version HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a method with a colon", b"GE:T /version HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a target that never ends", b"GET /" + b"a" * 200_000, 414),
    ("a method that never ends", b"G" * 200_000, 414),
    # headers
    ("no host", b"GET /version HTTP/1.1\r\n\r\n", 400),
    ("two hosts", head(b"Host: y"), 400),
    ("no colon", head(b"x"), 400),
    ("no name", head(b": x"), 400),
    ("a blank before the colon", head(b"x : y"), 400),
    ("a blank in the name", head(b"x y: z"), 400),
    ("NUL in a value", head(b"x: \0"), 400),
    ("a return in a value", head(b"x: a\rb"), 400),
    ("a bad name", head(b"x(y): z"), 400),
    ("UTF-8 in a name", head("\u00fc: z".encode()), 400),
    ("101 headers", head(*[b"x-%d: y" % n for n in range(100)]), 431),
    ("10,000 headers", head(*[b"x-%d: y" % n for n in range(10_000)]), 431),
    ("a header of 8 MiB", head(b"x: " + b"y" * (8 << 20)), 431),
    ("a header that never ends", GET + b"x: " + b"y" * 200_000, 431),
    ("headers that never end", GET + b"x: y\r\n" * 40_000, 431),
    # lengths
    ("both lengths", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 14\r\n\r\n" + ASK, 400),
    ("both lengths, turned", posted(b"14\r\nTransfer-Encoding: chunked"), 400),
    ("chunks of HTTP/1.0", WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
    ("chunked twice", chunked().replace(b"chunked", b"chunked, chunked"), 400),
    ("gzip, chunked", chunked().replace(b"chunked", b"gzip, chunked"), 400),
    ("identity", chunked().replace(b"chunked", b"identity"), 400),
    ("two encodings", CHUNKED + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    ("chunked, disguised", chunked().replace(b"chunked", b"\x0bchunked"), 400),
    ("another length", posted(b"14\r\nContent-Length: 15"), 400),
    ("another length in a list", posted(b"14, 15"), 400),
    ("less than nothing", posted(b"-1"), 400),
    ("a plus", posted(b"+14"), 400),
    ("a fraction", posted(b"14.0"), 400),
    ("hexadecimal", posted(b"0xe"), 400),
    ("no number", posted(b"many"), 400),
    ("an empty length", posted(b""), 400),
    ("a length of 30 digits", posted(b"9" * 30), 400),
    ("a length of 19 digits", posted(b"9" * 19), 413),
    ("one byte too many", posted(b"%d" % (MAX_BODY + 1)), 413),
    # chunks
    ("a chunk without size", chunked(b"\r\n"), 400),
    ("a size that is no number", chunked(b"zz\r\n"), 400),
    ("a negative size", chunked(b"-1\r\n"), 400),
    ("a size of 40 digits", chunked(b"f" * 40 + b"\r\n"), 400),
    ("a chunk longer than it says", chunked(b"2\r\nabcd\r\n"), 400),
    ("an extension that never ends", chunked(b"e;" + b"a" * 200_000), 431),
    ("a flood of chunks", chunked(b"1\r\n \r\n" * 3000, b"0\r\n\r\n"), 400),
    ("more chunks than a body", chunked(b"1000\r\n%s\r\n" % (b" " * 4096) * 10), 413),
    # bodies
    ("bad UTF-8", posted(b"2", b"\xff\xfe"), 400),
    ("half a surrogate", posted(b"20", b'{"input": "\\ud800"} '), 422),
    ("a body of gzip", POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", 415),
    ("nothing", posted(b"0", b""), 400),
]


@pytest.fixture
async def site(api: Api) -> AsyncIterator[Site]:
    async with listening(api.app, Limits()) as running:
        yield running


def checked(answer: Raw | None, status: int) -> None:
    assert answer is not None
    assert answer.status == status, answer
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    if status >= 400:
        assert answer.headers["content-type"] == "application/json"
        assert set(answer.error) == {"code", "message", "param", "request_id"}
        assert answer.error["request_id"] == answer.headers["x-request-id"]
        assert answer.error["message"].endswith(".")
    if status in (408, 414, 431):
        assert answer.error["code"] == "invalid_request"
        assert answer.headers["connection"] == "close"


async def test_raw_requests(api: Api, site: Site) -> None:
    found = {}
    for name, sent, status in CASES:
        answer = await site.ask(sent)
        found[name] = None if answer is None else answer.status
        if found[name] == status:
            checked(answer, status)
        assert await site.healthy(), name
        assert api.lifecycle.accepted == api.engine.open == 0, name
    assert found == {name: status for name, _, status in CASES}
    assert {400, 414, 431} == set(site.refused)


async def test_in_pieces_and_cut_short_they_leave_nothing_behind(api: Api, site: Site) -> None:
    for _, sent, _ in CASES:
        if len(sent) > 1000:
            continue
        for cut in {1, len(sent) // 2, len(sent) - 1}:
            line = await site.connect()
            await line.send(sent[:cut])
            await line.send(sent[cut : len(sent) - 1])
            await line.close()
    while api.engine.open or api.lifecycle.accepted:
        await asyncio.sleep(0.001)
    assert await site.healthy()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_hostile_requests_do_not_grow_the_process(api: Api, site: Site) -> None:
    async def all_of_them() -> None:
        for _, sent, _ in CASES:
            await site.ask(sent)
        site.lines.clear()
        gc.collect()

    await all_of_them()
    before = resident_bytes()
    for _ in range(4):
        await all_of_them()
    assert resident_bytes() - before < 16 << 20


async def test_pipelined_requests_are_answered_in_order(api: Api, site: Site) -> None:
    api.engine.reply = reply_with(ids("hello"))
    line = await site.connect()
    await line.send(request("POST", "/generate", ASK) + GET + b"\r\n" + WHOLE)
    statuses = [await line.answer() for _ in range(3)]
    assert [answer.status for answer in statuses if answer] == [200, 200, 200]
    assert statuses[1] is not None and b"version" in statuses[1].body
    assert statuses[2] is not None and b"hello" in statuses[2].body


async def test_what_stands_behind_a_request_is_no_part_of_it(site: Site) -> None:
    line = await site.connect()
    await line.send(request("POST", "/generate", ASK) + b"noise\r\n\r\n")
    first, second = await line.answer(), await line.answer()
    assert first is not None and first.status == 200
    checked(second, 400)
    assert await line.ended()


async def test_a_client_that_stops_sending_before_it_is_answered(api: Api, site: Site) -> None:
    line = await site.connect()
    await line.send(posted(b"100"))
    line.writer.write_eof()
    assert await line.ended()
    assert api.engine.submitted == []


async def test_a_connection_is_used_again(site: Site) -> None:
    line = await site.connect()
    for _ in range(3):
        await line.send(GET + b"\r\n")
        checked(await line.answer(), 200)
        await line.send(request("GET", "/nothing"))
        checked(await line.answer(), 404)


async def test_late_heads_are_cut(api: Api) -> None:
    async with listening(api.app, Limits(receive_s=0.1)) as site:
        silent, partial, used = [await site.connect() for _ in range(3)]
        await partial.send(GET)
        await used.send(GET + b"\r\n" + GET[:5])
        checked(await used.answer(), 200)
        assert await silent.ended()
        checked(await partial.answer(), 408)
        assert await partial.ended()
        checked(await used.answer(), 408)
        assert await used.ended()
        trickling = await site.connect()
        with pytest.raises(ConnectionError):
            await trickle(trickling, GET)


async def trickle(line: Line, data: bytes) -> None:
    """A byte now and then, for ever."""
    for byte in data * 1000:
        line.writer.write(bytes([byte]))
        await line.writer.drain()
        await asyncio.sleep(0.005)


async def test_an_idle_connection_is_not_late(api: Api) -> None:
    async with listening(api.app, Limits(receive_s=0.05)) as site:
        line = await site.connect()
        await line.send(GET + b"\r\n")
        checked(await line.answer(), 200)
        await asyncio.sleep(0.15)
        await line.send(GET + b"\r\n")
        checked(await line.answer(), 200)


async def test_an_answer_that_takes_long_is_not_late(api: Api) -> None:
    async with listening(api.app, Limits(receive_s=0.05)) as site:
        api.engine.gate.clear()
        asking = asyncio.create_task(site.ask(request("POST", "/generate", ASK)))
        await api.engine.arrived.wait()
        await asyncio.sleep(0.15)
        api.engine.gate.set()
        checked(await asking, 200)


SLOW_ROUTES = [
    ("POST", "/generate", "application/json"),
    ("POST", "/generate/batch", "application/json"),
    ("POST", "/prefixes", "application/json"),
    ("POST", "/prefixes", "multipart/form-data; boundary=x"),
    ("PUT", "/prefixes/e2e", "application/octet-stream"),
    ("POST", "/prefixes/e2e/activate", "application/json"),
    ("POST", "/prefixes/e2e/pin", "application/json"),
    ("POST", "/score", "application/json"),
    ("POST", "/v1/completions", "application/json"),
    ("POST", "/v1/chat/completions", "application/json"),
]


async def test_bodies_that_trickle_are_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "GRACE_S", 0.1)
    monkeypatch.setattr(body, "MIN_BYTES_PER_S", 1 << 40)
    await api.put("e2e")
    async with listening(api.app, Limits(receive_s=0.1)) as site:
        for method, path, kind in SLOW_ROUTES:
            line = await site.connect()
            await line.send(
                request(method, path, headers=[("Content-Type", kind), ("Content-Length", "5000")])
            )
            with pytest.raises(ConnectionError):
                await trickle(line, b"--x\r\n")
    assert api.lifecycle.accepted == 0


async def test_a_body_that_nobody_reads_ends_with_the_connection(api: Api) -> None:
    async with listening(api.app, Limits(receive_s=0.1)) as site:
        line = await site.connect()
        await line.send(GET + b"Content-Length: 5000\r\n\r\n")
        checked(await line.answer(), 200)
        with pytest.raises(ConnectionError):
            await trickle(line, b"x")


async def test_a_reader_that_does_not_read_is_dropped(api: Api) -> None:
    await api.put("large", native(50))
    async with listening(api.app, Limits(send_s=0.2)) as site:
        line = await site.connect()
        line.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await line.send(request("GET", "/prefixes/large/versions/1/file") * 2000)
        gone = asyncio.get_running_loop().time() + PATIENCE_S
        while api.lifecycle.accepted or not line.writer.transport.is_closing():
            assert asyncio.get_running_loop().time() < gone
            await asyncio.sleep(0.01)
            line.writer.write(b"x")


ALLOWED = """
import resource
from prefixmux_server.api.http.server import allow_connections
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(allow_connections(1024), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "told"),
    [(300, 4000, "1024 1344"), (300, 400, "80 400"), (2000, 2000, "1024 2000")],
)
def test_connections_need_files(soft: int, hard: int, told: str) -> None:
    code = ALLOWED.format(soft=soft, hard=hard)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == told


async def test_connections_past_the_limit_are_told(api: Api) -> None:
    async with listening(api.app, Limits(connections=2)) as site:
        held = [await site.connect() for _ in range(2)]
        for line in held:
            await line.send(GET)
        refused = await site.ask(request("GET", "/model"))
        checked(refused, 429)
        assert refused is not None and refused.closed
        assert (refused.error["code"], refused.headers["retry-after"]) == ("overloaded", "1")
        assert site.refused == [429]
        assert await site.healthy()
        await held[0].send(b"\r\n")
        checked(await held[0].answer(), 200)
        answer = await site.ask(request("GET", "/model"))
        checked(answer, 200)
        assert await held[0].ended()
