"""OpenAI's own client against a real server of a tiny model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from api.served import Served, served, until
from api.spoken import (
    CHAT_TEMPLATE,
    client_of,
    fast_tokenizer,
    logprobs_of,
    prefix,
    put,
    save_chat_model,
)
from service.fakes import EOS, EOS_TEXT, ids, tokenizer
from support.reference import greedy, load_reference
from transformers import PreTrainedModel

PROMPT = "name : Blue Spice"
PREFIX = prefix(5, seed=1)
GREEDY: dict[str, Any] = {"temperature": 0, "extra_body": {"ignore_eos": True}}
MESSAGES: list[Any] = [
    {"role": "system", "content": " be brief "},
    {"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "text", "text": "!"}]},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def reference(model: Path) -> PreTrainedModel:
    return load_reference(model)


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(model, tmp_path_factory.mktemp("store") / "new") as running:
        put(running, "e2e", prefix(3, seed=0))
        put(running, "e2e", PREFIX)
        yield running


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[openai.OpenAI]:
    with client_of(server) as made:
        yield made


def text(token_ids: Sequence[int]) -> str:
    return str(tokenizer().decode(list(token_ids)))


def test_models_are_the_base_and_the_tasks(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "e2e"]
    for name in ("tiny", "e2e", "e2e@1", "e2e@2"):
        assert client.models.retrieve(name).id == name
    for name in ("e2e@3", "e2e@0", "e2e@01", "nothing", "Tiny", "e2e@", "@1"):
        with pytest.raises(openai.NotFoundError) as refused:
            client.models.retrieve(name)
        assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


def test_a_completion_is_what_the_model_says(
    client: openai.OpenAI, reference: PreTrainedModel
) -> None:
    for name, values in (("tiny", None), ("e2e", PREFIX), ("e2e@1", prefix(3, seed=0))):
        expected = greedy(reference, ids(PROMPT), 12, values)
        answer = client.completions.create(model=name, prompt=PROMPT, max_tokens=12, **GREEDY)
        (choice,) = answer.choices
        assert (answer.object, answer.model, choice.index) == ("text_completion", name, 0)
        assert (choice.text, choice.finish_reason) == (text(expected), "length")
        assert choice.logprobs is None
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == len(ids(PROMPT))
        assert (answer.usage.completion_tokens, answer.usage.total_tokens) == (12, 12 + len(PROMPT))


def test_prompts_of_all_kinds(client: openai.OpenAI, reference: PreTrainedModel) -> None:
    texts = ["hello", "name :", "x"]
    expected = [text(greedy(reference, ids(one), 6, PREFIX)) for one in texts]
    kinds: list[Any] = [texts, [ids(one) for one in texts]]
    for prompts in kinds:
        answer = client.completions.create(model="e2e", prompt=prompts, max_tokens=6, **GREEDY)
        assert [choice.text for choice in answer.choices] == expected
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
    alone = client.completions.create(model="e2e", prompt=ids("hello"), max_tokens=6, **GREEDY)
    assert alone.choices[0].text == expected[0]


def test_openais_defaults(client: openai.OpenAI, server: Served) -> None:
    """16 tokens, and chance unless it is switched off."""
    ask: dict[str, Any] = {"model": "e2e", "prompt": PROMPT, "extra_body": {"ignore_eos": True}}
    answers = [client.completions.create(**ask, seed=seed) for seed in (1, 1, 2)]
    texts = [answer.choices[0].text for answer in answers]
    assert texts[0] == texts[1] != texts[2]
    assert {answer.usage.completion_tokens for answer in answers if answer.usage} == {16}
    ours = {"max_new_tokens": 16, "temperature": 1, "seed": 1, "ignore_eos": True}
    native = server.generate(task_id="e2e", input=PROMPT, parameters=ours)
    assert native["outputs"][0]["text"] == texts[0]
    negative = client.completions.create(**ask, seed=-1)
    ours["seed"] = 2**63 - 1
    native = server.generate(task_id="e2e", input=PROMPT, parameters=ours)
    assert native["outputs"][0]["text"] == negative.choices[0].text


def test_a_stop_string_and_the_models_own_end(client: openai.OpenAI) -> None:
    free = client.completions.create(model="e2e", prompt=PROMPT, max_tokens=20, **GREEDY)
    said = free.choices[0].text
    stop = said[6:9]
    for stops in (stop, ["nothing\u2014such", stop]):
        answer = client.completions.create(
            model="e2e", prompt=PROMPT, max_tokens=20, stop=stops, **GREEDY
        )
        (choice,) = answer.choices
        assert (choice.text, choice.finish_reason) == (said[: said.index(stop)], "stop")
    ids_of_stop = {"stop_token_ids": [ids(said[0])[0]], "top_k": -1, "min_p": 0.0}
    ended = client.completions.create(
        model="e2e", prompt=PROMPT, max_tokens=20, temperature=0, extra_body=ids_of_stop
    )
    assert ended.choices[0].finish_reason == "stop"


def test_outputs_of_several_prompts_are_counted_through(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "e2e", "max_tokens": 5, "seed": 7}
    both = client.completions.create(prompt=["hello", "x"], n=2, **ask)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    one = client.completions.create(prompt="x", n=2, best_of=2, **ask)
    assert [c.text for c in both.choices[2:]] == [c.text for c in one.choices]
    assert one.choices[0].text != one.choices[1].text
    assert both.usage is not None
    assert both.usage.completion_tokens == 20 or "stop" in {c.finish_reason for c in both.choices}


def test_logprobs_are_those_of_the_models_own_code(
    client: openai.OpenAI, reference: PreTrainedModel
) -> None:
    said = greedy(reference, ids(PROMPT), 6, PREFIX)
    expected = logprobs_of(reference, [*ids(PROMPT), *said], PREFIX)
    answer = client.completions.create(
        model="e2e", prompt=PROMPT, max_tokens=6, logprobs=3, **GREEDY
    )
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.tokens and told.token_logprobs and told.top_logprobs and told.text_offset
    start = len(ids(PROMPT)) - 1
    for place, token_id in enumerate(said):
        row = expected[start + place]
        assert told.token_logprobs[place] == pytest.approx(float(row[token_id]), abs=1e-4)
        best = row.topk(3).values.tolist()
        assert sorted(told.top_logprobs[place].values(), reverse=True) == pytest.approx(
            best, abs=1e-4
        )
        assert told.top_logprobs[place][told.tokens[place]] == told.token_logprobs[place]
    assert told.text_offset[0] == 0


@pytest.mark.parametrize("most", [0, 3])
def test_an_echo_tells_what_the_prompt_is_worth(
    client: openai.OpenAI, reference: PreTrainedModel, most: int
) -> None:
    prompts = [ids("hello"), ids("name : x")]
    answer = client.completions.create(
        model="e2e", prompt=prompts, max_tokens=most, echo=True, logprobs=1, **GREEDY
    )
    for prompt, choice in zip(prompts, answer.choices, strict=True):
        said = greedy(reference, prompt, most, PREFIX)
        told = choice.logprobs
        assert told is not None
        assert told.tokens and told.token_logprobs and told.top_logprobs and told.text_offset
        assert choice.text == text([*prompt, *said])
        assert len(told.tokens) == len(told.text_offset) == len(prompt) + most
        assert (told.token_logprobs[0], told.top_logprobs[0]) == (None, None)
        rows = logprobs_of(reference, [*prompt, *said], PREFIX)
        expected = [float(rows[n, id]) for n, id in enumerate([*prompt, *said][1:])]
        assert told.token_logprobs[1:] == pytest.approx(expected, abs=1e-4)
        assert "".join(told.tokens[: len(prompt)]) == text(prompt)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2 * most


def test_an_echo_without_logprobs(client: openai.OpenAI) -> None:
    plain = client.completions.create(model="e2e", prompt=PROMPT, max_tokens=4, **GREEDY)
    echoed = client.completions.create(
        model="e2e", prompt=PROMPT, max_tokens=4, echo=True, **GREEDY
    )
    assert echoed.choices[0].text == PROMPT + plain.choices[0].text
    empty = client.completions.create(model="e2e", prompt=PROMPT, max_tokens=0, **GREEDY)
    assert (empty.choices[0].text, empty.choices[0].finish_reason) == ("", "length")


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {
        "model": "e2e",
        "prompt": ["hello", PROMPT],
        "max_tokens": 12,
        "n": 2,
        "seed": 3,
        "logprobs": 2,
    }
    whole = client.completions.create(**ask)
    texts, ends, usages = [""] * 4, [""] * 4, []
    tokens: list[list[str]] = [[] for _ in range(4)]
    with client.completions.create(
        **ask, stream=True, stream_options={"include_usage": True}
    ) as stream:
        for chunk in stream:
            usages.append(chunk.usage)
            for choice in chunk.choices:
                assert not ends[choice.index]
                texts[choice.index] += choice.text
                tokens[choice.index] += choice.logprobs.tokens or [] if choice.logprobs else []
                ends[choice.index] = choice.finish_reason or ""
    assert texts == [choice.text for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    for choice, streamed in zip(whole.choices, tokens, strict=True):
        assert choice.logprobs is not None and streamed == choice.logprobs.tokens
    assert usages[:-1] == [None] * (len(usages) - 1) and usages[-1] == whole.usage


def test_the_bytes_of_a_stream(server: Served) -> None:
    body = {"model": "e2e", "prompt": PROMPT, "max_tokens": 3, "stream": True, "echo": True}
    with server.client.stream("POST", "/v1/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]" and lines.count(lines[-1]) == 1
    assert PROMPT in lines[0]
    assert all(line.isascii() for line in lines)


def test_a_chat_is_prompted_by_the_models_template(
    client: openai.OpenAI, reference: PreTrainedModel
) -> None:
    said = [MESSAGES[0], {"role": "user", "content": "hello\n!"}]
    prompt = fast_tokenizer().apply_chat_template(
        said, chat_template=CHAT_TEMPLATE, add_generation_prompt=True, return_dict=False
    )
    assert prompt.count(EOS) == 1
    expected = greedy(reference, prompt, 8, PREFIX)
    answer = client.chat.completions.create(
        model="e2e", messages=MESSAGES, max_completion_tokens=8, **GREEDY
    )
    (choice,) = answer.choices
    assert (answer.object, choice.message.role) == ("chat.completion", "assistant")
    assert (choice.message.content, choice.finish_reason) == (text(expected), "length")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(prompt), 8)


def test_logprobs_of_a_chat(client: openai.OpenAI, reference: PreTrainedModel) -> None:
    answer = client.chat.completions.create(
        model="e2e", messages=MESSAGES, max_tokens=4, logprobs=True, top_logprobs=2, n=2, seed=5
    )
    assert len(answer.choices) == 2
    for choice in answer.choices:
        assert choice.logprobs is not None and choice.logprobs.content is not None
        spelled = b"".join(bytes(one.bytes or ()) for one in choice.logprobs.content)
        ended = "" if choice.finish_reason == "length" else EOS_TEXT
        assert spelled.decode("utf-8", "replace") == (choice.message.content or "") + ended
        for one in choice.logprobs.content:
            best, second = one.top_logprobs
            assert best.logprob >= second.logprob and best.logprob >= one.logprob


def test_a_streamed_chat(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "e2e", "messages": MESSAGES, "max_tokens": 10, "seed": 4}
    whole = client.chat.completions.create(**ask).choices[0]
    roles, said, ends = [], "", []
    for chunk in client.chat.completions.create(**ask, stream=True):
        assert chunk.object == "chat.completion.chunk"
        (choice,) = chunk.choices
        roles.append(choice.delta.role)
        said += choice.delta.content or ""
        ends.append(choice.finish_reason)
    assert roles == ["assistant", *[None] * (len(roles) - 1)]
    assert ends == [*[None] * (len(ends) - 1), whole.finish_reason]
    assert said == whole.message.content


def test_many_awaited_streams_in_one_batch(server: Served, client: openai.OpenAI) -> None:
    address = str(server.client.base_url).rstrip("/")
    prompts = [PROMPT[:length] for length in range(2, 10)]

    async def said(awaited: openai.AsyncOpenAI, name: str, prompt: str) -> str:
        stream = await awaited.completions.create(
            model=name, prompt=prompt, max_tokens=16, stream=True, **GREEDY
        )
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def all_said() -> list[str]:
        async with openai.AsyncOpenAI(
            base_url=f"{address}/v1", api_key="none", max_retries=0
        ) as awaited:
            work = [said(awaited, name, one) for one in prompts for name in ("tiny", "e2e")]
            return await asyncio.gather(*work)

    expected = [
        client.completions.create(model=name, prompt=one, max_tokens=16, **GREEDY).choices[0].text
        for one in prompts
        for name in ("tiny", "e2e")
    ]
    assert asyncio.run(all_said()) == expected


def test_a_stream_that_is_left_frees_its_row(server: Served, client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "e2e", "prompt": ["x", "y"], "max_tokens": 400, "stream": True}
    with client.completions.create(**ask, **GREEDY) as stream:
        next(iter(stream))

    def is_alone() -> bool:
        before = server.steps()[-1]["step"]
        server.generate(input="z", parameters={"max_new_tokens": 2, "ignore_eos": True})
        return len(server.steps(before)[-1]["rows"]) == 1

    until(is_alone)


def test_errors_have_openais_shape(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="nothing", prompt="x")
    assert missing.value.type == "invalid_request_error"
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="e2e", prompt="x" * 600)
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "prompt")
    with pytest.raises(openai.BadRequestError) as much:
        client.chat.completions.create(model="e2e", messages=MESSAGES, max_tokens=600)
    assert (much.value.code, much.value.param) == ("invalid_parameter", "max_tokens")
    assert "max_tokens must be at most" in much.value.message
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="e2e", messages=[{"role": "assistant", "content": "I begin"}]
        )
    assert "The user speaks first" in refused.value.message
    assert refused.value.param == "messages"
