"""Uploads, proven on the model before a task can name them.

Staged durably first, tried in one forward, then committed; what fails on the way is taken back.
Blocking work runs in worker threads.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from prefixmux_server.engine.front import EngineFront
from prefixmux_server.engine.messages import Ready
from prefixmux_server.engine.model_info import ModelInfo
from prefixmux_server.engine.shape import model_shape
from prefixmux_server.errors import InvalidRequest
from prefixmux_server.service.generation.admission import check_stop
from prefixmux_server.service.generation.limits import check_parameters, check_rows
from prefixmux_server.service.generation.parameters import settle
from prefixmux_server.service.generation.room import check_positions
from prefixmux_server.service.prefixes.textfile import no_tokenizer, text_file
from prefixmux_server.service.prefixes.trial import check_trial, run_trial
from prefixmux_server.service.prefixes.upload import (
    Composition,
    Filed,
    NativeFile,
    PeftFiles,
    PromptText,
    Upload,
)
from prefixmux_server.service.readiness import ready_of
from prefixmux_server.service.text.codecs import Codecs
from prefixmux_store.checks import check_defaults
from prefixmux_store.content import composed, of_file
from prefixmux_store.convert.peft import from_peft
from prefixmux_store.errors import PreconditionFailed, StoreError, TaskNotFound
from prefixmux_store.format import PrefixFile
from prefixmux_store.store import PrefixStore
from prefixmux_store.types import Defaults, Version


class Uploader:
    """`max_prefix_tokens` bounds one prefix, `max_rows` the beams of one request."""

    def __init__(
        self, engine: EngineFront, store: PrefixStore, max_prefix_tokens: int, max_rows: int
    ) -> None:
        self._engine = engine
        self._store = store
        self._max_prefix_tokens = max_prefix_tokens
        self._max_rows = max_rows
        self._codecs = Codecs()

    async def upload(self, tenant: str, upload: Upload) -> tuple[Version, bool]:
        """The version that holds the content, and whether it is new. Durable when this returns.

        Raises, in this order: `TokenizerUnavailable` for a text; `PreconditionFailed` if
        `create_only` finds the task live; what is wrong with its defaults; the store's errors in
        the contract's order: the file's own, its digest, the model; then `InvalidPrefix` for what
        the trial forward finds.
        """
        ready = ready_of(self._engine)
        if isinstance(upload.content, PromptText) and ready.tokenizer is None:
            raise no_tokenizer(upload.content)
        defaults = _defaults(upload, ready, self._max_rows)
        if isinstance(upload.content, Composition):
            return await self._compose(tenant, upload, upload.content, defaults, ready.model)
        staged = await asyncio.to_thread(self._stage, tenant, upload, upload.content, ready)
        try:
            await self._try_file(tenant, staged, ready.model)
            return await asyncio.to_thread(self._commit, tenant, upload, staged, defaults)
        except BaseException:
            await asyncio.to_thread(self._discard, tenant, staged.digest)
            raise

    async def _compose(
        self,
        tenant: str,
        upload: Upload,
        composition: Composition,
        defaults: Defaults,
        model: ModelInfo,
    ) -> tuple[Version, bool]:
        """What is tried is what is stored: versions are numbers from here on."""
        names = [(part.task_id, part.version) for part in composition.parts]
        found = await asyncio.to_thread(self._store.resolve_parts, tenant, names)
        content = composed(found)
        check_positions(content, model)
        check_trial(await run_trial(self._engine, tenant, content, model))
        return await asyncio.to_thread(
            self._store.compose,
            tenant,
            upload.task_id,
            [(version.task_id, version.version) for version in found],
            activate=upload.activate,
            description=upload.description,
            defaults=defaults,
        )

    def _stage(self, tenant: str, upload: Upload, content: Filed, ready: Ready) -> PrefixFile:
        """The checks that need no forward; kept durably then, but visible to nobody."""
        self._check_new(tenant, upload)
        data, digest = self._native(content, upload.task_index, ready)
        param = content.param if isinstance(content, PromptText) else None
        return self._store.stage(
            tenant,
            data,
            shape=model_shape(ready.model, self._max_prefix_tokens),
            digest=digest,
            check=lambda file: check_positions(of_file(file), ready.model, param),
        )

    def _native(
        self, content: Filed, task_index: int | None, ready: Ready
    ) -> tuple[bytes, str | None]:
        """The native file, and the digest it has to have."""
        if isinstance(content, PeftFiles):
            shape = model_shape(ready.model, self._max_prefix_tokens)
            config, model = content.adapter_config, content.adapter_model
            return from_peft(config, model, shape, task_index), None
        if task_index is not None:
            raise InvalidRequest(
                "The file holds one task; leave task_index out.", param="task_index"
            )
        if isinstance(content, NativeFile):
            return content.data, content.digest
        codec = self._codecs.of(ready)
        return text_file(content, codec, ready.model, self._max_prefix_tokens), None

    async def _try_file(self, tenant: str, staged: PrefixFile, model: ModelInfo) -> None:
        """A refused upload of the same content may discard the file between staging and trial;
        it is staged once more then."""
        content = of_file(staged)
        error = await run_trial(self._engine, tenant, content, model)
        if error is not None and error.code == "prefix_unavailable" and error.reason is None:
            await asyncio.to_thread(self._store.stage, tenant, staged.data)
            error = await run_trial(self._engine, tenant, content, model)
        check_trial(error)

    def _commit(
        self, tenant: str, upload: Upload, staged: PrefixFile, defaults: Defaults
    ) -> tuple[Version, bool]:
        return self._store.commit(
            tenant,
            upload.task_id,
            staged,
            activate=upload.activate,
            description=upload.description,
            create_only=upload.create_only,
            defaults=defaults,
        )

    def _discard(self, tenant: str, digest: str) -> None:
        """A file that cannot be removed now is left to the next collection."""
        with suppress(StoreError):
            self._store.discard(tenant, digest)

    def _check_new(self, tenant: str, upload: Upload) -> None:
        """Early, so that nothing is written in vain; `commit` decides."""
        if not upload.create_only:
            return
        with suppress(TaskNotFound):
            self._store.get_task(tenant, upload.task_id)
            raise PreconditionFailed


def _defaults(upload: Upload, ready: Ready, max_rows: int) -> Defaults:
    """Raises `InvalidRequest` and `InvalidParameter`, as a request that said the same."""
    defaults = check_defaults(Defaults(upload.template, upload.parameters))
    parameters = settle(defaults.parameters, {})
    check_parameters(parameters, ready.model)
    check_rows(parameters, max_rows)
    check_stop(parameters, ready)
    return defaults
