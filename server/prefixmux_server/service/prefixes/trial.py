"""The trial forward of what is to be stored: as a request would run it, one token long."""

from __future__ import annotations

from prefixmux_server.engine.front import EngineFront
from prefixmux_server.engine.messages import EngineError
from prefixmux_server.engine.model_info import ModelInfo
from prefixmux_server.errors import Relayed
from prefixmux_server.service.generation.prompt import begins_decoder
from prefixmux_store.content import Content
from prefixmux_store.errors import InvalidPrefix
from prefixmux_store.meta import INFIX_METHODS


async def run_trial(
    engine: EngineFront, tenant: str, content: Content, model: ModelInfo
) -> EngineError | None:
    """None: its logits are finite."""
    return await engine.probe(tenant, content.digests, _decoder_ids(content, model))


def check_trial(error: EngineError | None) -> None:
    """Raises what the trial found."""
    if error is None:
        return
    if error.code == "non_finite_output":
        raise InvalidPrefix(
            "non_finite", "A trial forward with this prefix gave values that are not finite."
        )
    if error.code == "prompt_too_long":
        raise _too_long("leaves no room in KV memory for a request", "--kv-tokens")
    if error.reason == "too_long":
        raise _too_long("is larger than all memory for prefixes", "--prefix-host-bytes")
    raise Relayed(error.code, error.message)


def _too_long(why: str, flag: str) -> InvalidPrefix:
    return InvalidPrefix(
        "too_long",
        f"The prefix {why}: use fewer tokens, or start the server with a larger {flag}.",
    )


def _decoder_ids(content: Content, model: ModelInfo) -> tuple[int, ...]:
    """As a request would have them; which token it is does not matter."""
    if model.family == "seq2seq":
        return begins_decoder(model) or (0,)
    methods = {part.method for part in content.parts or ()} | {content.method}
    return (model.bos_token_id or 0,) if methods & INFIX_METHODS else ()
