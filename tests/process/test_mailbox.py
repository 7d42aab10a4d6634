"""The engine process's end of the pipe: what wakes it, and that all that came is read."""

from __future__ import annotations

import fcntl
import os
import select
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from prefixmux_server.engine.pipes.mailbox import CHUNK, Doorbell, Inbox
from prefixmux_server.engine.pipes.wire import HEADER


@dataclass
class Pipe:
    bell: Doorbell
    inbox: Inbox
    write: int


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    read, write = os.pipe()
    bell = Doorbell()
    pipe = Pipe(bell, Inbox(read, bell), write)
    yield pipe
    bell.close()
    os.close(read)
    os.close(write)


def frame(body: bytes) -> bytes:
    return HEADER.pack(len(body)) + body


def test_the_bell_wakes_from_another_thread_and_once(pipe: Pipe) -> None:
    ringer = threading.Thread(target=pipe.bell.ring)
    ringer.start()
    assert list(pipe.inbox.receive(None)) == []
    ringer.join()
    assert select.select([pipe.bell.fd], [], [], 0)[0] == []


def test_ringing_never_blocks(pipe: Pipe) -> None:
    for _ in range(2 * CHUNK):
        pipe.bell.ring()
    assert list(pipe.inbox.receive(None)) == []


def test_all_that_came_is_read_at_once(pipe: Pipe) -> None:
    bodies = [b"a" * (CHUNK // 2 + 1), b"", b"b" * 3 * CHUNK, b"c"]
    writer = threading.Thread(target=os.write, args=(pipe.write, b"".join(map(frame, bodies))))
    writer.start()
    found: list[bytes] = []
    while len(found) < len(bodies):
        found += pipe.inbox.receive(None)
    writer.join()
    assert found == bodies


def test_one_receipt_empties_the_pipe(pipe: Pipe) -> None:
    fcntl.fcntl(pipe.write, fcntl.F_SETPIPE_SZ, 8 * CHUNK)
    bodies = [bytes([number]) * (CHUNK // 2) for number in range(8)]
    os.write(pipe.write, b"".join(map(frame, bodies)))
    assert list(pipe.inbox.receive(None)) == bodies
    assert list(pipe.inbox.receive(0)) == []


def test_without_a_parent_the_process_exits() -> None:
    read, write = os.pipe()
    os.close(write)
    bell = Doorbell()
    with pytest.raises(SystemExit):
        list(Inbox(read, bell).receive(None))
    bell.close()
    os.close(read)
