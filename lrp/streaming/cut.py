"""One block of a network as a network of its own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lrp.streaming.calls import HIDDEN, Call


class Cut(nn.Module):
    """One block, as a network of its own: its outputs are how the network's outputs react to a change of what the block gives.

    ``forward(x, g, *told)``: x (B, ...) is what the block reads, g (B, J, ...) are the gradients of J combinations of the network's outputs
    with respect to what it gives; (B, J) are their products, so that derivatives by the block's layers are those of the whole network.
    ``told`` (B, ...) is what the block reads of the examples besides, such as which tokens of each count.

    Attributes:
        call: What it is called with besides, for all examples the same but for the leaves ``places``.
        places: Of each tensor of ``told`` the numbers of the leaves in whose place it is.
    """

    def __init__(self, block: nn.Module, call: Call, places: Sequence[Sequence[int]] = ()) -> None:
        super().__init__()
        self.block, self.call, self.places = block, call, places

    def given(self, x: Tensor, *told: Tensor) -> Tensor:
        """What the block gives for ``x``."""
        call = self.call.told({i: value for value, places in zip(told, self.places, strict=True) for i in places}) if told else self.call
        found = self.block(**{HIDDEN: x}, **call.kwargs) if call.named else self.block(x, *call.args, **call.kwargs)
        return found[0] if isinstance(found, tuple) else found

    def forward(self, x: Tensor, g: Tensor, *told: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, J). ``attention_mask`` tells those who look on which tokens count; the block knows it from ``told``."""
        return (self.given(x, *told)[:, None] * g).flatten(2).sum(2)
