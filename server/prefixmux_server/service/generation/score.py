"""How likely given targets are: each a row behind the same prefix and input.

A target stands where a generated text would: behind the input, behind the infix, or in the
decoder. Every row is a request of its own, and is charged as one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from prefixmux_server.errors import InternalError, PrefixmuxServerError
from prefixmux_server.service.generation.admission import monotonic
from prefixmux_server.service.generation.answer import (
    LARGE,
    Answer,
    AnswerTiming,
    Usage,
    UsedPrefix,
)
from prefixmux_server.service.generation.generation import GenerationService
from prefixmux_server.service.generation.preparation import Known, Preparation
from prefixmux_server.service.generation.prompt import Prompt, begins_decoder, check_ids, needed
from prefixmux_server.service.generation.request import GenerationRequest, TokenInput
from prefixmux_server.service.generation.together import all_or_none
from prefixmux_server.service.tenants.tenant import Tenant
from prefixmux_store.types import JSON

# Nothing is generated; the most likely token tells what greedy decoding would have said. What a
# version stores for generating is put aside.
SCORING: Mapping[str, JSON] = {
    "max_new_tokens": 0,
    "min_new_tokens": 0,
    "prompt_logprobs": 1,
    "logprobs": None,
    "n": 1,
    "num_beams": 1,
    "num_return": 1,
    "stop": [],
}


@dataclass(frozen=True)
class TokenScore:
    token_id: int
    token: str | None
    logprob: float


@dataclass(frozen=True)
class TargetScore:
    """`logprob` is the sum over the target's tokens, given all before them; `is_greedy`: each was
    the most likely one."""

    index: int
    text: str | None
    token_ids: list[int]
    logprob: float
    logprobs: list[TokenScore]
    is_greedy: bool


@dataclass(frozen=True)
class ScoreAnswer:
    """`usage` is summed over the rows, `timing` is that of the slowest."""

    id: str
    tenant: str
    task_id: str | None
    version: int | None
    prefix_digest: str | None
    prefixes: list[UsedPrefix]
    model: str
    scores: list[TargetScore]
    usage: Usage
    timing: AnswerTiming

    @property
    def is_large(self) -> bool:
        return sum(len(score.token_ids) for score in self.scores) > LARGE


@dataclass(frozen=True)
class Row:
    """One target: what is to be run, and the tokens at its end that are the target's."""

    request: GenerationRequest
    token_ids: tuple[int, ...]
    text: str | None


class ScoreService:
    """All targets of a request or none: the first that fails ends the others."""

    def __init__(self, preparation: Preparation, generation: GenerationService) -> None:
        self._preparation = preparation
        self._generation = generation

    async def score(
        self, tenant: Tenant, request: GenerationRequest, targets: Sequence[TokenInput]
    ) -> ScoreAnswer:
        """`request` as for a generation, but that of its parameters only `timeout_s` counts.

        Raises what a generation raises; `targets.<n>` is the `param` of what is wrong with one.
        """
        arrived = monotonic()
        rows = await self._preparation.of(tenant, request, lambda known: _rows(known, targets))
        told = await all_or_none(self._run(tenant, row, index) for index, row in enumerate(rows))
        return _answer(told, monotonic() - arrived)

    async def _run(self, tenant: Tenant, row: Row, index: int) -> tuple[Answer, TargetScore]:
        """What the answer says of the prompt is dropped: it has it for every target again."""
        try:
            answer = await self._generation.generate(tenant, row.request)
            return replace(answer, prompt_logprobs=None), _score(index, row, answer)
        except PrefixmuxServerError as error:
            if error.param == "decoder_input":
                error.param = f"targets.{index}"
            elif error.param == "parameters.prompt_logprobs":
                error.param = "targets"
            raise


def _rows(known: Known, targets: Sequence[TokenInput]) -> list[Row]:
    prompt = known.prompt()
    timeout_s = known.request.timeout_s
    parameters = {**SCORING, **({} if timeout_s is None else {"timeout_s": timeout_s})}
    request = replace(known.request, parameters=parameters, rows=len(targets))
    rows = []
    for index, target in enumerate(targets):
        token_ids = _token_ids(known, target, f"targets.{index}")
        text = target if isinstance(target, str) else _text(known, token_ids)
        rows.append(Row(_behind(known, request, prompt, token_ids), token_ids, text))
    return rows


def _token_ids(known: Known, target: TokenInput, param: str) -> tuple[int, ...]:
    """Of a text with the special tokens that the decoder was trained to say around it."""
    if not isinstance(target, str):
        token_ids = target
    elif known.ready.model.family == "causal":
        token_ids = needed(known.codec, param).plain(target)
    elif known.request.decoder_input is None:
        token_ids = needed(known.codec, param).encode(target)
    else:
        token_ids = needed(known.codec, param).following(target)
    check_ids(token_ids, known.ready.model, param)
    return token_ids


def _behind(
    known: Known, request: GenerationRequest, prompt: Prompt, token_ids: tuple[int, ...]
) -> GenerationRequest:
    """The request whose last tokens are the target's; what a decoder begins with by itself is
    left to it."""
    model = known.ready.model
    if model.family == "causal" and not known.target.has_infix:
        return replace(request, input=prompt.input_ids + token_ids)
    began = len(begins_decoder(model)) if model.family == "seq2seq" else 0
    decoder_input = prompt.decoder_ids[began:] + token_ids
    return replace(request, input=prompt.input_ids, decoder_input=decoder_input)


def _text(known: Known, token_ids: tuple[int, ...]) -> str | None:
    return None if known.codec is None else known.codec.decode(token_ids)


def _answer(told: Sequence[tuple[Answer, TargetScore]], total_s: float) -> ScoreAnswer:
    answers = [answer for answer, _ in told]
    first = answers[0]
    return ScoreAnswer(
        id=first.id,
        tenant=first.tenant,
        task_id=first.task_id,
        version=first.version,
        prefix_digest=first.prefix_digest,
        prefixes=first.prefixes,
        model=first.model,
        scores=[score for _, score in told],
        usage=Usage(
            prompt_tokens=sum(answer.usage.prompt_tokens for answer in answers),
            prefix_tokens=sum(answer.usage.prefix_tokens for answer in answers),
            generated_tokens=0,
        ),
        timing=AnswerTiming(
            queue_s=max(answer.timing.queue_s for answer in answers),
            prefix_load_s=max(answer.timing.prefix_load_s for answer in answers),
            ttft_s=max(answer.timing.ttft_s for answer in answers),
            total_s=total_s,
        ),
    )


def _score(index: int, row: Row, answer: Answer) -> TargetScore:
    """Raises `InternalError` unless the engine said what it was asked about these tokens."""
    told = answer.prompt_logprobs
    own = [] if told is None else list(told[-len(row.token_ids) :])
    if [entry["token_id"] for entry in own] != list(row.token_ids):
        raise InternalError("The engine scored other tokens than asked for; they were dropped.")
    return TargetScore(
        index=index,
        text=row.text,
        token_ids=list(row.token_ids),
        logprob=math.fsum(entry["logprob"] for entry in own),
        logprobs=[TokenScore(e["token_id"], e["token"], e["logprob"]) for e in own],
        is_greedy=all(entry["top"][0]["token_id"] == entry["token_id"] for entry in own),
    )
