"""Virtual tokens that were stored as inputs become KV, once, when a prefix is loaded.

A decoder-only model is causal: what embeddings or text leave behind does not depend on what comes
after them. So they run alone, at positions from 0, and their KV is a prefix like any other. In an
encoder, which looks both ways, they stay inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from prefixmux_server.memory.memory import KVMemory, RowLease, RowNeeds, RowSpan
from prefixmux_server.memory.prefix import DECODER, PrefixKV
from prefixmux_server.memory.source import PrefixLoadError
from prefixmux_server.model.inputs import ForwardInputs, SequenceModel, TokenInputs

_CHUNK = 512


@dataclass(frozen=True)
class Compiler:
    """`scratch` makes memory for one row of so many tokens, which nobody else uses."""

    model: SequenceModel
    scratch: Callable[[int], KVMemory]

    def __call__(self, prefix: PrefixKV) -> PrefixKV:
        """Anything but virtual tokens in front of a row stays as it is.

        Raises PrefixLoadError.
        """
        if not prefix.inputs or prefix.infix:
            return prefix
        try:
            kv = self._run(prefix, self.scratch(prefix.inputs))
        except Exception as error:
            raise PrefixLoadError(
                "prefix_unavailable", "this task's virtual tokens could not be run"
            ) from error
        if not bool(kv.isfinite().all()):
            raise PrefixLoadError(
                "non_finite_output", "this task's virtual tokens have no finite keys and values"
            )
        return PrefixKV(prefix.key, {DECODER: kv}, {DECODER: prefix.inputs})

    def _run(self, prefix: PrefixKV, memory: KVMemory) -> Tensor:
        rows = memory.admit((), RowNeeds(prefix.inputs))
        assert rows is not None, "the scratch memory is too small"
        for start in range(0, prefix.inputs, _CHUNK):
            count = min(_CHUNK, prefix.inputs - start)
            self.model.forward(_chunk(prefix, memory, rows[0], start, count))
        return _to_host(memory.read(rows[0]))


def _chunk(
    prefix: PrefixKV, memory: KVMemory, row: RowLease, start: int, count: int
) -> ForwardInputs:
    if prefix.embeddings is None:
        tokens = TokenInputs(prefix.token_ids[start : start + count], range(start, start + count))
    else:
        rows: Mapping[int, Tensor] = {0: prefix.embeddings[start : start + count]}
        tokens = TokenInputs([0] * count, range(start, start + count), rows)
    return ForwardInputs(tokens, [count - 1], memory.plans([RowSpan(row, start, count)]))


def _to_host(kv: Tensor) -> Tensor:
    host = kv.to("cpu").contiguous()
    return host.pin_memory() if kv.is_cuda else host
