"""Turns measurements into ratios, a Markdown page and JSON. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from bench.measure import Measurement
from bench.roster import LABELS
from bench.suites import Suite, Target


@dataclass(frozen=True)
class Ratio:
    """A target at one place, and what was measured there."""

    target: Target
    dtype: str
    size: int
    value: float

    @property
    def reached(self) -> bool:
        return self.value >= self.target.at_least


class Report:
    """One run's measurements of one suite on one machine."""

    def __init__(
        self, suite: Suite, facts: Mapping[str, str], measurements: Sequence[Measurement]
    ) -> None:
        self._suite = suite
        self._facts = facts
        self._measurements = measurements
        self._by_place = {(m.dtype, m.size, m.peer): m for m in measurements}
        self._dtypes = list(dict.fromkeys(m.dtype for m in measurements))
        self._sizes = list(dict.fromkeys(m.size for m in measurements))
        self._peers = [p for p in LABELS if any(m.peer == p for m in measurements)]

    def ratio(self, dtype: str, size: int, numerator: str, denominator: str) -> float | None:
        """Median of the ratios of each round, in which both had the same minute of the machine;
        None where one of the two was not measured."""
        ours = self._by_place.get((dtype, size, numerator))
        theirs = self._by_place.get((dtype, size, denominator))
        if not (ours and theirs):
            return None
        rounds = zip(ours.throughputs, theirs.throughputs, strict=True)
        return median(one / other for one, other in rounds)

    def targets(self) -> list[Ratio]:
        found = []
        for target in self._suite.targets:
            for dtype in self._dtypes if target.dtype is None else [target.dtype]:
                for size in self._sizes if target.size is None else [target.size]:
                    value = self.ratio(dtype, size, target.numerator, target.denominator)
                    if value is not None:
                        found.append(Ratio(target, dtype, size, value))
        return found

    def equal_rows(self, dtype: str, size: int, ours: str, theirs: str) -> tuple[int, int] | None:
        """How many requests got the same tokens from both, of how many both answered."""
        one = self._by_place.get((dtype, size, ours))
        other = self._by_place.get((dtype, size, theirs))
        if not (one and other and one.outputs and other.outputs):
            return None
        pairs = list(zip(one.outputs, other.outputs, strict=False))
        return sum(a == b for a, b in pairs), len(pairs)

    def markdown(self) -> str:
        return "\n".join([*self._head(), *self._throughputs(), *self._ratios(), *self._equality()])

    def json(self) -> Mapping[str, object]:
        return {
            "machine": dict(self._facts),
            "measurements": [
                {
                    **{k: v for k, v in asdict(m).items() if k != "outputs"},
                    "throughput": m.throughput,
                    "spread": m.spread,
                }
                for m in self._measurements
            ],
            "targets": [
                {**asdict(r.target), "dtype": r.dtype, "size": r.size, "measured": r.value}
                for r in self.targets()
            ],
        }

    def _head(self) -> Iterator[str]:
        yield "# Throughput\n"
        yield from (f"- {key}: {value}" for key, value in self._facts.items())

    def _throughputs(self) -> Iterator[str]:
        for dtype in self._dtypes:
            yield f"\n## {dtype}: {self._suite.unit} (spread of the repeats)\n"
            yield self._columns("")
            for peer in self._peers:
                cells = " | ".join(self._cell(dtype, size, peer) for size in self._sizes)
                yield f"| {LABELS[peer]} | {cells} |"
            for subject in self._suite.subjects:
                yield from self._comparisons(dtype, subject)
            yield from self._first_uses(dtype)
            yield from self._notes(dtype)

    def _columns(self, first: str) -> str:
        columns = " | ".join(f"N = {size}" for size in self._sizes)
        return f"| {first} | {columns} |\n|---|{'---:|' * len(self._sizes)}"

    def _comparisons(self, dtype: str, subject: str) -> Iterator[str]:
        yield f"\n{self._columns(f'{LABELS[subject]}, against')}"
        for other in [p for p in self._suite.references if p in self._peers]:
            values = [self.ratio(dtype, size, subject, other) for size in self._sizes]
            cells = " | ".join("" if v is None else f"{v:.2f}x" for v in values)
            yield f"| {LABELS[other]} | {cells} |"

    def _first_uses(self, dtype: str) -> Iterator[str]:
        """What each way to make a prefix costs once; the same at every size."""
        found = [m for m in self._measurements if m.dtype == dtype and m.size == self._sizes[0]]
        uses = [(LABELS[m.peer], m.first_use * 1e3) for m in found if m.first_use is not None]
        if uses:
            yield "\n| once per version, at its first use: reading, checks, compilation | ms |"
            yield "|---|---:|"
            yield from (f"| {label} | {milliseconds:.1f} |" for label, milliseconds in uses)

    def _notes(self, dtype: str) -> Iterator[str]:
        """What peers saw beside their throughput."""
        found = {(m.size, m.peer): m.notes for m in self._measurements if m.dtype == dtype}
        names = dict.fromkeys((peer, note) for (_, peer), notes in found.items() for note in notes)
        if names:
            yield f"\n{self._columns('beside it')}"
        for peer, note in names:
            cells = " | ".join(f"{found[size, peer][note]:.3g}" for size in self._sizes)
            yield f"| {LABELS[peer]}: {note} | {cells} |"

    def _cell(self, dtype: str, size: int, peer: str) -> str:
        found = self._by_place.get((dtype, size, peer))
        return f"{found.throughput:.1f} (±{found.spread / 2:.0%})" if found else ""

    def _ratios(self) -> Iterator[str]:
        yield "\n## Targets\n"
        yield "| dtype | N | ratio | at least | measured | |\n|---|---:|---|---:|---:|---|"
        for r in self.targets():
            verdict = "reached" if r.reached else "**missed**"
            names = f"{r.target.numerator} / {r.target.denominator}"
            yield (
                f"| {r.dtype} | {r.size} | {names} | {r.target.at_least:g}x | {r.value:.2f}x "
                f"| {verdict} |"
            )

    def _equality(self) -> Iterator[str]:
        if not self._suite.equal:
            return
        yield "\n## Requests with equal tokens\n"
        yield "Between implementations float32 has to agree; bfloat16 rounds too early for that.\n"
        yield "| dtype | N | | equal |\n|---|---:|---|---:|"
        for dtype in self._dtypes:
            for size in self._sizes:
                for ours, theirs in self._suite.equal:
                    equal = self.equal_rows(dtype, size, ours, theirs)
                    if equal is not None:
                        yield f"| {dtype} | {size} | {ours}, {theirs} | {equal[0]} of {equal[1]} |"
