"""Whether parameters fit the model, the prefix and the prompt, and what they become.

Pure functions; ranges that need no model were checked where the request was parsed.
"""

from __future__ import annotations

import secrets

from prefixmux_server.engine.model_info import ModelInfo
from prefixmux_server.engine.params import BeamParams, SamplingParams
from prefixmux_server.errors import InvalidParameter, InvalidRequest, PromptTooLong
from prefixmux_server.service.generation.parameters import Parameters
from prefixmux_server.service.generation.prompt import Prompt
from prefixmux_server.service.generation.room import PrefixSize, check_encoder, room, sure_room

SEEDS = 2**63


def sampling_params(
    asked: Parameters, prompt: Prompt, prefix: PrefixSize, model: ModelInfo
) -> SamplingParams:
    """Defaults filled in, a seed drawn, the model's forced tokens added.

    Raises `PromptTooLong` with no room for one token, `InvalidParameter` for what does not fit.
    """
    check_parameters(asked, model)
    max_new_tokens = _max_new_tokens(asked, prompt, prefix, model)
    _check_least(asked, max_new_tokens)
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
        no_repeat_ngram_size=asked.no_repeat_ngram_size,
        forced_bos_token_id=model.forced_bos_token_id,
        forced_eos_token_id=model.forced_eos_token_id,
        beams=_beams(asked),
        n=1 if asked.searches else asked.n,
        logprobs=asked.logprobs,
        prompt_logprobs=asked.prompt_logprobs,
    )


def check_parameters(asked: Parameters, model: ModelInfo) -> None:
    """What can be told without a prompt: the vocabulary, and what does not go together.

    Raises `InvalidParameter`.
    """
    if asked.top_k > model.vocabulary:
        raise InvalidParameter(
            f"top_k must be at most {model.vocabulary}, the model's vocabulary.",
            param="parameters.top_k",
        )
    if any(id >= model.vocabulary for id in asked.stop_token_ids):
        raise InvalidParameter(
            f"stop_token_ids must be below {model.vocabulary}, the model's vocabulary.",
            param="parameters.stop_token_ids",
        )
    if asked.max_new_tokens is not None:
        _check_least(asked, asked.max_new_tokens)
    if asked.num_return > asked.num_beams:
        name = "n" if asked.n == asked.num_return else "num_return"
        raise InvalidParameter(
            f"{name} must be at most num_beams, here {asked.num_beams}.",
            param=f"parameters.{name}",
        )
    if asked.searches:
        _check_search(asked)
    elif asked.n > 1 and asked.temperature == 0:
        raise InvalidParameter(
            "Without chance all outputs are the same: set temperature above 0, or num_beams above"
            " 1, or leave n out.",
            param="parameters.n",
        )


def check_rows(asked: Parameters, max_rows: int) -> None:
    """Raises `InvalidParameter` for more outputs or beams than a batch has rows."""
    if asked.rows > max_rows:
        name = "num_beams" if asked.searches else "n"
        raise InvalidParameter(
            f"{name} must be at most {max_rows}, the rows of a batch: ask for fewer, or start"
            " the server with a larger --max-batch-rows.",
            param=f"parameters.{name}",
        )


def check_share(asked: Parameters, max_running: int | None) -> None:
    """Raises `InvalidParameter` for more outputs or beams than their tenant may ever run."""
    if max_running is not None and asked.rows > max_running:
        name = "num_beams" if asked.searches else "n"
        raise InvalidParameter(
            f"{name} must be at most {max_running}, the rows that your tenant may run at a time.",
            param=f"parameters.{name}",
        )


def check_streamed(asked: Parameters) -> None:
    """Raises `InvalidRequest` for what has no tokens on the way."""
    if asked.searches:
        raise InvalidRequest(
            "Beams are known at the end only: leave stream out, or set num_beams to 1.",
            param="stream",
        )


def _check_least(asked: Parameters, max_new_tokens: int) -> None:
    if asked.min_new_tokens > max_new_tokens:
        raise InvalidParameter(
            f"min_new_tokens must be at most max_new_tokens, here {max_new_tokens}.",
            param="parameters.min_new_tokens",
        )


def _check_search(asked: Parameters) -> None:
    if asked.temperature > 0:
        raise InvalidParameter(
            "Beams are searched, not sampled: set temperature to 0, or num_beams to 1.",
            param="parameters.temperature",
        )
    if asked.stop:
        raise InvalidParameter(
            "Beams end at tokens, not at strings: set stop to [] and use stop_token_ids, or set"
            " num_beams to 1.",
            param="parameters.stop",
        )
    if asked.logprobs is not None:
        raise InvalidParameter(
            "Beams have a score, not log-probabilities: leave logprobs out, or set num_beams to 1.",
            param="parameters.logprobs",
        )
    if 1 < asked.n != asked.num_return:
        raise InvalidParameter(
            "With beams n and num_return say the same: give one of them.", param="parameters.n"
        )


def _beams(asked: Parameters) -> BeamParams | None:
    if not asked.searches:
        return None
    return BeamParams(
        num_beams=asked.num_beams,
        length_penalty=asked.length_penalty,
        early_stopping=asked.early_stopping,
        num_return=asked.num_return,
        length_includes_prompt=asked.beam_length_includes_prompt,
    )


def _max_new_tokens(asked: Parameters, prompt: Prompt, prefix: PrefixSize, model: ModelInfo) -> int:
    if model.family == "seq2seq":
        check_encoder(len(prompt.input_ids), prefix, model)
    tokens, param = decoder_tokens(prompt, model)
    most = room(tokens, prefix, model, asked.rows)
    # Where no token is asked for, the last of the prompt need not be fed either.
    least = 0 if asked.max_new_tokens == 0 else 1
    if most < least:
        raise PromptTooLong(
            f"The prefix and the prompt leave no room for a token: {least - most} too many.",
            param=param,
        )
    if asked.max_new_tokens is None:
        # Where none is sure, the engine knows whether there is room for as many as there may be.
        sure = sure_room(tokens, prefix, model, asked.rows)
        return min(asked.usual_new_tokens, sure if sure >= 1 else most)
    if asked.max_new_tokens > most:
        behind = "prefix and prompt"
        if asked.rows > 1:
            kind = "beams" if asked.searches else "outputs"
            behind = f"prefix, prompt and {asked.rows} {kind}"
        raise InvalidParameter(
            f"max_new_tokens must be at most {most} with this {behind}.",
            param="parameters.max_new_tokens",
        )
    return asked.max_new_tokens


def decoder_tokens(prompt: Prompt, model: ModelInfo) -> tuple[int, str]:
    """How many the decoder reads before its first, and the field that most of them are from."""
    if model.family == "seq2seq":
        return len(prompt.decoder_ids), "decoder_input"
    return len(prompt.input_ids) + len(prompt.decoder_ids), "input"
