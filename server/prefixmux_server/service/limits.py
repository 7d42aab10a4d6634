"""Whether a prompt and its parameters fit the model and the prefix, and what they become.

Pure functions of the request, the prefix's size and `ModelInfo`; ranges that need no model were
checked where the request was parsed.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from prefixmux_server.engine.messages import ModelInfo
from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.errors import InvalidParameter, InvalidRequest, PromptTooLong
from prefixmux_server.service.request import Parameters

DEFAULT_MAX_NEW_TOKENS = 128
SEEDS = 2**63


@dataclass(frozen=True)
class PrefixSize:
    """`tokens` of KV memory, and how far the prefix shifts the positions of the real tokens."""

    tokens: int = 0
    position_offset: int = 0


def check_prompt(input_ids: tuple[int, ...], model: ModelInfo) -> None:
    """Raises `InvalidRequest` unless there is a token and every id is in the vocabulary."""
    if not input_ids:
        raise InvalidRequest("The input has no tokens; send at least one.", param="input")
    if min(input_ids) < 0 or max(input_ids) >= model.vocabulary:
        raise InvalidRequest(
            f"Token ids must be from 0 to {model.vocabulary - 1}, the model's vocabulary.",
            param="input",
        )


def room(prompt_tokens: int, prefix: PrefixSize, model: ModelInfo) -> int:
    """How many tokens can be generated; may be negative.

    The last token needs no position of its own: it is sampled, never fed.
    """
    by_memory = model.capacity_tokens - prefix.tokens - prompt_tokens
    if model.context is None:
        return by_memory
    by_position = model.context - prefix.position_offset - prompt_tokens + 1
    return min(by_memory, by_position)


def sampling_params(
    asked: Parameters, prompt_tokens: int, prefix: PrefixSize, model: ModelInfo
) -> SamplingParams:
    """Defaults filled in, a seed drawn.

    Raises `PromptTooLong` with no room for one token, `InvalidParameter` for what does not fit.
    """
    max_new_tokens = _max_new_tokens(asked.max_new_tokens, room(prompt_tokens, prefix, model))
    if asked.min_new_tokens > max_new_tokens:
        raise InvalidParameter(
            f"min_new_tokens must be at most max_new_tokens, here {max_new_tokens}.",
            param="parameters.min_new_tokens",
        )
    _check_vocabulary(asked, model.vocabulary)
    return SamplingParams(
        max_new_tokens=max_new_tokens,
        min_new_tokens=asked.min_new_tokens,
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        min_p=asked.min_p,
        repetition_penalty=asked.repetition_penalty,
        frequency_penalty=asked.frequency_penalty,
        presence_penalty=asked.presence_penalty,
        seed=secrets.randbelow(SEEDS) if asked.seed is None else asked.seed,
        stop_token_ids=asked.stop_token_ids,
        ignore_eos=asked.ignore_eos,
    )


def _max_new_tokens(asked: int | None, room: int) -> int:
    if room < 1:
        raise PromptTooLong(
            f"The prefix and the prompt leave no room for a token: {1 - room} too many.",
            param="input",
        )
    if asked is None:
        return min(DEFAULT_MAX_NEW_TOKENS, room)
    if asked > room:
        raise InvalidParameter(
            f"max_new_tokens must be at most {room} with this prefix and prompt.",
            param="parameters.max_new_tokens",
        )
    return asked


def _check_vocabulary(asked: Parameters, vocabulary: int) -> None:
    if asked.top_k > vocabulary:
        raise InvalidParameter(
            f"top_k must be at most {vocabulary}, the model's vocabulary.",
            param="parameters.top_k",
        )
    if any(id >= vocabulary for id in asked.stop_token_ids):
        raise InvalidParameter(
            f"stop_token_ids must be below {vocabulary}, the model's vocabulary.",
            param="parameters.stop_token_ids",
        )
