"""What every answer is read into: immutable, and open to fields of newer servers."""

from __future__ import annotations

from functools import cached_property
from typing import Self

from pydantic import BaseModel, ConfigDict

from prefixmux.errors import APIStatusError
from prefixmux.statuses import class_of


class Wire(BaseModel):
    """Base of everything read. `extra="allow"`: a newer server does not break an older client."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def named(self, request_id: str | None) -> Self:
        """This, told the request id of the answer that it was read from."""
        return self


class Answer(Wire):
    """What a call answers, or a part of it."""

    @cached_property
    def request_id(self) -> str | None:
        """The `x-request-id` of the answer that held this: its name in the server's logs."""
        return None

    def named(self, request_id: str | None) -> Self:
        """This, with the request id of its answer, which counts nothing for equality."""
        self.__dict__["request_id"] = request_id
        return self


class ErrorBody(Wire):
    """The `error` object of an error answer."""

    code: str
    message: str
    param: str | None = None
    request_id: str | None = None
    reason: str | None = None

    def to_exception(self, status_code: int) -> APIStatusError:
        return class_of(status_code)(
            self.message,
            status_code=status_code,
            code=self.code,
            param=self.param,
            reason=self.reason,
            request_id=self.request_id,
        )
