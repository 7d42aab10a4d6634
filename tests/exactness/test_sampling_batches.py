"""Sampled answers do not depend on the batch, and answers end where their parameters say."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.canary import Codes, save_canary
from support.engines import Answers, DictSource, EngineParts, answer, make_engine, submit
from support.models import FAMILIES, load_folder, random_prefix, save_tiny
from support.tiny import LAYOUTS, ask

from prefixmux_server.engine.messages import Submit
from prefixmux_server.memory.select import LayoutName
from prefixmux_server.model.load import LoadedModel

BATCHES = 7
LENGTHS = {"a": 1, "b": 17, "c": 17, "d": 120}
EOS = 5
MOST = 4


@pytest.fixture(scope="module", params=["gpt2", "llama", "qwen3"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_folder(save_tiny(FAMILIES[request.param](), tmp_path_factory.mktemp("tiny")))


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> LayoutName:
    name: LayoutName = request.param
    return name


def engine_for(loaded: LoadedModel, layout: LayoutName, **options: Any) -> EngineParts:
    source = DictSource()
    for number, (digest, tokens) in enumerate(LENGTHS.items()):
        source.add(digest, random_prefix(loaded, tokens, number))
    return make_engine(loaded, layout, source=source, **options)


def sampled(number: int) -> Submit:
    """A request of random prompt, prefix and way of sampling; a third for several outputs."""
    rng = random.Random(number)
    return ask(
        f"{number}",
        *rng.choice([(), *((digest,) for digest in LENGTHS)]),
        tokens=rng.randrange(1, 30),
        new=20,
        temperature=rng.choice((0.5, 1.0, 3.0, 10.0)),
        top_k=rng.choice((0, 5, 50)),
        top_p=rng.choice((1.0, 0.9)),
        min_p=rng.choice((0.0, 0.02)),
        repetition_penalty=rng.choice((1.0, 1.3)),
        frequency_penalty=rng.choice((0.0, 0.4)),
        presence_penalty=rng.choice((0.0, -0.3)),
        seed=rng.randrange(2**63),
        n=rng.choice((1, 1, 1, 1, 2, MOST)),
        logprobs=rng.choice((None, None, 0, 3)),
    )


@pytest.fixture(scope="module")
def alone(loaded: LoadedModel) -> dict[str, list[list[int]]]:
    parts = engine_for(loaded, "rows")
    answers = [answer(parts.engine, [sampled(number)]) for number in range(40)]
    return {name: one.outputs(name) for one in answers for name in one.finished}


def test_the_same_alone_and_in_mixed_batches(
    loaded: LoadedModel, layout: LayoutName, alone: dict[str, list[list[int]]]
) -> None:
    for batch in range(BATCHES):
        rng = random.Random(f"{layout} {batch}")
        numbers = rng.sample(range(len(alone)), 12)
        parts = engine_for(
            loaded, layout, rows=rng.randrange(MOST, 13), tokens=rng.choice((5, 16, 2048))
        )
        answers = Answers()
        while numbers or parts.engine.has_work:
            for number in [numbers.pop() for _ in range(min(len(numbers), rng.randrange(4)))]:
                parts.engine.submit(sampled(number))
                if rng.random() < 0.3:
                    parts.engine.submit(ask(f"greedy {number}", "b", new=9))
            answers.step(parts.engine)
        names = [name for name in answers.finished if not name.startswith("greedy")]
        assert len(names) == 12
        for name in names:
            assert answers.outputs(name) == alone[name], name


def test_the_first_of_several_outputs_is_the_only_one_of_one(
    loaded: LoadedModel, layout: LayoutName, alone: dict[str, list[list[int]]]
) -> None:
    """And no two of a hot request's are the same: each has noise of its own."""
    parts = engine_for(loaded, layout)
    requests = [sampled(number) for number in range(len(alone))]
    assert len({request.sampling.n for request in requests}) == 3
    single = [replace(r, sampling=replace(r.sampling, n=1)) for r in requests]
    answers = answer(parts.engine, single)
    for request in requests:
        assert answers.outputs(request.id) == alone[request.id][:1]
        if request.sampling.temperature == 10 and request.sampling.top_k != 5:
            assert len(set(map(tuple, alone[request.id]))) == request.sampling.n


def test_another_seed_says_something_else(
    loaded: LoadedModel, layout: LayoutName, alone: dict[str, list[list[int]]]
) -> None:
    """Hot requests only: a cold one may well say the same twice."""
    parts = engine_for(loaded, layout)
    first = [sampled(number) for number in range(len(alone))]
    hot = [r for r in first if r.sampling.temperature == 10 and r.sampling.top_k != 5]
    assert len(hot) > 4
    others = [replace(r, sampling=replace(r.sampling, seed=r.sampling.seed + 1)) for r in hot]
    answers = answer(parts.engine, others)
    assert all(answers.outputs(r.id) != alone[r.id] for r in hot)


@pytest.fixture(scope="module")
def codes() -> Codes:
    return Codes.make()


@pytest.fixture(scope="module")
def counting(codes: Codes, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Says 2, 3, 4, 5 = end of sequence, 6 .. after a prompt that ends with 1."""
    return load_folder(save_canary(tmp_path_factory.mktemp("counting"), codes, eos=EOS))


@pytest.mark.parametrize(
    ("options", "said", "reason", "stop"),
    [
        ({}, [2, 3, 4, 5], "eos", None),
        ({"max_new_tokens": 4}, [2, 3, 4, 5], "eos", None),
        ({"max_new_tokens": 3}, [2, 3, 4], "length", None),
        ({"ignore_eos": True}, [2, 3, 4, 5, 6, 7, 8, 9], "length", None),
        ({"stop_token_ids": (4, 3)}, [2, 3], "stop", 3),
        ({"stop_token_ids": (7,)}, [2, 3, 4, 5], "eos", None),
        ({"stop_token_ids": (7,), "ignore_eos": True}, [2, 3, 4, 5, 6, 7], "stop", 7),
        ({"stop_token_ids": (EOS,)}, [2, 3, 4, 5], "stop", EOS),
        ({"stop_token_ids": (EOS,), "ignore_eos": True}, [2, 3, 4, 5], "stop", EOS),
        ({"stop_token_ids": (1,)}, [2, 3, 4, 5], "eos", None),  # the prompt stops nothing
        ({"min_new_tokens": 3}, [2, 3, 4, 5], "eos", None),
        ({"min_new_tokens": 1, "stop_token_ids": (3,)}, [2, 3], "stop", 3),
    ],
)
def test_where_an_answer_ends(
    counting: LoadedModel,
    layout: LayoutName,
    options: dict[str, Any],
    said: list[int],
    reason: str,
    stop: int | None,
) -> None:
    parts = make_engine(counting, layout)
    given: dict[str, Any] = {"max_new_tokens": 8, **options}
    request = submit("one", [9, 1], **given)
    answers = answer(parts.engine, [request])
    finished = answers.finished["one"]
    assert answers.tokens["one"] == said
    assert (finished.reason, finished.stop) == (reason, stop)


@pytest.mark.parametrize("minimum", [4, 5, 8])
def test_min_new_tokens_bans_what_would_end_it(
    counting: LoadedModel, layout: LayoutName, codes: Codes, minimum: int
) -> None:
    """The best token that is allowed is said instead, and no earlier than that one ends it."""
    stops, last, said = (3, 7), 1, list[int]()
    while len(said) < 8 and last not in (*stops, EOS):
        scores = codes.logits([None], [last])[0]
        if len(said) < minimum:
            scores[[*stops, EOS]] = float("-inf")
        last = int(scores.argmax())
        said.append(last)
    request = submit("one", [1], max_new_tokens=8, min_new_tokens=minimum, stop_token_ids=stops)
    assert answer(make_engine(counting, layout).engine, [request]).tokens["one"] == said


def test_bans_hold_for_sampled_tokens_too(counting: LoadedModel, layout: LayoutName) -> None:
    """At this heat every token is about as likely as any other, the ends of answers included."""
    common: dict[str, Any] = {
        "max_new_tokens": 60,
        "temperature": 10.0,
        "top_k": 24,
        "stop_token_ids": (3, 7),
    }
    requests = [
        submit(f"{least} {seed}", [1], seed=seed, min_new_tokens=least, **common)
        for least in (0, 40)
        for seed in range(20)
    ]
    answers = answer(make_engine(counting, layout).engine, requests)
    banned = {3, 7, EOS}
    kept = [answers.tokens[f"40 {seed}"] for seed in range(20)]
    assert all(len(tokens) >= 40 and banned.isdisjoint(tokens[:40]) for tokens in kept)
    free = [answers.tokens[f"0 {seed}"] for seed in range(20)]
    assert sum(len(tokens) < 40 for tokens in free) > 4


def test_frequency_and_presence_follow_the_output(counting: LoadedModel) -> None:
    """A prefix would say one token for ever; a penalty makes it say the next best instead."""
    codes, source = Codes.make(), DictSource()
    kv = torch.full((1, 2, 3, 2, 64), 8.0)
    kv[:, 1] = (50 * codes.rows[100]).view(2, 64)
    source.add("hundred", kv)
    scores = codes.logits([100], [100])[0]
    best, second = scores.topk(2).values.tolist()
    gap = best - second
    for options, repeats in (
        ({"presence_penalty": gap * 0.9}, 8),
        ({"presence_penalty": gap * 1.1}, 1),
        ({"frequency_penalty": gap * 0.35}, 3),
        ({"frequency_penalty": gap * 0.3, "presence_penalty": gap * 0.2}, 3),
        ({"frequency_penalty": gap * 0.3}, 4),
    ):
        engine = make_engine(counting, "rows", source=source).engine
        request = submit("one", [1], prefixes=["hundred"], max_new_tokens=8, **options)
        said = answer(engine, [request]).tokens["one"]
        assert said[:repeats] == [100] * repeats
        assert repeats == 8 or said[repeats] != 100
