"""The tables and the figure of one job or of a whole sweep."""

from __future__ import annotations

from pathlib import Path

from lrp.figure.base import Figure
from lrp.files import remove_leftovers, write_whole
from lrp.results.collect import collect_details


def summarise(folder: Path, figure: Figure | None) -> tuple[str, list[Path]]:
    """Draw the figure of one job's folder; the text to print and the paths, results.csv first."""
    return _draw(folder, [folder], figure)


def summarise_sweep(folder: Path, figure: Figure | None) -> tuple[str, list[Path]]:
    """Write results.csv of all jobs of a sweep, their details and the figure into the sweep's folder; the text to print and the
    paths. Raises InputError where the jobs left no rows, or are of several studies."""
    remove_leftovers(folder)
    jobs = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: (len(path.name), path.name))
    return _draw(folder, jobs or [folder], figure)


def _draw(folder: Path, jobs: list[Path], figure: Figure | None) -> tuple[str, list[Path]]:
    if figure is None:
        return "", [file for file in [folder / "results.csv"] if file.exists()]
    table = figure.collect(jobs)
    details = None if figure.details is None else collect_details(jobs, figure.details)
    merged, paths = folder / "results.csv", []
    if jobs != [folder]:
        write_whole(merged, lambda path: table.drop(columns="folder", errors="ignore").to_csv(path, index=False))
        if details is not None and figure.details is not None:
            paths.append(folder / figure.details)
            write_whole(paths[0], lambda path: details.to_csv(path, index=False))
    text, drawn = figure.draw(table, details, folder / figure.name)
    return text, [merged, *paths, *drawn]
