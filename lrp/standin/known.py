"""The kinds of stand-ins that there are."""

from __future__ import annotations

from collections.abc import Sequence

from lrp.standin.around import Around
from lrp.standin.attention import MultiheadAttention
from lrp.standin.base import StandIn
from lrp.standin.conv1d import TransposedLinear
from lrp.standin.experts import JoinedExperts
from lrp.standin.recurrent import Recurrent
from lrp.standin.same_padding import SamePadding
from lrp.standin.subclass import Subclass
from lrp.standin.windows import ShiftedWindows

# Of a subclass the first that fits: what torch.fx can look into comes before what it cannot.
KINDS: Sequence[StandIn] = (
    TransposedLinear(),
    MultiheadAttention(),
    Subclass(),
    SamePadding(),
    Around(),
    Recurrent(),
    JoinedExperts(),
    ShiftedWindows(),
)
NAMED = {kind.name: kind for kind in KINDS}
