"""The tables and figures of a whole sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lrp.errors import InputError
from lrp.figure.accuracy import draw_figure3
from lrp.figure.simplicity_bias import draw_simplicity_bias
from lrp.files import write_whole
from lrp.results.collect import collect_details, collect_study
from lrp.study.dim_rank import DimRank
from lrp.study.rank_switch import RankSwitch
from lrp.study.simplicity_bias import SimplicityBias

STUDIES = {study.name: study for study in (DimRank, RankSwitch, SimplicityBias)}


def summarise_study(name: str, folder: Path) -> list[Path]:
    """Write results.csv of all jobs of a sweep, their table of details, and the figures into the sweep's folder; the paths."""
    if name not in STUDIES:
        raise InputError(f"{folder}: this version of lrp has no study {name}, it has {', '.join(STUDIES)}")
    study, jobs = STUDIES[name], [path for path in sorted(folder.iterdir()) if path.is_dir()]
    table = collect_study(jobs, name, study.columns)
    merged = folder / "results.csv"
    write_whole(merged, lambda path: table.to_csv(path, index=False))
    details = collect_details(jobs, study.details)
    paths = [merged]
    if details is not None:
        write_whole(folder / study.details, lambda path: details.to_csv(path, index=False))
        paths.append(folder / study.details)
    if name == SimplicityBias.name:
        return paths + draw_simplicity_bias(table, details, folder / name)
    return paths + study.draw(table, folder / name)


def summarise(table: pd.DataFrame, folder: Path) -> Sequence[Path]:
    """Write results.csv of all jobs and the figure into a sweep's folder; the paths."""
    merged = folder / "results.csv"
    write_whole(merged, lambda path: table.drop(columns="folder").to_csv(path, index=False))
    return [merged, *draw_figure3(table, folder / "figure3.png")]
