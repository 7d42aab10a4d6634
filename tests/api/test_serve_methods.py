"""Families, methods and beams over real HTTP, against the models' own `generate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from api.served import Served, served
from service.fakes import EOS, EOS_TEXT, VOCABULARY, ids, tokenizer
from support.models import save_tiny
from support.reference import greedy, load_reference
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from prefixmux_store.format import PrefixMeta, RawTensor, encode
from prefixmux_store.names import joint_digest

LAYERS, HEADS, DIM, POSITIONS = 2, 4, 8, 256
START, PAD = 4, 3
PROMPT = "name : Blue Spice"
COUNT = {"max_new_tokens": 16, "ignore_eos": True}


def folder_of(config: PreTrainedConfig, folder: Path) -> Path:
    save_tiny(config, folder)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer(), eos_token=EOS_TEXT)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = GPT2Config(
        n_embd=HEADS * DIM,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=POSITIONS,
        vocab_size=VOCABULARY,
        eos_token_id=EOS,
        bos_token_id=EOS,
    )
    return folder_of(config, tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = BartConfig(
        vocab_size=VOCABULARY,
        d_model=HEADS * DIM,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=POSITIONS,
        bos_token_id=EOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        decoder_start_token_id=START,
        forced_eos_token_id=EOS,
    )
    return folder_of(config, tmp_path_factory.mktemp("bart"))


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


@pytest.fixture(scope="module")
def encoder_decoder(bart: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForSeq2SeqLM.from_pretrained(
        bart, attn_implementation="eager"
    )
    return model.eval()


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def kv(tokens: int, seed: int) -> torch.Tensor:
    return random(LAYERS, 2, tokens, HEADS, DIM, seed=seed)


def put(server: Served, task_id: str, method: str = "PREFIX_TUNING", **at: torch.Tensor) -> str:
    tensors = {
        name: RawTensor("F32", tuple(values.shape), memoryview(values.numpy().tobytes()))
        for name, values in at.items()
    }
    data = encode(tensors, PrefixMeta(method=method))
    answer = server.client.put(f"/prefixes/{task_id}", content=data)
    assert answer.status_code in (200, 201), answer.text
    digest: str = answer.json()["prefix_digest"]
    return digest


def post(server: Served, **body: Any) -> dict[str, Any]:
    answer = server.client.post("/prefixes", json=body)
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, Any] = answer.json()
    return found


def tokens_of(answer: dict[str, Any]) -> list[int]:
    (output,) = answer["outputs"]
    found: list[int] = output["token_ids"]
    return found


@torch.inference_mode()
def own(
    model: PreTrainedModel, input_ids: Sequence[int], **asked: Any
) -> tuple[list[list[int]], list[float]]:
    """New tokens and scores of the model's own `generate`, the best first."""
    given = torch.tensor([list(input_ids)])
    made: Any = model.generate(
        given,
        attention_mask=torch.ones_like(given),
        do_sample=False,
        pad_token_id=PAD,
        return_dict_in_generate=True,
        output_scores=True,
        **asked,
    )
    skip = 1 if model.config.is_encoder_decoder else len(input_ids)
    sequences = [row[skip:].tolist() for row in made.sequences]
    cut = [row[: row.index(EOS) + 1] if EOS in row else row for row in sequences]
    return cut, made.sequences_scores.tolist() if made.get("sequences_scores") is not None else []


def test_a_text_is_what_stands_before_the_input(causal: Served, decoder: PreTrainedModel) -> None:
    text = "Be brief. "
    stored = post(causal, task_id="brief", text=text)
    answer = causal.generate(task_id="brief", input=PROMPT, parameters=COUNT)
    assert tokens_of(answer) == greedy(decoder, ids(text + PROMPT), 16)
    assert answer["prefixes"][0]["digest"] == stored["prefix_digest"]
    assert answer["usage"]["prefix_tokens"] == len(ids(text))


def test_examples_with_their_template(causal: Served, decoder: PreTrainedModel) -> None:
    pairs = [{"input": "hot", "output": "cold"}, {"input": "up", "output": "down"}]
    post(causal, task_id="pairs", examples=pairs, template="{input} > {output}|")
    asked = {**COUNT, "stop": []}
    answer = causal.generate(task_id="pairs", input="big", parameters=asked)
    assert tokens_of(answer) == greedy(decoder, ids("hot > cold|up > down|big >"), 16)


def test_a_composition_is_its_prefixes_side_by_side(
    causal: Served, decoder: PreTrainedModel
) -> None:
    a, b = kv(3, seed=1), kv(5, seed=2)
    digests = [put(causal, "b", decoder=b), put(causal, "a", decoder=a)]
    expected = greedy(decoder, ids(PROMPT), 16, torch.cat([b, a], dim=2))
    parts = [{"task_id": "b"}, {"task_id": "a", "version": 1}]
    post(causal, task_id="both", compose=parts)
    for names in ({"compose": parts}, {"task_id": "both"}):
        answer = causal.generate(**names, input=PROMPT, parameters=COUNT)
        assert tokens_of(answer) == expected
        assert answer["prefix_digest"] == joint_digest(digests)
        assert [used["digest"] for used in answer["prefixes"]] == digests


def test_virtual_tokens_are_embeddings_before_the_input(
    causal: Served, decoder: PreTrainedModel
) -> None:
    virtual = random(6, HEADS * DIM, seed=3)
    put(causal, "virtual", "PROMPT_TUNING", embeddings=virtual)
    words = decoder.get_input_embeddings()(torch.tensor(ids(PROMPT)))
    found = decoder.generate(
        inputs_embeds=torch.cat([virtual, words])[None],
        attention_mask=torch.ones(1, 6 + len(words), dtype=torch.long),
        max_new_tokens=16,
        min_new_tokens=16,
        do_sample=False,
        pad_token_id=PAD,
        eos_token_id=None,
    )
    answer = causal.generate(task_id="virtual", input=PROMPT, parameters=COUNT)
    assert tokens_of(answer) == found[0].tolist()


def test_an_infix_stands_between_input_and_decoder_input(causal: Served) -> None:
    put(causal, "infix", "INFIX_TUNING", decoder=kv(4, seed=4))
    by_default = causal.generate(task_id="infix", input=PROMPT, parameters=COUNT)
    with_bos = causal.generate(task_id="infix", input=PROMPT, decoder_input=[EOS], parameters=COUNT)
    other = causal.generate(task_id="infix", input=PROMPT, decoder_input="x", parameters=COUNT)
    assert tokens_of(by_default) == tokens_of(with_bos) != tokens_of(other)
    bare = causal.generate(input=[*ids(PROMPT), EOS], parameters=COUNT)
    assert tokens_of(by_default) != tokens_of(bare)


BEAMS = {"num_beams": 4, "num_return": 3, "max_new_tokens": 12, "no_repeat_ngram_size": 2}


@pytest.mark.parametrize("family", ["gpt2", "bart"])
@pytest.mark.parametrize(("penalty", "early"), [(1.0, False), (0.5, True), (2.0, "never")])
def test_beams_are_those_of_transformers(
    request: pytest.FixtureRequest, family: str, penalty: float, early: bool | str
) -> None:
    names = {"gpt2": ("causal", "decoder"), "bart": ("seq2seq", "encoder_decoder")}[family]
    server, model = map(request.getfixturevalue, names)
    asked = {**BEAMS, "length_penalty": penalty, "early_stopping": early}
    answer = server.generate(input=PROMPT, parameters=asked)
    expected, scores = own(
        model,
        ids(PROMPT),
        num_beams=4,
        num_return_sequences=3,
        max_new_tokens=12,
        no_repeat_ngram_size=2,
        length_penalty=penalty,
        early_stopping=early,
    )
    assert [output["token_ids"] for output in answer["outputs"]] == expected
    assert [output["score"] for output in answer["outputs"]] == pytest.approx(scores, abs=1e-4)
    assert [output["index"] for output in answer["outputs"]] == [0, 1, 2]
    assert answer["usage"]["generated_tokens"] == sum(map(len, expected))


def test_an_encoder_decoder_model_answers_as_its_own_code(
    seq2seq: Served, encoder_decoder: PreTrainedModel
) -> None:
    for text in (PROMPT, "x"):
        answer = seq2seq.generate(input=text, parameters={"max_new_tokens": 16})
        ((expected, *_), _) = own(encoder_decoder, ids(text), max_new_tokens=16)
        assert tokens_of(answer) == expected
    found = own(
        encoder_decoder,
        ids(PROMPT),
        max_new_tokens=16,
        decoder_input_ids=torch.tensor([[START, *ids("so ")]]),
    )
    answer = seq2seq.generate(input=PROMPT, decoder_input="so ", parameters={"max_new_tokens": 16})
    assert ids("so ") + tokens_of(answer) == found[0][0]


def test_a_text_and_virtual_tokens_before_an_encoder(
    seq2seq: Served, encoder_decoder: PreTrainedModel
) -> None:
    post(seq2seq, task_id="brief", text="Be brief. ")
    answer = seq2seq.generate(task_id="brief", input=PROMPT, parameters={"max_new_tokens": 16})
    ((expected, *_), _) = own(encoder_decoder, ids("Be brief. " + PROMPT), max_new_tokens=16)
    assert tokens_of(answer) == expected
    virtual = random(5, HEADS * DIM, seed=5)
    put(seq2seq, "virtual", "PROMPT_TUNING", embeddings=virtual)
    words = encoder_decoder.get_input_embeddings()(torch.tensor(ids(PROMPT)))
    found = encoder_decoder.generate(
        inputs_embeds=torch.cat([virtual, words])[None], max_new_tokens=16, do_sample=False
    )
    answer = seq2seq.generate(task_id="virtual", input=PROMPT, parameters={"max_new_tokens": 16})
    assert tokens_of(answer) == found[0][1:].tolist()


def test_three_sites_of_any_lengths_in_one_mixed_batch(seq2seq: Served) -> None:
    put(seq2seq, "three", encoder=kv(2, seed=6), decoder=kv(3, seed=7), cross=kv(5, seed=8))
    put(seq2seq, "cross", cross=kv(4, seed=9))
    post(seq2seq, task_id="words", text="Be brief. ")
    names: list[dict[str, Any]] = [
        {"task_id": "three"},
        {"task_id": "cross"},
        {"task_id": "words"},
        {"compose": [{"task_id": "three"}, {"task_id": "words"}]},
        {},
    ]
    rows = [{**name, "input": PROMPT, "parameters": {"max_new_tokens": 16}} for name in names]
    alone = [seq2seq.generate(**row) for row in rows]
    assert len({tuple(tokens_of(answer)) for answer in alone}) > 1
    before = len(seq2seq.steps())
    results = seq2seq.client.post("/generate/batch", json={"requests": rows}).json()["results"]
    assert [tokens_of(row["response"]) for row in results] == list(map(tokens_of, alone))
    steps = [row for step in seq2seq.steps()[before:] for row in step["rows"]]
    assert sum(row["encoder_tokens"] > 0 for row in steps) == len(rows)


def test_the_model_tells_what_it_takes(causal: Served, seq2seq: Served) -> None:
    model = seq2seq.client.get("/model").json()
    assert (model["family"], model["decoder_start_token_id"]) == ("seq2seq", START)
    assert set(model["sites"]) == {"encoder", "decoder", "cross"}
    assert not {"INFIX_TUNING", "INFIX_EMBEDDING"} & set(model["methods"])
    model = causal.client.get("/model").json()
    assert (model["family"], model["bos_token_id"]) == ("causal", EOS)
    assert {"PREFIX_TUNING", "TEXT", "INFIX_EMBEDDING"} <= set(model["methods"])


def test_what_a_family_lacks_is_refused(causal: Served, seq2seq: Served) -> None:
    infix = kv(4, seed=4)
    raw = RawTensor("F32", tuple(infix.shape), memoryview(infix.numpy().tobytes()))
    for server, data, code in (
        (
            seq2seq,
            encode({"decoder": raw}, PrefixMeta(method="INFIX_TUNING")),
            "unsupported_method",
        ),
        (causal, encode({"encoder": raw}, PrefixMeta()), "incompatible_prefix"),
    ):
        answer = server.client.put("/prefixes/unfit", content=data)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, code)
        assert server.client.get("/prefixes/unfit").status_code == 404
