"""An engine in a few lines, a byte-level tokenizer and prefix files for a model of two layers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from safetensors.numpy import save
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from prefixmux_server.engine.errors import EngineUnavailable, Overloaded
from prefixmux_server.engine.front import EngineHealth, GenerationEvent, Observer
from prefixmux_server.engine.messages import (
    BeamOutput,
    EngineError,
    Finished,
    FinishReason,
    OutputEnd,
    PromptLogprobs,
    Ready,
    ResidencyState,
    Started,
    StepOutput,
    Submit,
    Timing,
    TokenDelta,
    TokenLogprobs,
)
from prefixmux_server.engine.model_info import ModelInfo, SiteInfo, TokenizerInfo
from prefixmux_server.engine.record import RowRecord, StepRecord
from prefixmux_store.format import encode
from prefixmux_store.meta import PrefixMeta
from prefixmux_store.tensors import RawTensor

LAYERS, HEADS, DIM, CONTEXT, CAPACITY = 2, 2, 4, 64, 1000
MERGES = (("l", "l"), ("e", "f"))
EOS_TEXT = "<|endoftext|>"


def tokenizer() -> Tokenizer:
    """One token per byte, beside `ll` and `ef`; the last id is EOS."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in MERGES]
    vocabulary = {piece: id for id, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=list(MERGES)))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(EOS_TEXT, special=True)])
    return made


VOCABULARY = tokenizer().get_vocab_size()
EOS = VOCABULARY - 1
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for one in messages %}{{ one.role }}:{{ one.content }};{% endfor %}"
)
INFO = TokenizerInfo(
    json=tokenizer().to_str(),
    special_token_ids=(EOS,),
    chat_template=CHAT_TEMPLATE,
    special_tokens={"bos_token": EOS_TEXT, "eos_token": EOS_TEXT},
)
MODEL = ModelInfo(
    id="tiny",
    family="causal",
    architecture="GPT2LMHeadModel",
    layers=LAYERS,
    kv_heads=HEADS,
    head_dim=DIM,
    hidden=HEADS * DIM,
    vocabulary=VOCABULARY,
    dtype="float32",
    device="cpu",
    context=CONTEXT,
    fingerprint="sha256:" + "0" * 64,
    methods=(
        "PREFIX_TUNING",
        "PROMPT_TUNING",
        "MULTITASK_PROMPT_TUNING",
        "INFIX_TUNING",
        "INFIX_EMBEDDING",
        "TEXT",
    ),
    sites=(SiteInfo("decoder", LAYERS, HEADS, DIM, DIM),),
    eos_token_ids=(EOS,),
    capacity_tokens=CAPACITY,
    bos_token_id=EOS,
)
START = 7
SEQ2SEQ = replace(
    MODEL,
    family="seq2seq",
    architecture="BartForConditionalGeneration",
    methods=("PREFIX_TUNING", "PROMPT_TUNING", "TEXT"),
    sites=tuple(
        SiteInfo(site, LAYERS, HEADS, DIM, DIM) for site in ("encoder", "decoder", "cross")
    ),
    decoder_start_token_id=START,
    forced_bos_token_id=5,
    forced_eos_token_id=EOS,
)
READY = Ready(MODEL, INFO)
HEALTHY = EngineHealth(True, "ready")


def ids(text: str) -> list[int]:
    return list(tokenizer().encode(text).ids)


def native(tokens: int = 3, fill: float = 0.5, **described: Any) -> bytes:
    """A native file that fits `MODEL`; another `fill` is another content."""
    return native_at({"decoder": tokens}, fill, **described)


def native_at(sites: Mapping[str, int], fill: float = 0.5, **described: Any) -> bytes:
    """So many virtual tokens at each site, or as `embeddings`."""
    tensors = {}
    for name, tokens in sites.items():
        kv = (LAYERS, 2, tokens, HEADS, DIM)
        shape = (tokens, HEADS * DIM) if name == "embeddings" else kv
        data = np.full(shape, fill, np.float32).tobytes()
        tensors[name] = RawTensor("F32", shape, memoryview(data))
    return encode(tensors, PrefixMeta(**described))


def peft(tokens: int = 3, fill: float = 0.5) -> tuple[bytes, bytes]:
    """PEFT's two files of the same content as `native(tokens, fill)`."""
    values = np.full((tokens, 2 * LAYERS * HEADS * DIM), fill, np.float32)
    config = {
        "peft_type": "PREFIX_TUNING",
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": tokens,
        "num_layers": LAYERS,
        "num_attention_heads": HEADS,
        "token_dim": HEADS * DIM,
        "num_transformer_submodules": 1,
        "base_model_name_or_path": "tiny",
    }
    return json.dumps(config).encode(), save({"prompt_embeddings": values})


def multitask(tasks: int, tokens: int = 3) -> tuple[bytes, bytes]:
    """PEFT's two files of several tasks' embeddings, each task's another."""
    rank, width = 1, HEADS * DIM
    columns = np.arange(1, tasks + 1, dtype=np.float32).reshape(tasks, 1, 1)
    weights = {
        "prompt_embeddings": np.full((tokens, width), 0.5, np.float32),
        "prefix_task_cols": np.broadcast_to(columns, (tasks, tokens, rank)).copy(),
        "prefix_task_rows": np.full((tasks, rank, width), 0.25, np.float32),
    }
    config = {
        "peft_type": "MULTITASK_PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": tokens,
        "num_layers": LAYERS,
        "num_attention_heads": HEADS,
        "token_dim": width,
        "num_transformer_submodules": 1,
        "num_tasks": tasks,
        "num_ranks": rank,
        "base_model_name_or_path": "tiny",
    }
    return json.dumps(config).encode(), save(weights)


def reply_with(token_ids: Sequence[int], reason: FinishReason = "length") -> Reply:
    """Always the same tokens, one a step."""
    return lambda _submit: Script(tuple((id,) for id in token_ids), reason)


@dataclass(frozen=True)
class Script:
    """What the engine does with a request: the tokens of each step, then the end.

    `others`: the tokens of each step of the outputs behind the first; where there are none, those
    of the first. `read_first`, `read_last`: the prefixes it reports at both ends; None: those
    asked for. `beams`: what a search found. `pause`: the step before which the gate closes.
    """

    steps: tuple[tuple[int, ...], ...]
    reason: FinishReason | None = "length"
    stop: int | None = None
    error: EngineError | None = None
    read_first: tuple[str, ...] | None = None
    read_last: tuple[str, ...] | None = None
    beams: tuple[BeamOutput, ...] = ()
    others: tuple[tuple[tuple[int, ...], ...], ...] = ()
    pause: int | None = None


Reply = Callable[[Submit], Script]


@dataclass
class FakeEngine:
    """Answers by `reply`. With `gate` closed nothing moves. `aborted` holds the ids of requests
    that were given up before their end, `probed` what trials were made with, `probe_errors` what
    the next of them find, before `probe_error`."""

    reply: Reply = field(default_factory=lambda: reply_with(ids("hello")))
    ready: Ready | None = READY
    health: EngineHealth = HEALTHY
    capacity: int = 1000
    probe_error: EngineError | None = None
    submitted: list[Submit] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    aborted_outputs: list[tuple[str, int]] = field(default_factory=list)
    probe_errors: list[EngineError] = field(default_factory=list)
    probed: list[tuple[str, tuple[str, ...], tuple[int, ...]]] = field(default_factory=list)
    records: list[StepRecord] = field(default_factory=list)
    pinned: set[tuple[str, str]] = field(default_factory=set)
    observers: list[Observer] = field(default_factory=list)
    open: int = 0
    refused: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def submit(self, submit: Submit) -> FakeGeneration:
        if self.ready is None:
            raise EngineUnavailable
        if self.open >= self.capacity:
            self.refused += 1
            raise Overloaded
        self.submitted.append(submit)
        self.open += 1
        self.arrived.set()
        return FakeGeneration(self, submit, self.reply(submit))

    def has_room(self, tenant: str) -> bool:
        return self.open < self.capacity

    async def probe(
        self, tenant: str, prefixes: tuple[str, ...], decoder_ids: tuple[int, ...] = ()
    ) -> EngineError | None:
        self.probed.append((tenant, prefixes, decoder_ids))
        return self.probe_errors.pop(0) if self.probe_errors else self.probe_error

    def residency(self, tenant: str, digest: str) -> ResidencyState:
        return "device" if any(digest in submit.prefixes for submit in self.submitted) else "disk"

    def pin(self, tenant: str, digest: str, *, pinned: bool) -> None:
        (self.pinned.add if pinned else self.pinned.discard)((tenant, digest))

    def is_pinned(self, tenant: str, digest: str) -> bool:
        return (tenant, digest) in self.pinned

    def observe(self, observer: Observer) -> None:
        self.observers.append(observer)

    def steps(self, since: int) -> Sequence[StepRecord]:
        return [record for record in self.records if record.step > since]

    def record(self, *request_ids: str) -> None:
        rows = tuple(RowRecord(id, "decode", 1, 3) for id in request_ids)
        self.records.append(StepRecord(len(self.records) + 1, rows, 0, 0.01))

    def tell(self, output: StepOutput) -> None:
        """One step, to those who observe."""
        for observe in self.observers:
            observe(output)

    def serve(self, model: ModelInfo, tokenizer: TokenizerInfo | None = INFO) -> None:
        """Another model from now on."""
        self.ready = Ready(model, tokenizer)

    def without_tokenizer(self) -> None:
        self.serve(MODEL, None)


class FakeGeneration:
    """An output that is aborted gains no more, and the end leaves it out."""

    def __init__(self, engine: FakeEngine, submit: Submit, script: Script) -> None:
        self._engine = engine
        self._submit = submit
        self._script = script
        self._over = False
        self._aborted = asyncio.Event()
        self._outputs = set(range(submit.sampling.n))

    async def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        yield self._started()
        if self._submit.sampling.prompt_logprobs is not None:
            for piece in self._prompt():
                yield piece
        for step in range(self._submit.sampling.max_new_tokens):
            deltas = self._deltas(step)
            if not deltas:
                break
            if step == self._script.pause:
                self._engine.gate.clear()
            if await self._stopped():
                return
            for delta in deltas:
                if delta.index in self._outputs:
                    yield delta
        if not await self._stopped():
            self._end()
            yield self._finished()

    def abort(self, index: int | None = None) -> None:
        if self._over:
            return
        if index is not None:
            self._outputs.discard(index)
            self._engine.aborted_outputs.append((self._submit.id, index))
        if index is None or not self._outputs:
            self._engine.aborted.append(self._submit.id)
            self._aborted.set()
            self._end()

    async def _stopped(self) -> bool:
        """Waits for the gate; whoever is aborted does not."""
        waits = [
            asyncio.ensure_future(event.wait()) for event in (self._engine.gate, self._aborted)
        ]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return self._aborted.is_set()

    def _end(self) -> None:
        self._over = True
        self._engine.open -= 1

    def _steps(self, index: int) -> tuple[tuple[int, ...], ...]:
        others = self._script.others
        return others[index - 1] if 0 < index <= len(others) else self._script.steps

    def _deltas(self, step: int) -> list[TokenDelta]:
        top, found = self._submit.sampling.logprobs, []
        for index in sorted(self._outputs):
            if step < len(steps := self._steps(index)):
                logprobs = () if top is None else tuple(likely(id, top) for id in steps[step])
                found.append(TokenDelta(self._submit.id, steps[step], index, logprobs))
        return found

    def _prompt(self) -> list[PromptLogprobs]:
        """In two pieces."""
        top = self._submit.sampling.prompt_logprobs or 0
        tokens = self._submit.decoder_ids or self._submit.input_ids
        told = tuple(likely(id, top) for id in tokens[1:])
        half = len(told) // 2
        return [PromptLogprobs(self._submit.id, part) for part in (told[:half], told[half:])]

    def _started(self) -> Started:
        read = self._read(self._script.read_first)
        return Started(self._submit.id, read, tuple(3 for _ in read), 0.25, 0.125)

    def _read(self, claimed: tuple[str, ...] | None) -> tuple[str, ...]:
        return self._submit.prefixes if claimed is None else claimed

    def _ends(self) -> tuple[OutputEnd, ...]:
        reason = None if self._script.error else self._script.reason
        if reason is None:
            return ()
        return tuple(OutputEnd(index, reason, self._script.stop) for index in sorted(self._outputs))

    def _finished(self) -> Finished:
        read = self._read(self._script.read_last)
        return Finished(
            id=self._submit.id,
            outputs=self._ends(),
            prefixes=read,
            prefix_tokens=tuple(3 for _ in read),
            timing=Timing(0.25, 0.125, 0.5, 1.0),
            error=self._script.error,
            beams=self._script.beams,
        )


def likely(token_id: int, top: int) -> TokenLogprobs:
    """What the engine says of a token: its neighbours by number are the next likely."""
    best = tuple((token_id + place) % VOCABULARY for place in range(top))
    return TokenLogprobs(token_id, -0.5, best, tuple(-0.5 - place for place in range(top)))
