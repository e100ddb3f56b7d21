"""Low-rank pruning of trained networks: ``compress``, ``save``, ``load``, ``fuse``, ``export_onnx``; ``hold_rank`` for training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrp.compression import compress as compress
    from lrp.errors import InputError as InputError
    from lrp.export import export_onnx as export_onnx
    from lrp.fusion import fuse as fuse
    from lrp.rank import hold_rank as hold_rank
    from lrp.saving import load as load
    from lrp.saving import save as save

_PLACES = {"compress": "compression", "save": "saving", "load": "saving", "fuse": "fusion", "export_onnx": "export", "hold_rank": "rank", "InputError": "errors"}
__all__ = ["InputError", "compress", "export_onnx", "fuse", "hold_rank", "load", "save"]


def __getattr__(name: str) -> Any:
    """Imported when first used: the command line checks its words before torch is loaded."""
    if name in _PLACES:
        return getattr(importlib.import_module(f"lrp.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'lrp' has no attribute {name!r}")
