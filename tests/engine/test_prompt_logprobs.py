"""Log-probabilities of prompts: all real tokens but the first, in chunks of any size."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from engine.told import check_told, prompt_logits
from engine.twin import Twin, check_answers, check_unused
from support.checks import error_code
from support.engines import Answers, answer
from support.faults import NaNFor, Passes, RaisesFor
from support.tiny import Tiny, ask
from transformers import DynamicCache

from prefixmux_server.engine.messages import OutputEnd, Submit, TokenLogprobs
from prefixmux_server.engine.params import BeamParams
from prefixmux_server.memory.select import LayoutName

CAUSAL: tuple[tuple[str, ...], ...] = (
    (),
    ("five",),
    ("unshifted", "text"),
    ("embedded",),
    ("text", "infix"),
    ("infix-embedded",),
    ("five", "infix-embedded"),
)
SEQ2SEQ: tuple[tuple[str, ...], ...] = ((), ("three-site",), ("embedded", "cross"), ("five",))


@pytest.fixture(params=["causal", "seq2seq"])
def twin(request: pytest.FixtureRequest) -> Twin:
    found: Twin = request.getfixturevalue(request.param)
    return found


def asking(twin: Twin, *, new: int = 0, top: int = 2) -> list[Submit]:
    """Behind each kind of prefix; what is asked about is x, what comes after it, or what an
    encoder-decoder model's decoder began with."""
    seq2seq = twin.slow.model.seq2seq
    return [
        twin.ask(
            f"a{n}",
            *chain,
            tokens=4 + 3 * n,
            more=(1 + 2 * n) if seq2seq else (n % 3 + 1 if "infix" in str(chain) else None),
            new=new,
            prompt_logprobs=top,
        )
        for n, chain in enumerate(SEQ2SEQ if seq2seq else CAUSAL)
    ]


def check_prompts(twin: Twin, answers: Answers, requests: Sequence[Submit]) -> None:
    for request in requests:
        tokens, logits = prompt_logits(twin, request)
        top = request.sampling.prompt_logprobs
        assert top is not None
        assert answers.finished[request.id].error is None, request.id
        check_told(answers.prompts.get(request.id, []), tokens, logits, top)


def values(told: Sequence[TokenLogprobs]) -> list[float]:
    return [logprob for one in told for logprob in (one.logprob, *(t.logprob for t in one.top))]


class Wide(Passes):
    """Counts the rows of logits of each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def after_forward(self, ids: Sequence[str], logits: torch.Tensor) -> torch.Tensor:
        assert len(ids) == len(logits)
        self.rows.append(len(ids))
        return logits


@pytest.mark.parametrize("top", [0, 1, 20])
def test_alone(twin: Twin, layout: LayoutName, top: int) -> None:
    parts = twin.engine(layout, capacity=1024)
    for request in asking(twin, top=top):
        answers = answer(parts.engine, [request])
        check_prompts(twin, answers, [request])
        finished = answers.finished[request.id]
        assert finished.outputs == (OutputEnd(0, "length"),)
        assert finished.prefixes == request.prefixes
        assert finished.timing.ttft_s is None
        assert not answers.spoken
        check_unused(parts)


@pytest.mark.parametrize("new", [0, 3])
@pytest.mark.parametrize(("tokens", "told"), [(2048, None), (2048, 3), (7, None), (5, 1), (3, 2)])
def test_in_mixed_batches_and_chunks(
    twin: Twin, layout: LayoutName, new: int, tokens: int, told: int | None
) -> None:
    """Beside rows that decode and that ask for nothing; what is asked for costs them nothing."""
    wide = Wide()
    parts = twin.engine(layout, tokens=tokens, max_told=told, failpoints=wide)
    asked = asking(twin, new=new)
    plain = [twin.ask(f"p{n}", "five", tokens=2 + 5 * n, new=9) for n in range(3)]
    search = twin.ask("search", tokens=3, new=3, beams=BeamParams(2, num_return=2))
    answers = answer(parts.engine, [plain[0], *asked[::2], search, *plain[1:], *asked[1::2]])
    check_prompts(twin, answers, asked)
    check_answers(twin, answers, [*plain, search, *(asked if new else [])])
    assert told is None or max(wide.rows) <= told + len(asked) + 5
    check_unused(parts)


def test_with_several_outputs(twin: Twin, layout: LayoutName) -> None:
    """The prompt is told once, and before all of them; with nothing to say they all end."""
    parts = twin.engine(layout, tokens=6)
    more = 6 if twin.slow.model.seq2seq else None
    requests = [
        twin.ask(
            f"n{new}",
            "five",
            tokens=9,
            more=more,
            new=new,
            n=3,
            temperature=1.0,
            logprobs=1,
            prompt_logprobs=1,
        )
        for new in (0, 4)
    ]
    answers = answer(parts.engine, requests)
    check_prompts(twin, answers, requests)
    check_answers(twin, answers, requests[1:])
    assert answers.finished["n0"].outputs == tuple(OutputEnd(n, "length") for n in range(3))
    check_unused(parts)


def test_before_a_beam_search(twin: Twin, layout: LayoutName) -> None:
    more = 4 if twin.slow.model.seq2seq else None
    request = twin.ask(
        "b", "five", more=more, new=3, prompt_logprobs=2, beams=BeamParams(2, num_return=2)
    )
    answers = answer(twin.engine(layout).engine, [request])
    check_prompts(twin, answers, [request])
    check_answers(twin, answers, [request])


@pytest.mark.parametrize("prefix", [None, "a"])
def test_equal_to_transformers(tiny: Tiny, layout: LayoutName, prefix: str | None) -> None:
    """Its own forward pass over the whole prompt at once, behind a cache that is the prefix."""
    parts = tiny.engine(layout, source=tiny.source(a=10), tokens=16)
    request = ask("one", *([prefix] if prefix else []), tokens=70, new=3, prompt_logprobs=5)
    answers = answer(parts.engine, [request])
    cache, start = DynamicCache(), 0
    if prefix:
        kv = next(iter(parts.source.prefixes.values())).sites["decoder"]
        start = kv.shape[2]
        for layer, (key, value) in enumerate(kv):
            cache.update(key.transpose(0, 1)[None], value.transpose(0, 1)[None], layer)
    with torch.inference_mode():
        output = tiny.reference(
            input_ids=torch.tensor([request.input_ids]),
            position_ids=torch.arange(start, start + 70)[None],
            past_key_values=cache,
            use_cache=True,
        )
    check_told(answers.prompts["one"], request.input_ids[1:], output.logits[0, :-1], 5)
    assert answers.tokens["one"] == tiny.expected(parts.source, request)


def test_the_same_in_any_company(tiny: Tiny, layout: LayoutName) -> None:
    parts = tiny.engine(layout, source=tiny.source(a=10))
    requests = [
        ask(f"r{n}", *["a"][: n % 2], tokens=20 + n, new=4, logprobs=3, prompt_logprobs=3)
        for n in range(6)
    ]
    alone = [answer(parts.engine, [request]) for request in requests]
    together = answer(parts.engine, requests)
    for request, one in zip(requests, alone, strict=True):
        for found, wanted in (
            (together.prompts[request.id], one.prompts[request.id]),
            (together.logprobs[request.id, 0], one.logprobs[request.id, 0]),
        ):
            assert [told.token_id for told in found] == [told.token_id for told in wanted]
            assert values(found) == pytest.approx(values(wanted), abs=1e-5)


class TestEdges:
    def test_of_one_token_there_are_none(self, twin: Twin, layout: LayoutName) -> None:
        parts = twin.engine(layout)
        requests = [
            twin.ask(
                f"one{new}",
                tokens=1,
                more=1 if twin.slow.model.seq2seq else 0,
                new=new,
                prompt_logprobs=3,
            )
            for new in (0, 2)
        ]
        answers = answer(parts.engine, requests)
        assert not answers.prompts
        assert answers.finished["one0"].outputs == (OutputEnd(0, "length"),)
        check_answers(twin, answers, requests[1:])
        check_unused(parts)

    def test_what_can_be_said_can_be_asked_about(self, twin: Twin, layout: LayoutName) -> None:
        """The last token has no position of its own, as if it had just been sampled."""
        context = twin.loaded.context
        assert context is not None
        seq2seq = twin.slow.model.seq2seq
        parts = twin.engine(layout)
        longest = context - 5 + 1
        for tokens, fits in ((longest, True), (longest + 1, False)):
            request = twin.ask(
                "one",
                "five",
                tokens=3 if seq2seq else tokens,
                more=tokens if seq2seq else None,
                new=0,
                prompt_logprobs=0,
            )
            answers = answer(parts.engine, [request])
            if fits:
                assert len(answers.prompts["one"]) == tokens - 1
                check_unused(parts)
            else:
                assert error_code(answers, "one") == "prompt_too_long"

    def test_nothing_asked_for_is_refused(self, twin: Twin, layout: LayoutName) -> None:
        parts = twin.engine(layout)
        requests = [
            twin.ask("nothing", new=0),
            twin.ask("logprobs", new=0, logprobs=3),
            twin.ask("beams", new=0, prompt_logprobs=3, beams=BeamParams(2)),
        ]
        answers = answer(parts.engine, requests)
        assert {error_code(answers, r.id) for r in requests} == {"invalid_request"}
        check_unused(parts)

    @pytest.mark.parametrize("tokens", [2048, 4])
    def test_a_prompt_that_is_not_finite(
        self, causal: Twin, layout: LayoutName, tokens: int
    ) -> None:
        """At any of its tokens, not only at the last one."""
        faults = NaNFor("ill", step=1 if tokens == 4 else 0)
        parts = causal.engine(layout, tokens=tokens, failpoints=faults)
        ill = causal.ask("ill", "five", tokens=11, prompt_logprobs=1)
        other = causal.ask("other", tokens=2)
        answers = answer(parts.engine, [other, ill])
        assert error_code(answers, "ill") == "non_finite_output"
        assert "ill" not in answers.tokens
        check_answers(causal, answers, [other])
        check_unused(parts)

    @pytest.mark.parametrize("healthy", [0, 1, 2])
    def test_a_chunk_that_is_run_again_is_told_once(
        self, twin: Twin, layout: LayoutName, healthy: int
    ) -> None:
        faults = RaisesFor({"a0", "a1"}, healthy=healthy, times=1)
        parts = twin.engine(layout, tokens=6, failpoints=faults)
        requests = [twin.ask("beside", tokens=2, new=20), *asking(twin, new=2)]
        answers = answer(parts.engine, requests)
        check_prompts(twin, answers, requests[1:])
        check_answers(twin, answers, requests)

    @pytest.mark.parametrize("steps", [0, 1, 2, 3])
    def test_leaves_at_any_time(self, causal: Twin, layout: LayoutName, steps: int) -> None:
        parts, answers = causal.engine(layout, tokens=8), Answers()
        gone = causal.ask("gone", "five", tokens=30, new=0, n=2, prompt_logprobs=1)
        other = causal.ask("other", "five", tokens=12)
        for request in (gone, other):
            parts.engine.submit(request)
        for _ in range(steps):
            answers.step(parts.engine)
        parts.engine.abort("gone", 1)
        parts.engine.abort("gone", 0)
        answers.run(parts.engine)
        assert set(answers.finished) == {"other"}
        check_answers(causal, answers, [other])
        check_unused(parts)
