"""What a request's rows begin with: real tokens, and virtual ones that run as inputs.

Known once its prefixes are loaded. On the decoder's side `[x][infix][y]`, or what an
encoder-decoder model's decoder starts from; on the encoder's side virtual tokens, then x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from prefixmux_server.engine.messages import Submit
from prefixmux_server.memory.memory import RowNeeds
from prefixmux_server.memory.prefix import PrefixKV

# Stands for the id of a token that is an embedding; it is never looked at.
_NO_ID = 0


@dataclass(frozen=True, eq=False)
class Virtual:
    """Virtual tokens `[n, width]` that stand in for the ids from `start` on.

    `delta` is added to the KV that they leave, before any later token runs.
    """

    start: int
    embeddings: Tensor
    delta: Tensor | None = None

    @property
    def stop(self) -> int:
        return self.start + len(self.embeddings)


@dataclass(frozen=True, eq=False)
class Prompt:
    """`tokens` are the decoder's own before the first output, `encoder` all that the encoder
    reads. `infix_at` own tokens come before an infix of KV; 0: there is none."""

    tokens: tuple[int, ...]
    infix_at: int = 0
    virtual: Virtual | None = None
    encoder: tuple[int, ...] = ()
    encoder_virtual: tuple[Virtual, ...] = ()

    def next_break(self, own: int) -> int:
        """The first own token after `own` that must not run together with it."""
        breaks = [self.infix_at] if self.virtual is None else [self.infix_at, self.virtual.stop]
        return min((at for at in breaks if at > own), default=own + len(self.tokens) + 1)

    def is_real(self, own: int) -> bool:
        """Whether own token `own` is one of the prompt's, and no virtual one."""
        virtual = self.virtual
        inside = virtual is not None and virtual.start <= own < virtual.stop
        return own < len(self.tokens) and not inside

    def needs(self, max_new_tokens: int, rows: int = 1) -> RowNeeds:
        """The last token's KV is never stored: it is sampled, or, where no token is asked for,
        the prompt's last, behind which nothing is looked for. Something must run, though."""
        own = max(len(self.tokens) + max_new_tokens - 1, 1)
        return RowNeeds(
            own,
            infix_at=self.infix_at,
            encoded=len(self.encoder),
            rows=rows,
            shared=min(len(self.tokens), own),
        )


def prompt_of(submit: Submit, prefixes: Sequence[PrefixKV], *, encodes: bool) -> Prompt:
    """Raises ValueError, fit for the client, for what cannot be put together."""
    if encodes:
        return _encoder_prompt(submit, prefixes)
    x, y = submit.input_ids, submit.decoder_ids
    infixes = [prefix for prefix in prefixes if prefix.infix]
    if not infixes:
        return Prompt(x + y)
    if not y:
        raise ValueError("an infix needs a token after it; send decoder_input")
    owned = [prefix for prefix in infixes if prefix.embeddings is not None]
    if not owned:
        return Prompt(x + y, infix_at=len(x))
    if len(infixes) > 1:
        raise ValueError("an infix that starts from embeddings stands alone; name no other infix")
    embeddings = owned[0].embeddings
    assert embeddings is not None
    virtual = Virtual(len(x), embeddings, owned[0].delta)
    return Prompt(x + (_NO_ID,) * len(embeddings) + y, virtual=virtual)


def _encoder_prompt(submit: Submit, prefixes: Sequence[PrefixKV]) -> Prompt:
    ids: list[int] = []
    virtual: list[Virtual] = []
    for prefix in prefixes:
        if prefix.embeddings is not None:
            virtual.append(Virtual(len(ids), prefix.embeddings))
            ids += [_NO_ID] * len(prefix.embeddings)
        ids += prefix.token_ids
    return Prompt(
        submit.decoder_ids, encoder=(*ids, *submit.input_ids), encoder_virtual=tuple(virtual)
    )
