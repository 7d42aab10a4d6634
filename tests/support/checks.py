"""What many tests of the engine ask of its answers."""

from __future__ import annotations

from collections.abc import Iterable

from prefixmux_server.engine.messages import Submit
from support.engines import Answers, EngineParts, answer
from support.tiny import Tiny, ask


def error_code(answers: Answers, request_id: str) -> str:
    """Of a request that failed, and said so in words."""
    finished = answers.finished[request_id]
    assert finished.reason is None
    assert finished.error is not None
    assert finished.error.message
    return finished.error.code


def check_texts(
    tiny: Tiny, parts: EngineParts, answers: Answers, requests: Iterable[Submit]
) -> None:
    """Each request has all the tokens that the model gives it alone."""
    for request in requests:
        assert answers.tokens[request.id] == tiny.expected(parts.source, request), request.id
        assert answers.finished[request.id].reason == "length"


def check_empty(tiny: Tiny, parts: EngineParts) -> None:
    """Nothing is held: a request as large as all memory still runs."""
    assert not parts.engine.has_work
    assert parts.engine.step() is None
    parts.engine.check_integrity()
    whole = ask("whole", tokens=parts.layout.capacity_tokens - 4, new=5)
    check_texts(tiny, parts, answer(parts.engine, [whole]), [whole])


def started(answers: Answers) -> list[str]:
    """Requests in the order of their first step."""
    return list(dict.fromkeys(row.id for record in answers.records for row in record.rows))
