"""What the logits of a pass say: of prompts, and what comes next in each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from prefixmux_server.engine.batch import BatchRow, Piece
from prefixmux_server.engine.messages import TokenLogprobs
from prefixmux_server.engine.sampling.logprobs import token_logprobs
from prefixmux_server.engine.sampling.sampler import Sampler, Silence
from prefixmux_server.engine.sampling.shaping import SamplingRow


@dataclass(frozen=True)
class Choice:
    """What output `index` of a request says next; None: no token is allowed, so it ends."""

    index: int
    token: int | None
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass
class Said:
    """By row. `told` are log-probabilities of prompts. `chosen` are the rows that reached their
    last token, with a choice for each open output; none where no token was asked for. `scored` are
    those of beam searches, with their log probabilities' raw material: logits `[rows of the
    request, vocabulary]`, not looked at yet. `broken` have logits that are not finite: nothing
    else is said of them."""

    told: dict[BatchRow, tuple[TokenLogprobs, ...]] = field(default_factory=dict)
    chosen: dict[BatchRow, list[Choice]] = field(default_factory=dict)
    scored: dict[BatchRow, Tensor] = field(default_factory=dict)
    broken: list[BatchRow] = field(default_factory=list)

    def spoil(self, row: BatchRow) -> None:
        if row not in self.broken:
            self.broken.append(row)
        for others in (self.told, self.chosen, self.scored):
            others.pop(row, None)


@dataclass(frozen=True, eq=False)
class _End:
    """A row of memory that reached its last token, and the place of that one's logits."""

    piece: Piece
    at: int


@dataclass(frozen=True, eq=False)
class _Voice:
    """One output whose next token is to be chosen, by the logits at `at`."""

    row: BatchRow
    at: int
    context: SamplingRow

    @property
    def logprobs(self) -> int | None:
        return self.context.params.logprobs


class Chooser:
    """Reads the logits of all rows of a pass."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def read(self, pieces: Sequence[Piece], logits: Tensor) -> Said:
        """`logits` are those that the pieces want, in order."""
        said = Said()
        ends, broken = _tell(pieces, logits, said)
        plain = [end for end in ends if end.piece.row.request.search is None]
        if len(plain) < len(ends):
            said.scored = _by_search(ends, logits)
        broken += self._choose(plain, logits, said)
        for row in broken:
            said.spoil(row)
        return said

    def _choose(self, ends: Sequence[_End], logits: Tensor, said: Said) -> list[BatchRow]:
        """A token for each output. Returns rows that are broken."""
        said.chosen = {end.piece.row: [] for end in ends}
        voices = list(_voices(ends))
        if not voices:
            return []
        # As a rule each row of logits is for one output: then none is copied.
        places = [voice.at for voice in voices]
        taken = logits if places == list(range(len(logits))) else logits[places]
        tokens = self._sampler.sample(taken, [voice.context for voice in voices])
        logprobs = _logprobs(taken, voices, tokens)
        for number, (voice, token) in enumerate(zip(voices, tokens, strict=True)):
            choice = Choice(
                voice.context.index,
                None if isinstance(token, Silence) else token,
                logprobs.get(number, ()),
            )
            said.chosen[voice.row].append(choice)
        found = zip(voices, tokens, strict=True)
        return [voice.row for voice, token in found if token is Silence.BROKEN]


def _tell(pieces: Sequence[Piece], logits: Tensor, said: Said) -> tuple[list[_End], list[BatchRow]]:
    """What was asked about prompts. Returns the rows that end, and those that are broken."""
    ends, broken, at = list[_End](), list[BatchRow](), 0
    for piece in pieces:
        row, told = piece.row, piece.row.told
        if told:
            found = _prompt_logprobs(row, told, logits[at : at + len(told)])
            if found is None:
                broken.append(row)
            else:
                said.told[row] = found
        at += len(piece.wanted)
        if row.ends:
            ends.append(_End(piece, at - 1))
    return ends, broken


def _prompt_logprobs(
    row: BatchRow, told: Sequence[int], logits: Tensor
) -> tuple[TokenLogprobs, ...] | None:
    top, prompt = row.request.submit.sampling.prompt_logprobs, row.request.known.tokens
    assert top is not None, "nobody asked"
    return token_logprobs(logits, [prompt[own + 1] for own in told], top)


def _voices(ends: Sequence[_End]) -> Iterator[_Voice]:
    for end in ends:
        piece, request = end.piece, end.piece.row.request
        sampling, prompt = request.submit.sampling, request.seen_prompt
        output = request.output(piece.index)
        for index in piece.outputs:
            yield _Voice(piece.row, end.at, SamplingRow(sampling, prompt, output, index))


def _logprobs(
    logits: Tensor, voices: Sequence[_Voice], tokens: Sequence[int | Silence]
) -> dict[int, tuple[TokenLogprobs, ...]]:
    """By number of the voice, of those that want them."""
    found: dict[int, tuple[TokenLogprobs, ...]] = {}
    for top in {voice.logprobs for voice in voices} - {None}:
        asked = {
            number: token
            for number, token in enumerate(tokens)
            if voices[number].logprobs == top and not isinstance(token, Silence)
        }
        told = token_logprobs(logits[list(asked)], list(asked.values()), top or 0)
        assert told is not None, "tokens are chosen from finite logits"
        found |= {number: (one,) for number, one in zip(asked, told, strict=True)}
    return found


def _by_search(ends: Sequence[_End], logits: Tensor) -> dict[BatchRow, Tensor]:
    """Rows of a beam search are only sorted out, by sequence."""
    groups: dict[BatchRow, list[tuple[int, int]]] = {}
    for end in ends:
        if end.piece.row.request.search is not None:
            groups.setdefault(end.piece.row, []).append((end.piece.index, end.at))
    return {row: logits[[at for _, at in sorted(found)]] for row, found in groups.items()}
