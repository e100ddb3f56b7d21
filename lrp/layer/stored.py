"""What a low-rank layer stores: its row ranges, and in each of them the blocks as factors or whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lrp.matrices import Block, LayerMatrix, Rank
from lrp.partition import check_partition


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


def span(block: Block) -> list[int]:
    """The first row, the row behind the last, and the same of the columns."""
    return [block.row_start, block.row_stop, block.col_start, block.col_stop]


def read_blocks(matrix: LayerMatrix, stored: list[list[int]]) -> list[tuple[Block, Rank]]:
    """The blocks of a layer and their ranks from five integers each, as files have them: the ``span`` and the rank, -1 for whole.

    Raises:
        ValueError: Where they do not partition the layer's matrix, or a rank is not one that its block can have.
    """
    name, groups, blocks = matrix.name, matrix.groups, []
    for i, numbers in enumerate(stored):
        if len(numbers) != 5 or not all(type(number) is int for number in numbers):
            raise ValueError(f"layer {name}: block {i} is not five integers")
        block, rank = Block(name, i, *numbers[:4]), numbers[4]
        inside = 0 <= block.row_start < block.row_stop <= matrix.shape[0] and 0 <= block.col_start < block.col_stop <= matrix.shape[1]
        inside &= block.row_start * groups // matrix.shape[0] == (block.row_stop - 1) * groups // matrix.shape[0]
        if not inside or rank < -1 or rank > block.rank:
            raise ValueError(f"layer {name}: block {i} is {numbers}")
        blocks.append((block, None if rank < 0 else rank))
    check_partition({name: matrix}, [block for block, _ in blocks])
    return blocks
