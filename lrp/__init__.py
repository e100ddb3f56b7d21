"""Low-rank pruning of trained networks: ``compress``, ``fit``, ``save``, ``load``; ``fuse``, ``unfold``, ``export_onnx``; ``hold_rank``."""

from __future__ import annotations

import importlib
import os
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrp.compression import compress as compress
    from lrp.compression import fit as fit
    from lrp.deploy.export import export_onnx as export_onnx
    from lrp.deploy.fuse import fuse as fuse
    from lrp.deploy.saving import load as load
    from lrp.deploy.saving import save as save
    from lrp.deploy.unfold import as_plain as as_plain
    from lrp.deploy.unfold import unfold as unfold
    from lrp.errors import InputError as InputError
    from lrp.layer.hold_rank import hold_rank as hold_rank
    from lrp.streaming.compress import compress_blocks as compress_blocks
    from lrp.streaming.loading import load_blocks as load_blocks

if "torch" not in sys.modules:
    # Threads of OpenMP wait for each other by spinning, and two of them on cores that something else uses make a job tens of times slower
    # (docs/results/speed.md). It reads this when torch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_PLACES = {
    "compress": "compression", "fit": "compression", "save": "deploy.saving", "load": "deploy.saving", "fuse": "deploy.fuse",
    "export_onnx": "deploy.export", "hold_rank": "layer.hold_rank", "InputError": "errors", "unfold": "deploy.unfold",
    "as_plain": "deploy.unfold", "compress_blocks": "streaming.compress", "load_blocks": "streaming.loading",
}  # fmt: skip
__all__ = [
    "InputError", "__version__", "as_plain", "compress", "compress_blocks", "export_onnx", "fit", "fuse", "hold_rank", "load",
    "load_blocks", "save", "unfold",
]  # fmt: skip


try:
    __version__ = metadata.version("lrp")
except metadata.PackageNotFoundError:  # the source tree alone, which nobody installed
    __version__ = "unknown"


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first used: the command line checks its words before torch is loaded.

    Raises:
        AttributeError: For a name that lrp does not have.
    """
    if name in _PLACES:
        return getattr(importlib.import_module(f"lrp.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'lrp' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, whether they were imported already or not."""
    return sorted([*__all__, "__doc__", "__file__", "__name__", "__path__"])
