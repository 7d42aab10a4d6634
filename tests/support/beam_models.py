"""A tiny model that may end at any step, with the server's beam search and transformers' own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PhiConfig, PhiForCausalLM

from prefixmux_server.engine.messages import BeamOutput
from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.engine.sampling.beams import BeamSearch

Tokens = tuple[int, ...]
Logits = Callable[[Sequence[Tokens]], Tensor]
"""From whole sequences of one length to the logits `[n, vocabulary]` of their next tokens."""

_EARLY = {"yes": True, "no": False, "never": "never"}
_DEAD = -1e8
"""transformers fills up with sequences of scores below this, which nothing stands behind."""


def search(
    logits_of: Logits, params: SamplingParams, prompt: Sequence[int], eos: frozenset[int]
) -> tuple[BeamOutput, ...]:
    """The server's search, every step over whole sequences."""
    beams = BeamSearch(params, prompt, eos)
    running: list[Tokens] = [tuple(prompt)]
    while True:
        assert beams.width == len(running)
        step = beams.advance(logits_of(running))
        if step is None:
            return beams.results()
        pairs = zip(step.parents, step.tokens, strict=True)
        running = [(*running[parent], token) for parent, token in pairs]


@dataclass(frozen=True)
class BeamModel:
    """In float64, so that no near tie is ever decided by rounding."""

    module: PhiForCausalLM

    @classmethod
    def make(cls, vocabulary: int, *, seed: int, scale: float = 25.0) -> BeamModel:
        """`scale` makes logits differ by a few units: else the shortest answer always wins."""
        torch.manual_seed(seed)
        config = PhiConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=64,
            eos_token_id=None,
            bos_token_id=None,
            pad_token_id=0,
        )
        module = PhiForCausalLM(config).double().eval()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(scale if parameter.ndim > 1 else 1)
        return cls(module)

    def favour(self, tokens: frozenset[int], bias: float) -> None:
        """Raise the logits of `tokens`, and of no others."""
        with torch.no_grad():
            self.module.lm_head.bias.zero_()
            self.module.lm_head.bias[sorted(tokens)] = bias

    @torch.inference_mode()
    def logits(self, sequences: Sequence[Tokens]) -> Tensor:
        output = self.module(input_ids=torch.tensor(sequences), use_cache=False)
        return torch.as_tensor(output.logits[:, -1])

    def generate(
        self, params: SamplingParams, prompt: Sequence[int], eos: frozenset[int]
    ) -> list[tuple[Tokens, float]]:
        """New tokens and score of transformers' search; what nothing stands behind is left out."""
        beams = params.beams
        assert beams is not None
        ends = sorted((frozenset() if params.ignore_eos else eos).union(params.stop_token_ids))
        options: dict[str, Any] = {
            "num_beams": beams.num_beams,
            "num_return_sequences": beams.num_return,
            "length_penalty": beams.length_penalty,
            "early_stopping": _EARLY[beams.early_stopping],
            "max_new_tokens": params.max_new_tokens,
            "min_new_tokens": params.min_new_tokens,
            "repetition_penalty": params.repetition_penalty,
            "no_repeat_ngram_size": params.no_repeat_ngram_size,
            "forced_bos_token_id": params.forced_bos_token_id,
            "forced_eos_token_id": params.forced_eos_token_id,
            "eos_token_id": ends or None,
        }
        if beams.num_beams == 1:
            # One beam is greedy search to transformers, unless it is told what to run.
            options["custom_generate"] = PhiForCausalLM._beam_search
        output = self.module.generate(
            torch.tensor([list(prompt)]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            use_cache=False,
            return_dict_in_generate=True,
            output_scores=True,
            logits_processor=LogitsProcessorList([_Counted(params, len(prompt))]),
            **options,
        )
        found = zip(output.sequences.tolist(), output.sequences_scores.tolist(), strict=True)
        return [
            (_until_end(ids[len(prompt) :], ends, params.max_new_tokens), score)
            for ids, score in found
            if score > _DEAD
        ]


class _Counted(LogitsProcessor):  # type: ignore[misc]
    """Frequency and presence penalties, which transformers does not have.

    It calls them last, where a token may be forced already: that one is left as it is.
    """

    def __init__(self, params: SamplingParams, prompt: int) -> None:
        self._params = params
        self._prompt = prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.clone()
        if int(scores[0].isfinite().sum()) == 1:
            return scores
        for row, ids in zip(scores, input_ids.tolist(), strict=True):
            for token, times in Counter(ids[self._prompt :]).items():
                row[token] -= self._params.frequency_penalty * times
                row[token] -= self._params.presence_penalty
        return scores


def _until_end(tokens: Sequence[int], ends: Sequence[int], longest: int) -> Tokens:
    """Without what transformers fills up with behind an end token."""
    for at, token in enumerate(tokens):
        if token in ends:
            return tuple(tokens[: at + 1])
    assert len(tokens) == longest
    return tuple(tokens)
