"""Folders that are no servable model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import load_folder

from prefixmux_server.model.errors import UnsupportedModelError


class TestFolders:
    """A folder that is no servable model is refused in words, not with whatever broke."""

    def broken(self, llama: Path, folder: Path) -> Path:
        for file in llama.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    def refused(self, folder: Path) -> str:
        with pytest.raises(UnsupportedModelError) as caught:
            load_folder(folder)
        return str(caught.value)

    def test_empty(self, tmp_path: Path) -> None:
        assert "config.json" in self.refused(tmp_path)

    def test_without_weights(self, llama: Path, tmp_path: Path) -> None:
        folder = self.broken(llama, tmp_path)
        (folder / "model.safetensors").unlink()
        assert "safetensors" in self.refused(folder)

    def test_with_pickled_weights_only(self, llama: Path, tmp_path: Path) -> None:
        folder = self.broken(llama, tmp_path)
        weights = load_file(folder / "model.safetensors")
        torch.save(weights, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        assert "safetensors" in self.refused(folder)

    @pytest.mark.parametrize(
        "content",
        ["", "{", "[]", "null", '"text"', "{}", '{"model_type": "nonsense"}', '{"model_type": 5}'],
    )
    def test_with_a_broken_config(self, llama: Path, tmp_path: Path, content: str) -> None:
        folder = self.broken(llama, tmp_path)
        (folder / "config.json").write_text(content)
        assert "config.json" in self.refused(folder)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("hidden_size", "wide"),
            ("hidden_size", 48),
            ("num_attention_heads", 0),
            ("num_attention_heads", 3),
            ("vocab_size", 50),
            ("num_hidden_layers", 3),
            ("tie_word_embeddings", "perhaps"),
            ("hidden_act", "nonsense"),
        ],
    )
    def test_with_a_config_of_another_model(
        self, llama: Path, tmp_path: Path, field: str, value: object
    ) -> None:
        """Also where transformers would make up the weights that are missing."""
        folder = self.broken(llama, tmp_path)
        config = json.loads((folder / "config.json").read_text())
        config[field] = value
        (folder / "config.json").write_text(json.dumps(config))
        assert self.refused(folder)

    def test_with_a_tensor_missing(self, llama: Path, tmp_path: Path) -> None:
        """Random weights in its place would be served without a word."""
        folder = self.broken(llama, tmp_path)
        weights = load_file(folder / "model.safetensors")
        del weights["model.layers.1.mlp.up_proj.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        assert "model.layers.1.mlp.up_proj.weight" in self.refused(folder)

    @pytest.mark.parametrize("size", [0, 7, 100, 5000])
    def test_with_truncated_weights(self, llama: Path, tmp_path: Path, size: int) -> None:
        folder = self.broken(llama, tmp_path)
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:size])
        assert "safetensors" in self.refused(folder)

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"version": "1.0", "model": 5}'])
    def test_with_a_broken_tokenizer(self, llama: Path, tmp_path: Path, content: str) -> None:
        """Then token ids are served, and no text."""
        folder = self.broken(llama, tmp_path)
        (folder / "tokenizer.json").write_text(content)
        assert load_folder(folder).tokenizer is None
