"""From a request's texts and ids to the tokens that the model is to read.

Owns what stands around a text: the version's template, the special tokens, and what a decoder
begins with. Whether the tokens fit is `limits.py`'s question.
"""

from __future__ import annotations

from dataclasses import dataclass

from prefixmux_server.engine.model_info import ModelInfo
from prefixmux_server.errors import InvalidRequest, PromptTooLong, TokenizerUnavailable
from prefixmux_server.service.generation.request import GenerationRequest, TokenInput
from prefixmux_server.service.generation.target import Target
from prefixmux_server.service.text.template import MAX_CHARACTERS, fill, filled_size
from prefixmux_server.service.text.text import TextCodec
from prefixmux_store.checks import INPUT


@dataclass(frozen=True)
class Prompt:
    """`input_ids` and `decoder_ids` as in `Submit`; `tokens` are those that the caller gave."""

    input_ids: tuple[int, ...]
    decoder_ids: tuple[int, ...]
    tokens: int


def prompt_of(
    request: GenerationRequest, target: Target, codec: TextCodec | None, model: ModelInfo
) -> Prompt:
    """Raises `InvalidRequest`, `TokenizerUnavailable`, `PromptTooLong` for a text beyond any
    model; their `param` names the field."""
    input_ids = _input_ids(request.input, target, codec, model)
    check_ids(input_ids, model, "input")
    given = _decoder_input(request.decoder_input, target, codec, model)
    decoder_ids = _decoder_start(target, model, given) + given
    return Prompt(input_ids, decoder_ids, len(input_ids) + len(given))


def check_ids(token_ids: tuple[int, ...], model: ModelInfo, param: str) -> None:
    """Raises `InvalidRequest` unless there is a token and every id is in the vocabulary."""
    if not token_ids:
        raise InvalidRequest(f"The {param} has no tokens; send at least one.", param=param)
    if min(token_ids) < 0 or max(token_ids) >= model.vocabulary:
        raise InvalidRequest(
            f"Token ids must be from 0 to {model.vocabulary - 1}, the model's vocabulary.",
            param=param,
        )


def begins_decoder(model: ModelInfo) -> tuple[int, ...]:
    """The token that an encoder-decoder model's decoder begins with, if it names one."""
    start = model.decoder_start_token_id
    return () if start is None else (start,)


def _input_ids(
    given: TokenInput, target: Target, codec: TextCodec | None, model: ModelInfo
) -> tuple[int, ...]:
    if not isinstance(given, str):
        return given
    codec = needed(codec, "input")
    text = _filled(target.defaults.template, given)
    _check_length(text, codec, model, "input")
    return codec.following(text) if target.has_text else codec.encode(text)


def _check_length(text: str, codec: TextCodec, model: ModelInfo, param: str) -> None:
    """Before a text is tokenised that no tokens could make fit: that takes a second a megabyte."""
    least = codec.least_tokens(text)
    if model.context is not None and least > model.context:
        raise PromptTooLong(
            f"The {param} has at least {least} tokens, the model's context {model.context}: send"
            " less.",
            param=param,
        )


def _filled(template: str | None, given: str) -> str:
    if template is None:
        return given
    if filled_size(template, {INPUT: given}) > MAX_CHARACTERS:
        raise PromptTooLong(
            f"The task's template and the input make a text of more than {MAX_CHARACTERS}"
            " characters.",
            param="input",
        )
    return fill(template, {INPUT: given})


def _decoder_input(
    given: TokenInput | None, target: Target, codec: TextCodec | None, model: ModelInfo
) -> tuple[int, ...]:
    if given is None:
        return ()
    if model.family == "causal" and not target.has_infix:
        raise InvalidRequest(
            "decoder_input is for encoder-decoder models and for infixes; here all of the prompt"
            " is input.",
            param="decoder_input",
        )
    if isinstance(given, str):
        codec = needed(codec, "decoder_input")
        _check_length(given, codec, model, "decoder_input")
        ids = codec.plain(given)
    else:
        ids = given
    check_ids(ids, model, "decoder_input")
    return ids


def _decoder_start(target: Target, model: ModelInfo, given: tuple[int, ...]) -> tuple[int, ...]:
    """What stands before the caller's own: the start token, or BOS in its place behind an infix."""
    if model.family == "seq2seq":
        start = begins_decoder(model)
    elif target.has_infix and not given:
        start = () if model.bos_token_id is None else (model.bos_token_id,)
    else:
        return ()
    if not start and not given:
        raise InvalidRequest(
            "This model names no token to begin with; send decoder_input.", param="decoder_input"
        )
    return start


def needed(codec: TextCodec | None, param: str) -> TextCodec:
    """Raises `TokenizerUnavailable` where there is none."""
    if codec is None:
        raise TokenizerUnavailable(
            f"This model has no tokenizer; send the {param} as token ids.", param=param
        )
    return codec
