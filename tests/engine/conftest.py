"""Tiny models of both families for all tests of the engine, on both layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine.twin import START, Twin
from support.models import FAMILIES, SPECIAL, load_folder, save_tiny
from support.reference import load_reference
from support.tiny import LAYOUTS, Tiny
from transformers import BartConfig

from prefixmux_server.memory.select import LayoutName


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grouped query heads, rotary positions: what most models have."""
    return save_tiny(FAMILIES["llama"](), tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def tiny(llama: Path) -> Tiny:
    return Tiny(load_folder(llama), load_reference(llama))


@pytest.fixture(scope="session")
def causal(llama: Path) -> Twin:
    return Twin.make(llama)


@pytest.fixture(scope="session")
def seq2seq(tmp_path_factory: pytest.TempPathFactory) -> Twin:
    """Learned positions: its encoder has as many as its decoder."""
    config = BartConfig(
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=128,
        decoder_start_token_id=START,
        **SPECIAL,
    )
    return Twin.make(save_tiny(config, tmp_path_factory.mktemp("bart")))


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> LayoutName:
    name: LayoutName = request.param
    return name
