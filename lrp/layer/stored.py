"""What a low-rank layer stores: its row ranges, and in each of them the blocks as factors or whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lrp.matrices import Block, Rank


class Part(NamedTuple):
    """A block as it is stored.

    Attributes:
        block: its rows and columns
        rank: how many components it keeps, at least one
        key: its place in ``V``, of one that is stored whole in ``W``
    """

    block: Block
    rank: Rank
    key: str

    @property
    def columns(self) -> tuple[int, int]:
        """The first of its columns and the one after its last."""
        return self.block.col_start, self.block.col_stop


class RowRange(NamedTuple):
    """The rows that some blocks share, and what is stored of these blocks.

    Attributes:
        start, stop: the rows
        key: the place in ``U`` of what the factored blocks share, if there are any
        factored: the blocks stored as factors, whose columns of U lie one after the other
        whole: the blocks stored whole
    """

    start: int
    stop: int
    key: str
    factored: tuple[Part, ...]
    whole: tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """All that is stored."""
        return self.factored + self.whole

    @property
    def rank(self) -> int:
        """The components of all its factored blocks."""
        return sum(part.rank or 0 for part in self.factored)


def row_range(number: int, held: Sequence[tuple[Block, Rank]]) -> RowRange:
    """What is stored of the blocks of the ``number``-th row range. Files know the parameters by these keys."""
    factored, whole = [(b, r) for b, r in held if r], [(b, r) for b, r in held if r is None]
    numbered = [tuple(Part(block, rank, f"{number}_{i}") for i, (block, rank) in enumerate(parts)) for parts in (factored, whole)]
    return RowRange(held[0][0].row_start, held[0][0].row_stop, str(number), *numbered)
