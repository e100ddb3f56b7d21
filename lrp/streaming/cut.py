"""One block of a network as a network of its own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lrp.streaming.calls import HIDDEN, Call


class Cut(nn.Module):
    """One block, as a network of its own: its outputs are how the network's outputs react to a change of what the block gives.

    ``forward(x, g)``: x (B, ...) is what the block reads, g (B, J, ...) are the gradients of J combinations of the network's outputs with
    respect to what it gives; (B, J) are their products, so that derivatives by the block's layers are those of the whole network.

    Attributes:
        call: What it is called with besides.
        over: The numbers of what of that is there for each example, and the same for all: one row.
    """

    def __init__(self, block: nn.Module, call: Call, over: Sequence[int] = ()) -> None:
        super().__init__()
        self.block, self.call, self.over = block, call, over

    def given(self, x: Tensor, *told: Tensor) -> Tensor:
        """What the block gives for ``x``."""
        call = self._call(x, told)
        found = self.block(**{HIDDEN: x}, **call.kwargs) if call.named else self.block(x, *call.args, **call.kwargs)
        return found[0] if isinstance(found, tuple) else found

    def _call(self, x: Tensor, told: Sequence[Tensor]) -> Call:
        if not self.over:
            return self.call
        rows = {i: self.call.flat[0][i] for i in self.over}
        return self.call.with_leaves({i: row.expand(x.shape[0], *row.shape[1:]) for i, row in rows.items()})

    def forward(self, x: Tensor, g: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, J). ``attention_mask`` tells those who look on which tokens count; the block does not read it."""
        return (self.given(x)[:, None] * g).flatten(2).sum(2)


class ToldCut(Cut):
    """One that reads more of each example: ``forward(x, g, *told)``, each of ``told`` (B, ...), such as which tokens count.

    Attributes:
        places: For each of ``told`` the numbers of what it stands for among what the block is called with.
    """

    def __init__(self, block: nn.Module, call: Call, over: Sequence[int], places: Sequence[Sequence[int]]) -> None:
        super().__init__(block, call, over)
        self.places = places

    def _call(self, x: Tensor, told: Sequence[Tensor]) -> Call:
        call = super()._call(x, ())
        return call.with_leaves({i: value for value, places in zip(told, self.places, strict=True) for i in places})

    def forward(self, x: Tensor, g: Tensor, *told: Tensor, attention_mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """(B, J), as of ``Cut``."""
        return (self.given(x, *told)[:, None] * g).flatten(2).sum(2)
