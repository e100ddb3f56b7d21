"""Where the configuration files are."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent.parent
CONF = next(
    (folder for folder in (_HERE.parent / "conf", _HERE / "conf") if (folder / "config.yaml").exists()), _HERE / "conf"
)  # a checkout, or an installed package
