"""Pages: equally long pieces of KV memory, dense in the front. Knows chains, not requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prefixmux_server.memory.layout import SiteSpec


@dataclass(eq=False)
class Chain:
    """A row's pages, in the order of its cells; it may come to have `most`."""

    most: int
    pages: list[int] = field(default_factory=list)


class PagePool:
    """`keys [L, pages, H_kv, page, D_k]` and `values`; pages `0 .. live` are owned, each by one
    chain, the rest is not.

    Attention reads the live pages as one dense operand, so the last page moves into every hole.
    Memory is the operating system's until a page is first used.
    """

    def __init__(
        self, spec: SiteSpec, pages: int, page: int, dtype: torch.dtype, *, poison: bool
    ) -> None:
        shape = (spec.layers, pages, spec.kv_heads, page)
        self.page = page
        self._keys = torch.empty(*shape, spec.k_dim, dtype=dtype)
        self._values = torch.empty(*shape, spec.v_dim, dtype=dtype)
        # Whose each live page is, and which of its pages.
        self._owners: list[tuple[Chain, int]] = []
        self._poison = poison
        self._wipe(0)

    @property
    def live(self) -> int:
        return len(self._owners)

    @property
    def keys(self) -> Tensor:
        return self._keys[:, : self.live]

    @property
    def values(self) -> Tensor:
        return self._values[:, : self.live]

    def grow(self, chain: Chain, cells: int) -> None:
        """See to it that so many cells are there; new ones are zero."""
        start, more = self.live, -(-cells // self.page) - len(chain.pages)
        if more <= 0:
            return
        assert len(chain.pages) + more <= chain.most, "a row grows beyond what it has reserved"
        for page in range(start, start + more):
            self._owners.append((chain, len(chain.pages)))
            chain.pages.append(page)
        self._keys[:, start : self.live] = 0
        self._values[:, start : self.live] = 0

    def free(self, chain: Chain) -> None:
        for page in sorted(chain.pages, reverse=True):
            owner, place = self._owners.pop()
            last = self.live
            if page != last:
                self._keys[:, page] = self._keys[:, last]
                self._values[:, page] = self._values[:, last]
                self._owners[page] = owner, place
                owner.pages[place] = page
            self._wipe(last)
        chain.pages.clear()

    def places(self, chain: Chain, cells: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Pages of these cells, and where in them they are."""
        at = torch.tensor(cells, dtype=torch.long)
        return torch.tensor(chain.pages, dtype=torch.long)[at // self.page], at % self.page

    def write(self, pages: Sequence[int], start: int, kv: Tensor) -> None:
        """`kv` `[L, 2, n, H_kv, D]` to the cells of a row from `start` on."""
        for place, cut in self._pieces(range(start, start + kv.shape[2])):
            first = place * self.page - start
            part = kv[:, :, first + cut.start : first + cut.stop].transpose(2, 3)
            self._keys[:, pages[place], :, cut] = part[:, 0]
            self._values[:, pages[place], :, cut] = part[:, 1]

    def copy(
        self, targets: Sequence[Sequence[int]], sources: Sequence[Sequence[int]], cells: range
    ) -> None:
        """The same cells of several rows, given by their pages, from others; as they were."""
        for place, cut in self._pieces(cells):
            for tensor in (self._keys, self._values):
                taken = [tensor[:, pages[place], :, cut].clone() for pages in sources]
                for pages, held in zip(targets, taken, strict=True):
                    tensor[:, pages[place], :, cut] = held

    def check_integrity(self) -> None:
        for page, (chain, place) in enumerate(self._owners):
            assert chain.pages[place] == page, "a page is lost or owned twice"

    def _pieces(self, cells: range) -> Iterator[tuple[int, slice]]:
        """Which of a row's pages these cells are in, and where in each."""
        for place in range(cells.start // self.page, -(-cells.stop // self.page)):
            first = place * self.page
            yield place, slice(max(cells.start - first, 0), min(cells.stop - first, self.page))

    def _wipe(self, start: int) -> None:
        if self._poison:
            self._keys[:, start:] = float("nan")
            self._values[:, start:] = float("nan")
