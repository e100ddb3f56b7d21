"""Tables and figures of the studies, from result tables alone."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import pandas as pd


def summarise_study(name: str, folder: Path) -> list[Path]:
    return []


def draw_figure2(table: pd.DataFrame, target: Path) -> list[Path]:
    return []
