"""The golden files: tiny models, prefixes, and what PEFT answered, read without code of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from support.slow import Asked, Piece

MODELS = {
    "causal": ("gpt2", "llama", "qwen2", "qwen3", "mistral", "opt", "gpt_neox", "phi"),
    "seq2seq": ("bart", "mbart", "pegasus", "marian", "t5", "mt5"),
}
NAMES = (*MODELS["causal"], *MODELS["seq2seq"])

Case = Mapping[str, Any]

_EMBEDDINGS = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING")
NATIVE = {
    "native_prefix": "PREFIX_TUNING",
    "three_site": "PREFIX_TUNING",
    "infix": "INFIX_TUNING",
}


@dataclass(frozen=True)
class Golden:
    """`root` is the golden folder."""

    root: Path

    @cached_property
    def content(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.root / "golden.json").read_text())
        return loaded

    @cached_property
    def logits(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = load_file(self.root / "logits.safetensors")
        return tensors

    def model(self, name: str) -> Path:
        return self.root / "models" / name

    def cases(self, model: str) -> list[Case]:
        return [case for case in self.content["cases"] if case["model"] == model]

    def refused(self, model: str) -> list[Case]:
        """Completed to cases: with method, inputs, and the offsets that the adapter brings."""
        found = [case for case in self.content["refused"] if case["model"] == model]
        return [self._complete(number, case) for number, case in enumerate(found)]

    def first_logits(self, case: Case) -> Tensor:
        """Raw, for the first new token; of a beam search there are none."""
        stored = self.logits[case["id"]]
        return stored[0] if stored.ndim == 2 else stored

    def piece(self, case: Case) -> Piece:
        """The case's prefix as its files and the written rules say."""
        folder, method = self.root / "adapters" / case["adapter"], case["method"]
        if method in NATIVE:
            sites = load_file(folder / "prefix.safetensors")
            return Piece(NATIVE[method], sites, offset_of(case))
        config = json.loads((folder / "adapter_config.json").read_text())
        stored = load_file(folder / "adapter_model.safetensors")
        if method in _EMBEDDINGS:
            rows = _embeddings(stored, case.get("task_id"))
            return Piece(method, embeddings=rows[: config["num_virtual_tokens"]])
        pairs = _pairs(stored["prompt_embeddings"].float(), config)
        if case["family"] == "seq2seq":
            pairs = _doubled(pairs, self._decoder_layers(case["model"]))
        return Piece(method, {"decoder": pairs}, offset_of(case))

    def asked(self, case: Case) -> Asked:
        """The case as one greedy request."""
        ids, at = tuple(case["input_ids"]), case.get("infix_at", len(case["input_ids"]))
        generation = case["generation"]
        return Asked(
            input_ids=ids[:at],
            decoder_ids=(*case.get("decoder_start_ids", ()), *ids[at:]),
            max_new_tokens=case["max_new_tokens"],
            pieces=() if case["adapter"] is None else (self.piece(case),),
            eos=(case["eos_token_id"],),
            forced_bos=generation.get("forced_bos_token_id"),
            forced_eos=generation.get("forced_eos_token_id"),
        )

    def _decoder_layers(self, model: str) -> int:
        config = json.loads((self.model(model) / "config.json").read_text())
        return int(config.get("decoder_layers") or config["num_decoder_layers"])

    def _complete(self, number: int, case: Case) -> Case:
        adapter = self.content["adapters"][case["adapter"]]
        family = self.content["models"][case["model"]]["family"]
        kv = adapter["method"] not in _EMBEDDINGS
        shift = case["prefix_tokens"] if kv or family == "causal" else 0
        return {
            **case,
            "id": f"{case['model']}/refused-{number}",
            "family": family,
            "method": adapter["method"],
            "input_ids": [3 + number] * case["prompt_tokens"],
            "decoder_start_ids": [2] if family == "seq2seq" else [],
            "position_offset": shift if family == "causal" else {"decoder": shift},
            "generation": {"do_sample": False},
            "eos_token_id": 2,
        }


def is_beam(case: Case) -> bool:
    return "num_beams" in case["generation"]


def offset_of(case: Case) -> int:
    """By how much the decoder's real tokens are shifted."""
    offset = case["position_offset"]
    return int(offset["decoder"] if isinstance(offset, Mapping) else offset)


def _pairs(flat: Tensor, config: Mapping[str, Any]) -> Tensor:
    """`[P, 2L * H * D]`, row 2l keys and 2l + 1 values of layer l, as `[L, 2, P, H, D]`."""
    layers, heads = config["num_layers"], config["num_attention_heads"]
    width = config["token_dim"] // heads
    split = flat.view(flat.shape[0], layers, 2, heads, width)
    return split.permute(1, 2, 0, 3, 4).contiguous()


def _doubled(pairs: Tensor, layers: int) -> Tensor:
    """What PEFT's doubling for two submodules leaves: layer l reads slot 2l mod L."""
    return torch.stack([pairs[(2 * layer) % len(pairs)] for layer in range(layers)])


def _embeddings(stored: Mapping[str, Tensor], task: int | None) -> Tensor:
    rows = stored["prompt_embeddings"].float()
    if task is None:
        return rows
    return rows * (stored["prefix_task_cols"][task] @ stored["prefix_task_rows"][task])
