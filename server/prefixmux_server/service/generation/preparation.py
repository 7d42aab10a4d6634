"""What has to be known of a request before it runs: which versions it is of, and its tokens.

For APIs that answer more than was generated, or build one prompt out of several pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from prefixmux_server.engine.messages import Ready
from prefixmux_server.service.generation.generation import GenerationService
from prefixmux_server.service.generation.prompt import Prompt, needed, prompt_of
from prefixmux_server.service.generation.request import GenerationRequest, PartName
from prefixmux_server.service.generation.target import Target, resolve
from prefixmux_server.service.tenants.tenant import Tenant
from prefixmux_server.service.text.codecs import Codecs
from prefixmux_server.service.text.text import TextCodec
from prefixmux_store.store import PrefixStore

T = TypeVar("T")


@dataclass(frozen=True)
class Known:
    """A request that names its versions, what they are, and the model that will serve it."""

    request: GenerationRequest
    target: Target
    ready: Ready
    codec: TextCodec | None

    def prompt(self) -> Prompt:
        """Raises what `prompt_of` does."""
        return prompt_of(self.request, self.target, self.codec, self.ready.model)


@dataclass(frozen=True)
class Tokenised:
    """A request with its input in token ids; `text` is the input as given, or what its ids say."""

    request: GenerationRequest
    token_ids: tuple[int, ...]
    text: str


class Preparation:
    """Thread-safe. Whatever is activated later, a request runs with what was found here."""

    def __init__(self, generation: GenerationService, store: PrefixStore, codecs: Codecs) -> None:
        self._generation = generation
        self._store = store
        self._codecs = codecs

    async def begin(
        self, tenant: Tenant, request_id: str, work: Callable[[Ready, TextCodec | None], T]
    ) -> T:
        """`work` that has to know the model alone, done in a thread. Raises what it raises, and
        what `GenerationService.aside` does."""
        request = GenerationRequest(input="", request_id=request_id)
        return await self._generation.aside(
            tenant, request, lambda ready: work(ready, self._codecs.of(ready))
        )

    async def of(self, tenant: Tenant, request: GenerationRequest, work: Callable[[Known], T]) -> T:
        """As `begin`, for `work` on what is known of the request; raises the store's errors and
        those of `resolve`, too."""
        return await self._generation.aside(
            tenant, request, lambda ready: work(self._known(tenant.name, request, ready))
        )

    async def tokenised(self, tenant: Tenant, request: GenerationRequest) -> Tokenised:
        """Raises `TokenizerUnavailable` where nothing could be said in text."""
        return await self.of(tenant, request, _tokenised)

    def _known(self, tenant: str, request: GenerationRequest, ready: Ready) -> Known:
        settled = _settled(self._store, tenant, request)
        target = resolve(self._store, tenant, settled)
        return Known(settled, target, ready, self._codecs.of(ready))


def _tokenised(known: Known) -> Tokenised:
    given, codec = known.request.input, needed(known.codec, "input")
    token_ids = known.prompt().input_ids
    return Tokenised(
        request=replace(known.request, input=token_ids),
        token_ids=token_ids,
        text=given if isinstance(given, str) else codec.decode(given),
    )


def _settled(store: PrefixStore, tenant: str, request: GenerationRequest) -> GenerationRequest:
    """With the numbers of the versions that are active now."""
    if request.compose:
        names = [(part.task_id, part.version) for part in request.compose]
        found = store.resolve_parts(tenant, names)
        parts = tuple(PartName(version.task_id, version.version) for version in found)
        return replace(request, compose=parts)
    if request.task_id is None:
        return request
    version = store.resolve(tenant, request.task_id, request.version).version
    return replace(request, version=version)
