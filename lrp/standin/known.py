"""The kinds of stand-ins that there are."""

from __future__ import annotations

from collections.abc import Sequence

from lrp.standin.attention import MultiheadAttention
from lrp.standin.base import StandIn
from lrp.standin.conv1d import TransposedLinear

KINDS: Sequence[StandIn] = (TransposedLinear(), MultiheadAttention())
NAMED = {kind.name: kind for kind in KINDS}
