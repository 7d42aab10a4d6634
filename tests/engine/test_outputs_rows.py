"""Several outputs of one prompt: each its own draw, whoever is beside it, and its own end."""

from __future__ import annotations

from typing import Any

import pytest
from engine.twin import Twin, check_answers, check_unused
from support.checks import error_code
from support.engines import Answers, answer
from support.faults import BansAllFor, NaNFor, RaisesFor

from prefixmux_server.engine.messages import Finished, OutputEnd, Submit
from prefixmux_server.engine.params import BeamParams
from prefixmux_server.memory.select import LayoutName

CAUSAL: tuple[tuple[str, ...], ...] = ((), ("five",), ("text", "infix"), ("infix-embedded",))
SEQ2SEQ: tuple[tuple[str, ...], ...] = ((), ("three-site",), ("embedded", "cross"), ("five",))

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"temperature": 1.0, "n": 2},
    "searched": {"beams": BeamParams(2, num_return=2)},
}


@pytest.fixture(params=["causal", "seq2seq"])
def twin(request: pytest.FixtureRequest) -> Twin:
    found: Twin = request.getfixturevalue(request.param)
    return found


def several(
    twin: Twin, name: str, *prefixes: str, n: int = 3, new: int = 5, **options: Any
) -> Submit:
    options = {"temperature": 1.5, "seed": len(name) + n, "tokens": 5, **options}
    return twin.ask(name, *prefixes, n=n, new=new, **options)


def crowd(twin: Twin) -> list[Submit]:
    """Of each kind of prefix; plain rows of other lengths and a search between them."""
    chains = SEQ2SEQ if twin.slow.model.seq2seq else CAUSAL
    requests = [twin.ask("search", *chains[1], tokens=4, new=4, beams=BeamParams(3, num_return=3))]
    for number, chain in enumerate(chains):
        requests.append(several(twin, f"n{number}", *chain, n=2 + number % 3, top_k=40))
        requests.append(twin.ask(f"p{number}", *chain, tokens=2 + 7 * number, new=3 + number))
    return requests


def ends(finished: Finished) -> list[int]:
    return [end.index for end in finished.outputs]


def test_alone(twin: Twin, layout: LayoutName) -> None:
    parts = twin.engine(layout, capacity=512)
    for request in crowd(twin):
        answers = answer(parts.engine, [request])
        check_answers(twin, answers, [request])
        assert ends(answers.finished[request.id]) == list(range(request.sampling.n))
        check_unused(parts)


@pytest.mark.parametrize(("rows", "tokens"), [(64, 2048), (64, 9), (4, 4), (7, 11)])
def test_together(twin: Twin, layout: LayoutName, rows: int, tokens: int) -> None:
    """A request's rows run together or not at all in a step, however little that may run."""
    parts = twin.engine(layout, rows=rows, tokens=tokens, capacity=2048)
    requests = crowd(twin)
    answers = answer(parts.engine, requests)
    check_answers(twin, answers, requests)
    for record in answers.records:
        assert sum(row.tokens for row in record.rows) <= tokens
    check_unused(parts)


def test_the_prompt_runs_once(twin: Twin, layout: LayoutName) -> None:
    parts = twin.engine(layout, tokens=6)
    request = several(twin, "n", "five", n=5, tokens=17, new=4)
    answers = answer(parts.engine, [request])
    own = request.decoder_ids if twin.slow.model.seq2seq else request.input_ids
    rows = [row for record in answers.records for row in record.rows]
    assert sum(row.tokens for row in rows if row.phase == "prefill") == len(own)
    assert sum(row.encoder_tokens for row in rows) in (0, 17)
    assert [row.tokens for row in rows if row.phase == "decode"] == [5, 5, 5]


def test_fewer_outputs_are_the_first_of_more(twin: Twin, layout: LayoutName) -> None:
    parts = twin.engine(layout)
    said = []
    for n in (1, 2, 5):
        request = several(twin, "n", "five", n=n, seed=7, new=9)
        said.append(answer(parts.engine, [request]).outputs("n"))
    assert said[0] == said[2][:1]
    assert said[1] == said[2][:2]
    assert len({tuple(output) for output in said[2]}) == 5


def test_greedy_outputs_are_all_the_same(causal: Twin, layout: LayoutName) -> None:
    request = causal.ask("n", "five", n=3)
    answers = answer(causal.engine(layout).engine, [request])
    assert answers.outputs("n") == [causal.expected(request)] * 3


def test_each_ends_by_itself(twin: Twin, layout: LayoutName) -> None:
    """Its row runs no more, and whoever waits has it, while the others go on."""
    free = several(twin, "n", "five", n=4, new=12)
    said = twin.outputs(free)
    stops = (said[0][7], said[1][2], said[2][0])
    request = several(twin, "n", "five", n=4, new=12, stop_token_ids=stops, seed=5)
    wanted = twin.outputs(request)
    lengths = sorted(map(len, wanted))
    assert lengths[0] < lengths[-1], "the test would see nothing"
    parts, answers = twin.engine(layout, rows=4), Answers()
    waiting = twin.ask("waiting", new=1)
    for submitted in (request, waiting):
        parts.engine.submit(submitted)
    answers.run(parts.engine)
    check_answers(twin, answers, [request, waiting])
    finished = answers.finished["n"]
    assert finished.outputs == tuple(
        OutputEnd(index, "stop", said[-1]) if said[-1] in stops else OutputEnd(index, "length")
        for index, said in enumerate(wanted)
    )
    for step, record in enumerate(answers.records):
        rows = {row.id: row.tokens for row in record.rows}
        if step:
            assert rows.get("n", 0) == sum(len(said) > step for said in wanted)
    # Admitted in the step after the first end, done in that one.
    assert "waiting" in {row.id for row in answers.records[lengths[0]].rows}
    check_unused(parts)


def test_an_output_may_end_with_its_first_token(twin: Twin, layout: LayoutName) -> None:
    """The first row's too, which ran the prompt for the others."""
    free = several(twin, "n", "five", n=3, seed=3)
    first = twin.outputs(free)[0][0]
    request = several(twin, "n", "five", n=3, seed=3, stop_token_ids=(first,))
    assert len(twin.outputs(request)[0]) == 1
    assert max(map(len, twin.outputs(request))) > 1
    parts = twin.engine(layout)
    check_answers(twin, answer(parts.engine, [request]), [request])
    check_unused(parts)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_logits_that_are_not_finite_end_the_request(
    twin: Twin, layout: LayoutName, step: int
) -> None:
    """In one of its rows: an answer that lacks an output would be none."""
    parts = twin.engine(layout, failpoints=NaNFor("ill", step=step))
    others = [several(twin, "left", n=2), twin.ask("right")]
    answers = answer(parts.engine, [others[0], several(twin, "ill", "five"), others[1]])
    assert error_code(answers, "ill") == "non_finite_output"
    assert answers.finished["ill"].outputs == ()
    check_answers(twin, answers, others)
    check_unused(parts)


@pytest.mark.parametrize("healthy", [0, 1, 3])
@pytest.mark.parametrize("times", [1, None])
def test_a_pass_that_raises(
    twin: Twin, layout: LayoutName, healthy: int, times: int | None
) -> None:
    faults = RaisesFor({"ill"}, healthy=healthy, times=times)
    parts = twin.engine(layout, failpoints=faults)
    others = [several(twin, "left", n=2), twin.ask("right", "five")]
    ill = several(twin, "ill", "five")
    answers = answer(parts.engine, [others[0], ill, others[1]])
    if times is None:
        assert error_code(answers, "ill") == "internal_error"
    else:
        check_answers(twin, answers, [ill])
    check_answers(twin, answers, others)
    check_unused(parts)


class TestNothingLeftToSay:
    """Where every token is banned, an output ends with what it has: greedy, drawn, searched."""

    @pytest.mark.parametrize("how", WAYS)
    @pytest.mark.parametrize("healthy", [0, 2])
    def test_ends_as_length(self, causal: Twin, layout: LayoutName, how: str, healthy: int) -> None:
        parts = causal.engine(layout, failpoints=BansAllFor("mute", healthy))
        # What the model leaves is banned by the request.
        mute = causal.ask("mute", new=6, min_new_tokens=6, ignore_eos=False, **WAYS[how])
        other = causal.ask("other")
        answers = answer(parts.engine, [mute, other])
        finished = answers.finished["mute"]
        assert finished.error is None
        assert {end.reason for end in finished.outputs} == {"length"}
        said = [list(beam.token_ids) for beam in finished.beams] or answers.outputs("mute")
        assert [len(tokens) for tokens in said] == [healthy] * len(said)
        assert len(said) == (1 if how == "greedy" or (how, healthy) == ("searched", 0) else 2)
        check_answers(causal, answers, [other])
        check_unused(parts)


class TestRoom:
    @pytest.mark.parametrize("unit", ["rows", "tokens"])
    def test_more_than_a_batch_has_is_refused(
        self, twin: Twin, layout: LayoutName, unit: str
    ) -> None:
        parts = twin.engine(layout, **{unit: 3})
        fits, more = several(twin, "fits", n=3), several(twin, "more", n=4)
        answers = answer(parts.engine, [more, fits])
        assert error_code(answers, "more") == "invalid_request"
        error = answers.finished["more"].error
        assert error is not None and "4 outputs" in error.message
        check_answers(twin, answers, [fits])
        check_unused(parts)

    def test_memory_for_one_at_a_time(self, causal: Twin, layout: LayoutName) -> None:
        """Rows take whole pieces of memory, or share their beginning."""
        capacity = {"rows": 3 * 64, "slots": 5 + 5 + 3 * 4}[layout]
        parts = causal.engine(layout, capacity=capacity)
        requests = [several(causal, f"n{n}", "five", n=3, new=5) for n in range(3)]
        answers = answer(parts.engine, requests)
        check_answers(causal, answers, requests)
        assert all(len(record.rows) == 1 for record in answers.records)
        smaller = causal.engine(layout, capacity=capacity - 1)
        refused = answer(smaller.engine, [requests[0]])
        assert error_code(refused, "n0") == "prompt_too_long"
        error = refused.finished["n0"].error
        assert error is not None and "ask for fewer outputs" in error.message
