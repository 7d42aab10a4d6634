"""From the messages of a conversation to the prompt of a request.

Special tokens are the template's alone: what it renders is encoded without any, so that none
stands there twice.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from prefixmux_server.engine.messages import TokenizerInfo
from prefixmux_server.errors import InvalidRequest, TokenizerUnavailable
from prefixmux_server.service.chat_template import (
    ChatTemplate,
    Message,
    TemplateRefused,
    TemplateUnusable,
)
from prefixmux_server.service.preparation import Known, Preparation
from prefixmux_server.service.request import GenerationRequest
from prefixmux_server.service.tenant import Tenant

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

        A task's own template has no part in it: it stands around plain texts. Raises
        `TokenizerUnavailable`, and `InvalidRequest` where there is no template or it refuses.
        """
        return await self._preparation.of(tenant, request, lambda known: self._ids(known, messages))

    def _ids(self, known: Known, messages: Sequence[Message]) -> GenerationRequest:
        info = known.ready.tokenizer
        if info is None or known.codec is None:
            raise TokenizerUnavailable(
                "This model has no tokenizer to write messages with; send token ids to /generate.",
                param=PARAM,
            )
        text = _rendered(self._template(info), messages)
        bos = info.special_tokens.get("bos_token", "")
        if known.target.has_text:
            # The task's own text comes before it, and has begun already.
            text = text.removeprefix(bos)
        return replace(known.request, input=known.codec.plain(text))

    def _template(self, info: TokenizerInfo) -> ChatTemplate:
        if info.chat_template is None:
            raise InvalidRequest(
                "This model has no chat template: send the text to /v1/completions, or put a"
                " chat_template into the files of the model's tokenizer.",
                param=PARAM,
            )
        with self._lock:
            if self._last is None or self._last[0] is not info:
                self._last = (info, _compiled(info.chat_template, info))
            return self._last[1]


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
