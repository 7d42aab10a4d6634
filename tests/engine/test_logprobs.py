"""Log-probabilities of sampled tokens: of raw logits, whatever shaped the choice."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.told import check_told
from engine.twin import Twin, check_answers, check_unused
from support.engines import answer, make_engine
from support.faults import BansAllFor
from support.models import load_folder
from support.tiny import ask

from prefixmux_server.engine.messages import LEAST_LOGPROB, Likely, Submit
from prefixmux_server.engine.sampling.logprobs import token_logprobs
from prefixmux_server.memory.select import LayoutName

WORDS = 50
LOGITS = torch.randn(6, WORDS, generator=torch.Generator().manual_seed(3)) * 5


@pytest.fixture(params=["causal", "seq2seq"])
def twin(request: pytest.FixtureRequest) -> Twin:
    found: Twin = request.getfixturevalue(request.param)
    return found


def logits_of(twin: Twin, request: Submit, said: list[int]) -> torch.Tensor:
    return torch.stack([twin.logits(request, said[:n]) for n in range(len(said))])


class TestOfLogits:
    @pytest.mark.parametrize("top", [0, 1, 5, 20, WORDS, 99])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_are_log_softmax(self, top: int, dtype: torch.dtype) -> None:
        logits, tokens = LOGITS.to(dtype), [3, 0, 49, 7, 7, 12]
        told = token_logprobs(logits, tokens, top)
        assert told is not None
        check_told(told, tokens, logits.float(), top)

    def test_the_first_is_what_is_said_greedily(self) -> None:
        """However many are as likely, and wherever they stand."""
        generator = torch.Generator().manual_seed(0)
        coarse = torch.randint(0, 3, (400, 30), generator=generator).bfloat16()
        for top in (1, 2, 20):
            told = token_logprobs(coarse, [0] * len(coarse), top)
            assert told is not None
            assert [one.top[0].token_id for one in told] == coarse.max(dim=-1).indices.tolist()
            check_told(told, [0] * len(coarse), coarse.float(), top)

    def test_what_cannot_be(self) -> None:
        row = torch.full((1, 4), -math.inf)
        row[0, 2] = 1.0
        (told,) = token_logprobs(row, [0], 2) or ()
        assert told.logprob == LEAST_LOGPROB
        assert told.top[0] == Likely(2, 0.0)
        assert told.top[1].logprob == LEAST_LOGPROB
        (far,) = token_logprobs(torch.tensor([[0.0, -1e30]]), [1], 2) or ()
        assert far.logprob == far.top[1].logprob == LEAST_LOGPROB

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_of_logits_that_are_not_finite_there_are_none(self, value: float) -> None:
        broken = LOGITS.clone()
        broken[4, 9] = value
        assert token_logprobs(broken, [1] * 6, 3) is None
        assert token_logprobs(broken[:4], [1] * 4, 3) is not None
        assert token_logprobs(torch.full((1, 5), -math.inf), [1], 3) is None

    def test_of_a_token_that_the_model_cannot_say(self) -> None:
        """A table of embeddings may have more rows than the model has outputs."""
        (told,) = token_logprobs(LOGITS[:1], [WORDS], 1) or ()
        assert (told.token_id, told.logprob) == (WORDS, LEAST_LOGPROB)

    def test_of_more_than_is_looked_at_at_once(self) -> None:
        wide = torch.randn(9, 1 << 21, generator=torch.Generator().manual_seed(1))
        tokens = [n * 1000 for n in range(9)]
        told = token_logprobs(wide, tokens, 2)
        assert told is not None
        check_told(told, tokens, wide, 2)


class TestOfARequest:
    @pytest.mark.parametrize("top", [0, 5, 20])
    def test_alone(self, twin: Twin, layout: LayoutName, top: int) -> None:
        parts = twin.engine(layout)
        request = twin.ask("one", "five", logprobs=top)
        answers = answer(parts.engine, [request])
        check_answers(twin, answers, [request])
        said = answers.tokens["one"]
        told = answers.logprobs["one", 0]
        check_told(told, said, logits_of(twin, request, said), top)
        if top:
            assert [one.top[0].token_id for one in told] == said

    def test_only_those_who_ask(self, twin: Twin, layout: LayoutName) -> None:
        """Each as many as it asked for; what is said stays the same."""
        parts = twin.engine(layout, tokens=16)
        asked: list[int | None] = [None, 0, 3, None, 20, 3]
        requests = [
            twin.ask(f"r{n}", *["five"][: n % 2], tokens=3 + n, logprobs=top)
            for n, top in enumerate(asked)
        ]
        answers = answer(parts.engine, requests)
        check_answers(twin, answers, requests)
        for request, top in zip(requests, asked, strict=True):
            said = answers.tokens[request.id]
            told = answers.logprobs.get((request.id, 0))
            assert (told is None) == (top is None)
            if told is not None and top is not None:
                check_told(told, said, logits_of(twin, request, said), top)
        check_unused(parts)

    @pytest.mark.parametrize(
        "shaped",
        [
            {"temperature": 2.0, "top_k": 3, "seed": 5},
            {"temperature": 0.3, "top_p": 0.5, "min_p": 0.2, "n": 3},
            {"repetition_penalty": 1.8, "presence_penalty": 1.0, "frequency_penalty": 2.0},
            {"no_repeat_ngram_size": 1},
            {"min_new_tokens": 6, "ignore_eos": False},
            {"forced_eos_token_id": 11},
        ],
    )
    def test_nothing_that_shapes_the_choice_shows(
        self, twin: Twin, layout: LayoutName, shaped: dict[str, Any]
    ) -> None:
        parts = twin.engine(layout)
        request = twin.ask("one", "five", logprobs=4, **shaped)
        plain = replace(request, sampling=replace(request.sampling, logprobs=None))
        answers, without = answer(parts.engine, [request]), answer(parts.engine, [plain])
        assert answers.outputs("one") == without.outputs("one")
        for index, said in enumerate(answers.outputs("one")):
            told = answers.logprobs["one", index]
            check_told(told, said, logits_of(twin, request, said), 4)

    def test_a_forced_token_that_the_model_rules_out(self, causal: Twin) -> None:
        parts = causal.engine("rows", failpoints=BansAllFor("one", 1))
        request = causal.ask("one", new=2, logprobs=1, forced_eos_token_id=9)
        told = answer(parts.engine, [request]).logprobs["one", 0][-1]
        assert (told.token_id, told.logprob) == (9, LEAST_LOGPROB)
        assert told.top == (Likely(2, 0.0),)

    def test_in_16_bit_the_greedy_token_leads(self, llama: Path, layout: LayoutName) -> None:
        """Where equal logits are common."""
        parts = make_engine(load_folder(llama, dtype="bfloat16"), layout)
        requests = [ask(f"r{n}", new=30, logprobs=1) for n in range(6)]
        answers = answer(parts.engine, requests)
        for request in requests:
            told = answers.logprobs[request.id, 0]
            assert [one.top[0].token_id for one in told] == answers.tokens[request.id]
            assert all(one.top[0].logprob == one.logprob for one in told)
