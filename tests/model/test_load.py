"""What a loaded model tells others of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from model.configs import EVERY, POSITIONS, SEQ2SEQ
from model.conftest import Saved
from support.models import EOS, GATED, VOCABULARY, load_folder, save_tiny
from transformers import GPT2Config, LlamaConfig, MarianConfig, OPTConfig

from prefixmux_server.model.dense import PackedLinear
from prefixmux_server.model.errors import UnsupportedModelError
from prefixmux_server.model.load import LoadedModel


@pytest.mark.parametrize("family", EVERY)
def test_family_and_sites(family: str, saved: Saved) -> None:
    loaded = load_folder(saved(family))
    encodes = family in SEQ2SEQ
    assert loaded.family == ("seq2seq" if encodes else "causal")
    assert set(loaded.specs) == ({"encoder", "decoder", "cross"} if encodes else {"decoder"})
    assert loaded.vocabulary == VOCABULARY
    assert loaded.hidden == loaded.embedding_width == 32


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_positions_of_both_sides(family: str, saved: Saved) -> None:
    """T5 tells distances, so nothing is too far."""
    loaded = load_folder(saved(family))
    limit = None if "t5" in family else POSITIONS
    assert (loaded.context, loaded.encoder_context) == (limit, limit)


def test_a_decoder_has_no_encoder_to_limit(saved: Saved) -> None:
    loaded = load_folder(saved("gpt2"))
    assert (loaded.context, loaded.encoder_context) == (512, None)


def test_embeddings_may_be_narrower_than_the_model(tmp_path: Path) -> None:
    config = OPTConfig(
        hidden_size=32,
        word_embed_proj_dim=16,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
        do_layer_norm_before=False,
    )
    loaded = load_folder(save_tiny(config, tmp_path))
    assert (loaded.hidden, loaded.embedding_width) == (32, 16)


def test_ids_must_be_known_to_encoder_and_decoder(tmp_path: Path) -> None:
    config = MarianConfig(
        **SEQ2SEQ["marian"]().to_diff_dict()
        | {"decoder_vocab_size": 90, "share_encoder_decoder_embeddings": False}
    )
    assert load_folder(save_tiny(config, tmp_path)).vocabulary == 90


class TestSpecialTokens:
    """As `generate` of transformers takes them: from the generation config first."""

    def load(self, folder: Path, generation: dict[str, Any] | None, **changed: Any) -> LoadedModel:
        save_tiny(SEQ2SEQ["bart"](), folder)
        config = folder / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | changed))
        file = folder / "generation_config.json"
        if generation is None:
            file.unlink()
        else:
            file.write_text(json.dumps(generation))
        return load_folder(folder)

    def test_of_the_generation_config(self, tmp_path: Path) -> None:
        loaded = self.load(
            tmp_path,
            {
                "eos_token_id": [7, 8],
                "bos_token_id": 5,
                "decoder_start_token_id": 6,
                "forced_bos_token_id": 9,
                "forced_eos_token_id": [8],
            },
        )
        assert loaded.eos_token_ids == (7, 8)
        assert loaded.bos_token_id == 5
        assert loaded.decoder_start_token_id == 6
        assert (loaded.forced_bos_token_id, loaded.forced_eos_token_id) == (9, 8)

    def test_what_it_lacks_is_in_the_models_config_but_nothing_is_forced(
        self, tmp_path: Path
    ) -> None:
        loaded = self.load(tmp_path, {"bos_token_id": 5}, forced_eos_token_id=EOS)
        assert loaded.eos_token_ids == (EOS,)
        assert (loaded.bos_token_id, loaded.decoder_start_token_id) == (5, 2)
        assert (loaded.forced_bos_token_id, loaded.forced_eos_token_id) == (None, None)

    def test_without_one_it_is_made_of_the_models_config(self, tmp_path: Path) -> None:
        loaded = self.load(tmp_path, None, forced_eos_token_id=EOS, forced_bos_token_id=4)
        assert loaded.decoder_start_token_id == 2
        assert (loaded.forced_bos_token_id, loaded.forced_eos_token_id) == (4, EOS)

    def test_a_decoder_needs_no_start(self, saved: Saved) -> None:
        loaded = load_folder(saved("llama"))
        assert (loaded.bos_token_id, loaded.decoder_start_token_id) == (1, None)
        assert loaded.tokenizer is None


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_all_dense_layers_are_packed(family: str, saved: Saved) -> None:
    """T5 asks its last layers for the type of their weights; a gate's activation is fused."""
    loaded = load_folder(saved(family))
    assert loaded.dense.kept == {}
    gates = 5 if family == "mt5" else 0
    assert len(loaded.dense.fused) == gates
    head = loaded.module.get_output_embeddings()
    assert isinstance(head, PackedLinear)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**{**GATED, "max_position_embeddings": 8}),
        GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=11, vocab_size=97),
    ],
    ids=["llama", "gpt2"],
)
def test_too_few_positions_to_be_proven(config: Any, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="needs at least 12"):
        load_folder(save_tiny(config, tmp_path))
