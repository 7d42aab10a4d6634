"""`/score`: how likely given targets are behind an input, for choosing among them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field

from prefixmux_server.api.http import written
from prefixmux_server.api.http.body import StrictRoute
from prefixmux_server.api.http.documented import errors
from prefixmux_server.api.http.presence import while_connected
from prefixmux_server.api.http.tenancy import Generator
from prefixmux_server.api.http.values import Strict, TaskId, VersionNumber
from prefixmux_server.api.schemas import Parts, Tokens, token_input
from prefixmux_server.api.services import AppServices
from prefixmux_server.service.generation.request import GenerationRequest
from prefixmux_server.service.generation.score import ScoreAnswer

MAX_TARGETS = 64

router = APIRouter(route_class=StrictRoute, tags=["generate"])


class ScoreBody(Strict):
    """`input`, `decoder_input` and the names of prefixes as for `/generate`. Of an encoder-decoder
    model a target's text is scored with its end."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"task_id": "sentiment", "input": "What a film!", "targets": [" good", " bad"]}
            ]
        }
    )

    task_id: TaskId | None = None
    version: VersionNumber | None = None
    compose: Parts | None = None
    input: Tokens
    decoder_input: Tokens | None = None
    targets: Annotated[list[Tokens], Field(min_length=1, max_length=MAX_TARGETS)]
    timeout_s: Annotated[float, Field(gt=0, le=3600)] | None = None

    def to_service(self, request_id: str) -> GenerationRequest:
        given = self.decoder_input
        return GenerationRequest(
            input=token_input(self.input),
            task_id=self.task_id,
            version=self.version,
            compose=tuple(part.to_service() for part in self.compose or ()),
            decoder_input=None if given is None else token_input(given),
            parameters={} if self.timeout_s is None else {"timeout_s": self.timeout_s},
            request_id=request_id,
        )


@router.post(
    "/score",
    response_model=ScoreAnswer,
    responses=errors(400, 403, 404, 413, 415, 422, 429, 500, 503, 504),
)
async def score(
    request: Request, body: ScoreBody, tenant: Generator, services: AppServices
) -> ScoreAnswer | Response:
    """Every target is a row of its own in the batch, behind the same prefix and input."""
    targets = [token_input(target) for target in body.targets]
    asked = body.to_service(request.state.request_id)
    work = services.score.score(tenant, asked, targets)
    answer = await while_connected(request, services.lifecycle, work)
    return await written.response(answer) if answer.is_large else answer
