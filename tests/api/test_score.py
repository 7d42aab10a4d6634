"""How likely targets are: a real server against the models' own code."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from api.served import Served, served
from api.spoken import LAYERS, POSITIONS, logprobs_of, prefix, put, save_chat_model
from service.fakes import EOS, EOS_TEXT, VOCABULARY, ids, tokenizer
from support.models import save_tiny
from support.native import native_file
from support.reference import greedy, load_reference
from support.slow import Asked, Piece, Slow
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    DynamicCache,
    EncoderDecoderCache,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

PROMPT = "name : Blue Spice"
TARGETS: list[str | list[int]] = [" good", " bad!", "\u00e9", [3, 4, 5]]
START, PAD = 4, 3
NEAR = 1e-3


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "gpt2")


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its tokenizer puts an end behind every text."""
    folder = tmp_path_factory.mktemp("models") / "bart"
    config = BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=256,
        bos_token_id=EOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        decoder_start_token_id=START,
        forced_bos_token_id=EOS,
    )
    save_tiny(config, folder)
    ending = tokenizer()
    ending.post_processor = TemplateProcessing(
        single=f"$A {EOS_TEXT}", special_tokens=[(EOS_TEXT, EOS)]
    )
    PreTrainedTokenizerFast(tokenizer_object=ending, eos_token=EOS_TEXT).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def causal(gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(gpt2, tmp_path_factory.mktemp("causal") / "store") as running:
        yield running


@pytest.fixture(scope="module")
def seq2seq(bart: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(bart, tmp_path_factory.mktemp("seq2seq") / "store") as running:
        yield running


@pytest.fixture(scope="module")
def decoder(gpt2: Path) -> PreTrainedModel:
    return load_reference(gpt2)


def score(server: Served, **body: Any) -> dict[str, Any]:
    answer = server.client.post("/score", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def tokens_of(target: str | list[int]) -> list[int]:
    return ids(target) if isinstance(target, str) else target


def check(told: dict[str, Any], token_ids: Sequence[int], rows: torch.Tensor) -> None:
    """`rows[i]`: what is expected in the place of token i."""
    expected = [float(row[token_id]) for row, token_id in zip(rows, token_ids, strict=True)]
    assert told["token_ids"] == list(token_ids)
    assert [one["token_id"] for one in told["logprobs"]] == list(token_ids)
    assert [one["logprob"] for one in told["logprobs"]] == pytest.approx(expected, abs=NEAR)
    assert told["logprob"] == pytest.approx(math.fsum(expected), abs=NEAR * len(expected))
    assert told["is_greedy"] == (rows.argmax(-1).tolist() == list(token_ids))


@pytest.mark.parametrize("tokens", [0, 1, 6])
def test_targets_are_as_likely_as_the_models_own_code_says(
    causal: Served, decoder: PreTrainedModel, tokens: int
) -> None:
    values = prefix(tokens, seed=tokens) if tokens else None
    task_id = f"task-{tokens}" if tokens else None
    if values is not None:
        put(causal, f"task-{tokens}", values)
    likely = greedy(decoder, ids(PROMPT), 5, values)
    targets: list[str | list[int]] = [*TARGETS, likely]
    answer = score(causal, task_id=task_id, input=PROMPT, targets=targets)
    assert (answer["task_id"], answer["version"]) == (task_id, 1 if tokens else None)
    assert [used["tokens"] for used in answer["prefixes"]] == ([tokens] if tokens else [])
    for index, (target, told) in enumerate(zip(targets, answer["scores"], strict=True)):
        token_ids = tokens_of(target)
        rows = logprobs_of(decoder, [*ids(PROMPT), *token_ids], values)
        check(told, token_ids, rows[len(ids(PROMPT)) - 1 : -1])
        said = target if isinstance(target, str) else tokenizer().decode(target)
        assert (told["index"], told["text"]) == (index, said)
    assert [told["is_greedy"] for told in answer["scores"]] == [False] * len(TARGETS) + [True]
    sizes = [len(ids(PROMPT)) + len(tokens_of(target)) for target in targets]
    assert answer["usage"] == {
        "prompt_tokens": sum(sizes),
        "prefix_tokens": tokens * len(targets),
        "generated_tokens": 0,
    }


def test_targets_run_in_one_batch(causal: Served) -> None:
    put(causal, "wide", prefix(3, seed=3))
    before = causal.steps()[-1]["step"]
    score(causal, task_id="wide", input=PROMPT, targets=[[token] for token in range(3, 35)])
    steps = causal.steps(before)
    assert max(len(step["rows"]) for step in steps) >= 16
    assert {row["task_id"] for step in steps for row in step["rows"]} == {"wide"}


def test_what_a_version_stores_for_generating_is_put_aside(causal: Served) -> None:
    put(causal, "plain", prefix(4, seed=4))
    stored = {"num_beams": 4, "num_return": 2, "min_new_tokens": 5, "logprobs": None}
    content = causal.client.get("/prefixes/plain/versions/1/file").content
    fields = {"task_id": "asks", "template": "Q: {input}\nA:", "parameters": json.dumps(stored)}
    answer = causal.client.post("/prefixes", data=fields, files={"file": content})
    assert answer.status_code == 201, answer.text
    plain = score(causal, task_id="plain", input="Q: who?\nA:", targets=TARGETS)
    asked = score(causal, task_id="asks", input="who?", targets=TARGETS)
    assert [one["logprob"] for one in asked["scores"]] == pytest.approx(
        [one["logprob"] for one in plain["scores"]], abs=NEAR
    )


def test_a_composition_is_one_long_prefix(causal: Served, decoder: PreTrainedModel) -> None:
    first, second = prefix(2, seed=20), prefix(5, seed=21)
    put(causal, "first", first)
    put(causal, "second", second)
    parts = [{"task_id": "first"}, {"task_id": "second", "version": 1}]
    answer = score(causal, compose=parts, input=PROMPT, targets=[" good"])
    rows = logprobs_of(decoder, ids(PROMPT + " good"), torch.cat([first, second], dim=2))
    check(answer["scores"][0], ids(" good"), rows[len(ids(PROMPT)) - 1 : -1])
    assert [part["task_id"] for part in answer["prefixes"]] == ["first", "second"]


def test_a_text_is_read_before_the_input(causal: Served, decoder: PreTrainedModel) -> None:
    stored = causal.client.post("/prefixes", json={"task_id": "story", "text": "once, "})
    assert stored.status_code == 201, stored.text
    answer = score(causal, task_id="story", input=PROMPT, targets=[" good"])
    read = ids("once, " + PROMPT)
    rows = logprobs_of(decoder, [*read, *ids(" good")])
    check(answer["scores"][0], ids(" good"), rows[len(read) - 1 : -1])


@pytest.mark.parametrize("given", [None, "so"])
def test_a_target_stands_behind_an_infix(causal: Served, gpt2: Path, given: str | None) -> None:
    piece = Piece("INFIX_TUNING", {"decoder": prefix(4, seed=40)}, offset=4)
    answer = causal.client.put("/prefixes/infix", content=native_file(piece))
    assert answer.status_code in (200, 201), answer.text
    began = (EOS,) if given is None else tuple(ids(given))
    asked = Asked(tuple(ids(PROMPT)), 1, (piece,), decoder_ids=began)
    row = Slow(gpt2).row(asked)
    body = {} if given is None else {"decoder_input": given}
    told = score(causal, task_id="infix", input=PROMPT, targets=TARGETS, **body)["scores"]
    for target, one in zip(TARGETS, told, strict=True):
        token_ids = tokens_of(target)
        logits = [row.logits(token_ids[:place]) for place in range(len(token_ids))]
        check(one, token_ids, torch.log_softmax(torch.stack(logits).double(), -1))


def expected_of_decoder(
    model: PreTrainedModel, decoder_ids: Sequence[int], values: torch.Tensor | None
) -> torch.Tensor:
    """Row i is what the decoder expects behind its token i."""
    own = DynamicCache()
    for layer, (key, value) in enumerate([] if values is None else values):
        own.update(key.transpose(0, 1)[None], value.transpose(0, 1)[None], layer)
    with torch.inference_mode():
        output = model(
            input_ids=torch.tensor([[*ids(PROMPT), EOS]]),
            decoder_input_ids=torch.tensor([list(decoder_ids)]),
            past_key_values=EncoderDecoderCache(own, DynamicCache()),
            use_cache=True,
        )
    return torch.log_softmax(output.logits[0].double(), -1)


@pytest.mark.parametrize("tokens", [0, 5])
@pytest.mark.parametrize("given", [None, "so"])
def test_a_decoder_says_the_target_and_its_end(
    seq2seq: Served, bart: Path, tokens: int, given: str | None
) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(bart, attn_implementation="eager").eval()
    values = prefix(tokens, seed=7) if tokens else None
    task_id = "e2e" if tokens else None
    if values is not None:
        put(seq2seq, "e2e", values)
    began = [START, *([] if given is None else ids(given))]
    body = {} if given is None else {"decoder_input": given}
    answer = score(seq2seq, task_id=task_id, input=PROMPT, targets=TARGETS, **body)
    for target, told in zip(TARGETS, answer["scores"], strict=True):
        token_ids = [*ids(target), EOS] if isinstance(target, str) else target
        rows = expected_of_decoder(model, [*began, *token_ids], values)
        check(told, token_ids, rows[len(began) - 1 : -1])


def test_the_room_is_that_of_the_context(causal: Served) -> None:
    """The last token of a target is never fed, so it needs no position."""
    put(causal, "five", prefix(5, seed=5))
    most = POSITIONS - 5 + 1
    fits = score(causal, task_id="five", input=[5] * (most - 2), targets=[[6, 7]])
    assert len(fits["scores"][0]["logprobs"]) == 2
    body = {"task_id": "five", "input": [5] * (most - 2), "targets": [[6], [6, 7, 8]]}
    answer = causal.client.post("/score", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "prompt_too_long")
