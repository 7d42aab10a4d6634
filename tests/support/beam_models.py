"""Beam searches to hold the server's against: a tiny model that may end at any step, transformers'
own search over it, and the rules of 2020 written down a second time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PhiConfig, PhiForCausalLM

from prefixmux_server.engine.beams import BeamSearch
from prefixmux_server.engine.messages import BeamOutput
from prefixmux_server.engine.params import SamplingParams

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
    def make(cls, vocabulary: int, *, seed: int, scale: float = 3.0) -> BeamModel:
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


def search_of_2020(
    logits_of: Logits, params: SamplingParams, prompt: Sequence[int], eos: frozenset[int]
) -> list[tuple[Tokens, float]]:
    """As `_generate_beam_search` and `BeamHypotheses` of transformers 3.2 go, for one request.

    Knows end tokens, `min_new_tokens`, n-grams, and a forced last token; all sums in float64.
    """
    beams = params.beams
    assert beams is not None
    running: list[tuple[Tokens, float]] = [(tuple(prompt), 0.0)]
    kept: list[tuple[float, Tokens, bool]] = []

    def add(tokens: Tokens, total: float, ended: bool) -> None:
        score = total / len(tokens) ** beams.length_penalty
        if len(kept) < beams.num_beams or score > min(kept)[0]:
            kept.append((score, tokens, ended))
            if len(kept) > beams.num_beams:
                kept.remove(min(kept))

    done = False
    length = len(prompt)
    endings: dict[Tokens, int] = {}
    while length < len(prompt) + params.max_new_tokens and not done:
        candidates = _continuations_of_2020(logits_of, params, running, length - len(prompt), eos)
        going: list[tuple[Tokens, float]] = []
        for rank, (total, tokens) in enumerate(candidates[: 2 * beams.num_beams]):
            if tokens[-1] in eos:
                if rank < beams.num_beams:
                    endings[tokens[:-1]] = tokens[-1]
                    add(tokens[:-1], total, True)
            elif len(going) < beams.num_beams:
                going.append((tokens, total))
        if len(kept) == beams.num_beams:
            hope = candidates[0][0] / length**beams.length_penalty
            done = beams.early_stopping == "yes" or min(kept)[0] >= hope
        if done or not going:
            break
        running, length = going, length + 1
    else:
        for tokens, total in running:
            add(tokens, total, False)
    answers = [
        ((*tokens[len(prompt) :], *([endings[tokens]] if ended else [])), score)
        for score, tokens, ended in sorted(kept, reverse=True)
    ]
    return answers[: beams.num_return]


def _continuations_of_2020(
    logits_of: Logits,
    params: SamplingParams,
    running: Sequence[tuple[Tokens, float]],
    made: int,
    eos: frozenset[int],
) -> list[tuple[float, Tokens]]:
    """All that may follow, the best first."""
    found = []
    table = logits_of([tokens for tokens, _ in running]).double().log_softmax(-1).tolist()
    size = params.no_repeat_ngram_size
    for (tokens, total), row in zip(running, table, strict=True):
        grams = {tokens[i : i + size] for i in range(len(tokens) - size + 1)}
        for token, gain in enumerate(row):
            if made < params.min_new_tokens and token in eos:
                continue
            if size and (*tokens, token)[-size:] in grams:
                continue
            if params.forced_eos_token_id is not None and made == params.max_new_tokens - 1:
                if token != params.forced_eos_token_id:
                    continue
                gain = 0.0
            found.append((total + gain, (*tokens, token)))
    return sorted(found, reverse=True)
