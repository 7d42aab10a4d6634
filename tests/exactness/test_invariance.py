"""A request's greedy output is the same alone and in any mixed batch, on both layouts.

The truth is the model's own eager code, one request at a time. Tokens count up to the first step
at which its two best logits are closer than rounding.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.engines import answer, make_engine
from support.mixing import Mix, Pool, make_pool
from support.models import FAMILIES, load_folder, save_tiny
from support.reference import load_reference
from support.tiny import LAYOUTS
from transformers import GPT2Config, LlamaConfig, PreTrainedConfig

from prefixmux_server.memory.select import LayoutName

# 8 families, 2 layouts: 304 batches.
BATCHES = 19
LENGTHS = (1, 2, 3, 17, 17, 64, 65, 128, 200)
LONG = (1024, 1024, 700, 1, 31)


def _long(kind: str) -> PreTrainedConfig:
    ids = {"vocab_size": 97, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    if kind == "gpt2":
        return GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=2048, **ids)
    return LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        **ids,
    )


def _pool(config: PreTrainedConfig, folder: Path, lengths: tuple[int, ...]) -> Pool:
    save_tiny(config, folder)
    return make_pool(load_folder(folder), load_reference(folder), lengths)


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return _pool(FAMILIES[request.param](), tmp_path_factory.mktemp(request.param), LENGTHS)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def long_pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return _pool(_long(request.param), tmp_path_factory.mktemp("long"), LONG)


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> LayoutName:
    name: LayoutName = request.param
    return name


def _mix(pool: Pool, layout: LayoutName, batches: int, first: int = 0) -> tuple[int, int]:
    """Tokens compared, and tokens that close calls left out."""
    compared = made = 0
    for number in range(first, first + batches):
        rng = random.Random(f"{pool.loaded.architecture} {layout} {number}")
        mix = Mix(pool, layout, rng, requests=rng.randrange(6, 25)).run()
        compared += mix.check()
        made += sum(len(tokens) for tokens in mix.answers.tokens.values())
    return compared, made - compared


def test_prefixes_matter(pool: Pool) -> None:
    """Else nothing below would mean anything: another prefix is another answer."""
    bare = {q.input_ids: q.truth for q in pool.questions if q.digest is None}
    changed = [
        q.truth.tokens[: q.truth.sure] != bare[q.input_ids].tokens[: q.truth.sure]
        for q in pool.questions
        if q.digest is not None
    ]
    assert len(changed) == 18
    assert all(changed)


def test_alone(pool: Pool, layout: LayoutName) -> None:
    parts = make_engine(pool.loaded, layout, source=pool.source())
    for number, question in enumerate(pool.questions):
        request = question.submit(f"{number}", max_new_tokens=8, ignore_eos=True)
        found = answer(parts.engine, [request]).tokens[request.id]
        truth = question.truth.upto(8)
        assert tuple(found[: len(truth)]) == truth


def test_random_mixed_batches(pool: Pool, layout: LayoutName) -> None:
    compared, left_out = _mix(pool, layout, BATCHES)
    assert compared > 80 * BATCHES
    assert left_out < compared / 20


@pytest.mark.long
def test_many_more_batches(pool: Pool, layout: LayoutName) -> None:
    compared, left_out = _mix(pool, layout, 5 * BATCHES, first=BATCHES)
    assert compared > 80 * 5 * BATCHES
    assert left_out < compared / 20


def test_long_prefixes_in_mixed_batches(long_pool: Pool, layout: LayoutName) -> None:
    compared, left_out = _mix(long_pool, layout, 4)
    assert compared > 200
    assert left_out < compared / 20
