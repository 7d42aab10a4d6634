"""From the messages of a conversation to the prompt of a request.

The model's chat template makes it, if there is one; special tokens are the template's alone: what
it renders is encoded without any, so that none stands there twice. Of a model without one, a
task's own template can take one message of a user, as it takes any input.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from prefixmux_server.engine.model_info import TokenizerInfo
from prefixmux_server.errors import InvalidRequest, TokenizerUnavailable
from prefixmux_server.service.generation.preparation import Known, Preparation
from prefixmux_server.service.generation.request import GenerationRequest
from prefixmux_server.service.tenants.tenant import Tenant
from prefixmux_server.service.text.chat_template import (
    ChatTemplate,
    Message,
    TemplateRefused,
    TemplateUnusable,
)

PARAM = "messages"
MAX_WORDS = 200


class ChatService:
    """Keeps the compiled template of the tokenizer that was asked for last."""

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._lock = threading.Lock()
        self._last: tuple[TokenizerInfo, ChatTemplate] | None = None

    async def prompted(
        self, tenant: Tenant, request: GenerationRequest, messages: Sequence[Message]
    ) -> GenerationRequest:
        """The request with what the messages make as its input, in token ids.

        Raises `TokenizerUnavailable`, and `InvalidRequest` where there is no template or it
        refuses, beside what `prompt_of` raises.
        """
        return await self._preparation.of(tenant, request, lambda known: self._ids(known, messages))

    def _ids(self, known: Known, messages: Sequence[Message]) -> GenerationRequest:
        info = known.ready.tokenizer
        if info is None or known.codec is None:
            raise TokenizerUnavailable(
                "This model has no tokenizer to write messages with; send token ids to /generate.",
                param=PARAM,
            )
        if info.chat_template is None:
            return _only(known, messages)
        text = _rendered(self._template(info, info.chat_template), messages)
        bos = info.special_tokens.get("bos_token", "")
        if known.target.has_text:
            # The task's own text comes before it, and has begun already.
            text = text.removeprefix(bos)
        return replace(known.request, input=known.codec.plain(text))

    def _template(self, info: TokenizerInfo, source: str) -> ChatTemplate:
        with self._lock:
            if self._last is None or self._last[0] is not info:
                self._last = (info, _compiled(source, info))
            return self._last[1]


def _only(known: Known, messages: Sequence[Message]) -> GenerationRequest:
    """The one message, in the task's template."""
    if known.target.defaults.template is None:
        raise InvalidRequest(
            "This model has no chat template: send the text to /v1/completions, or upload the task"
            " with a template, which then takes one message.",
            param=PARAM,
        )
    if len(messages) != 1 or messages[0]["role"] != "user" or not messages[0]["content"]:
        raise InvalidRequest(
            "This model has no chat template, and the task's takes one message: send one text of"
            " the role user.",
            param=PARAM,
        )
    return replace(known.request, input=messages[0]["content"])


def _compiled(source: str, info: TokenizerInfo) -> ChatTemplate:
    try:
        return ChatTemplate(source, info.special_tokens)
    except TemplateUnusable:
        raise InvalidRequest(
            "This model's chat template is broken: send the text to /v1/completions.", param=PARAM
        ) from None


def _rendered(template: ChatTemplate, messages: Sequence[Message]) -> str:
    try:
        return template.render(messages)
    except TemplateRefused as refused:
        words = " ".join(refused.said.split())[:MAX_WORDS].rstrip(".")
        message = f"The model's chat template refuses these messages: {words}."
    except TemplateUnusable:
        message = "The model's chat template cannot render these messages; change their roles."
    raise InvalidRequest(message, param=PARAM) from None
