"""What has to be known of a request before it runs: which versions it is of, and its tokens.

For APIs that answer more than was generated, or build one prompt out of several pieces. Runs in
threads of its own, as it reads the catalogue and encodes texts of any length.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from prefixmux_server.engine.front import EngineFront
from prefixmux_server.engine.messages import Ready
from prefixmux_server.errors import EngineUnavailable
from prefixmux_server.service.codecs import Codecs
from prefixmux_server.service.prompt import Prompt, needed, prompt_of
from prefixmux_server.service.request import GenerationRequest, PartName
from prefixmux_server.service.spelling import Spelling
from prefixmux_server.service.target import Target, resolve
from prefixmux_server.service.tenant import Tenant
from prefixmux_server.service.text import TextCodec
from prefixmux_store.store import PrefixStore

THREADS = 2

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
    """Of one event loop. Whatever is activated later, a request runs with what was found here."""

    def __init__(self, engine: EngineFront, store: PrefixStore, codecs: Codecs) -> None:
        self._engine = engine
        self._store = store
        self._codecs = codecs
        self._threads = ThreadPoolExecutor(THREADS, "prefixmux-preparation")

    async def of(self, tenant: Tenant, request: GenerationRequest, work: Callable[[Known], T]) -> T:
        """`work`, done in a thread. Raises `EngineUnavailable`, the store's errors and those of
        `resolve`, beside its own."""
        tenant.require("generate")
        ready = self._ready()
        return await self._aside(lambda: work(self._known(tenant.name, request, ready)))

    async def tokenised(self, tenant: Tenant, request: GenerationRequest) -> Tokenised:
        """Raises `TokenizerUnavailable` where nothing could be said in text."""
        return await self.of(tenant, request, _tokenised)

    async def spelling(self) -> Spelling | None:
        """Of the model's tokens, if it has a tokenizer. Raises `EngineUnavailable`."""
        ready = self._ready()
        codec = await self._aside(lambda: self._codecs.of(ready))
        return None if codec is None else Spelling(codec)

    async def _aside(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _ready(self) -> Ready:
        ready = self._engine.ready
        if ready is None:
            raise EngineUnavailable("The engine is not ready; try again in a few seconds.")
        return ready

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
