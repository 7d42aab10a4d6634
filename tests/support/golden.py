"""The golden file: tiny models, prefixes, and what PEFT answered."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

CAUSAL = ("gpt2", "llama", "qwen2", "qwen3", "mistral", "opt", "gpt_neox", "phi")
METHODS = ("none", "PREFIX_TUNING", "CARTRIDGE", "native_prefix")


@dataclass(frozen=True)
class Golden:
    """`root` is the golden folder."""

    root: Path

    @cached_property
    def content(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.root / "golden.json").read_text())
        return loaded

    @cached_property
    def logits(self) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = load_file(self.root / "logits.safetensors")
        return tensors

    def cases(self, model: str, methods: Iterable[str] = METHODS) -> list[dict[str, Any]]:
        """The greedy cases of one model."""
        return [
            case
            for case in self.content["cases"]
            if case["model"] == model
            and case["method"] in tuple(methods)
            and "num_beams" not in case["generation"]
        ]

    def refused(self, model: str) -> list[dict[str, Any]]:
        kv = ("PREFIX_TUNING", "CARTRIDGE")
        adapters = self.content["adapters"]
        return [
            case
            for case in self.content["refused"]
            if case["model"] == model and adapters[case["adapter"]]["method"] in kv
        ]

    def prefix(self, adapter: str) -> torch.Tensor:
        """`[L, 2, P, H_kv, D]`, read without our own importer."""
        folder = self.root / "adapters" / adapter
        if (folder / "prefix.safetensors").exists():
            return torch.as_tensor(load_file(folder / "prefix.safetensors")["decoder"])
        config = json.loads((folder / "adapter_config.json").read_text())
        stored = load_file(folder / "adapter_model.safetensors")["prompt_embeddings"]
        flat = torch.as_tensor(stored).float()
        layers, heads = config["num_layers"], config["num_attention_heads"]
        width = config["token_dim"] // heads
        split = flat.view(flat.shape[0], layers, 2, heads, width)
        return split.permute(1, 2, 0, 3, 4).contiguous()
