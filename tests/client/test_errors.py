"""Every failed answer becomes the class of its status, with the contract's fields."""

from __future__ import annotations

import httpx2
import pytest
from client.scripted import ScriptedServer, refusal

import prefixmux

CLASSES = [
    (400, "invalid_json", prefixmux.BadRequestError),
    (401, "unauthorized", prefixmux.AuthenticationError),
    (403, "forbidden", prefixmux.PermissionDeniedError),
    (404, "task_not_found", prefixmux.NotFoundError),
    (405, "method_not_allowed", prefixmux.MethodNotAllowedError),
    (409, "version_active", prefixmux.ConflictError),
    (412, "precondition_failed", prefixmux.PreconditionFailedError),
    (413, "body_too_large", prefixmux.PayloadTooLargeError),
    (415, "unsafe_format", prefixmux.UnsupportedMediaTypeError),
    (422, "invalid_parameter", prefixmux.UnprocessableEntityError),
    (429, "overloaded", prefixmux.RateLimitError),
    (500, "internal_error", prefixmux.InternalServerError),
    (503, "draining", prefixmux.ServiceUnavailableError),
    (504, "deadline_exceeded", prefixmux.GatewayTimeoutError),
    (507, "storage_full", prefixmux.InsufficientStorageError),
]


@pytest.mark.parametrize(("status", "code", "kind"), CLASSES)
def test_each_status_has_its_class(
    scripted: type[ScriptedServer], status: int, code: str, kind: type[prefixmux.APIStatusError]
) -> None:
    server = scripted(refusal(status, code, param="parameters.top_k", reason="names"))
    with pytest.raises(prefixmux.APIStatusError) as caught:
        server.client().generate("e2e", "x")
    error = caught.value
    assert type(error) is kind
    assert (error.status_code, error.code, error.message) == (status, code, f"about {code}")
    assert (error.param, error.reason, error.request_id) == ("parameters.top_k", "names", "r-1")
    assert all(part in str(error) for part in (code, error.message, "parameters.top_k", "r-1"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, prefixmux.APIStatusError),
        (418, prefixmux.APIStatusError),
        (502, prefixmux.InternalServerError),
    ],
)
@pytest.mark.parametrize("body", [b"<html>Bad Gateway</html>", b"", b'{"error": "x"}', b"[1]"])
def test_a_foreign_error_page_still_has_status_and_request_id(
    scripted: type[ScriptedServer], status: int, kind: type[prefixmux.APIStatusError], body: bytes
) -> None:
    page = httpx2.Response(status, content=body, headers={"x-request-id": "r-9"})
    with pytest.raises(prefixmux.APIStatusError) as caught:
        scripted(page).client().generate("e2e", "x")
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.request_id) == (None, "r-9")


def test_the_header_names_the_request_when_the_body_does_not(
    scripted: type[ScriptedServer],
) -> None:
    answer = refusal(404, "not_found", headers={"x-request-id": "r-9"}, request_id=None)
    with pytest.raises(prefixmux.NotFoundError) as caught:
        scripted(answer).client().model()
    assert caught.value.request_id == "r-9"


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (httpx2.ConnectError("refused"), prefixmux.APIConnectionError),
        (httpx2.RemoteProtocolError("cut"), prefixmux.APIConnectionError),
        (httpx2.DecodingError("damaged"), prefixmux.APIConnectionError),
        (httpx2.ReadTimeout("slow"), prefixmux.APITimeoutError),
        (httpx2.ConnectTimeout("slow"), prefixmux.APITimeoutError),
    ],
)
def test_no_answer_is_a_connection_error(
    scripted: type[ScriptedServer], failure: Exception, kind: type[prefixmux.PrefixmuxError]
) -> None:
    with pytest.raises(prefixmux.PrefixmuxError) as caught:
        scripted(failure).client().generate("e2e", "x")
    assert type(caught.value) is kind
    assert "http://server" in str(caught.value)


@pytest.mark.parametrize(("header", "wait"), [("3600", 3600.0), ("soon", None), (None, None)])
def test_an_error_says_when_to_come_again(
    scripted: type[ScriptedServer], header: str | None, wait: float | None
) -> None:
    headers = {} if header is None else {"retry-after": header}
    server = scripted(refusal(429, "quota_exceeded", headers=headers))
    with pytest.raises(prefixmux.RateLimitError) as caught:
        server.client().generate("e2e", "x")
    assert (caught.value.code, caught.value.retry_after) == ("quota_exceeded", wait)
