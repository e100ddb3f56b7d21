"""What a run was made with."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path


def versions() -> dict[str, str]:
    """Python, the packages that matter, and the git commit of lrp's own code ("+changes" where files differ from it)."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "pandas", "safetensors", "wandb"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    here = Path(__file__).parent.parent
    try:
        ask = lambda *words: subprocess.run(  # noqa: E731
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        found["git_commit"] = ask("rev-parse", "HEAD") + ("+changes" if ask("status", "--porcelain", "--", str(here)) else "")
    except (OSError, subprocess.SubprocessError):
        found["git_commit"] = "unknown"
    return found
