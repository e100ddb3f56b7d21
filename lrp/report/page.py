"""report.html of a run, of a sweep, or of several."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
import yaml

import lrp
from lrp.errors import InputError, counted
from lrp.files import write_text
from lrp.report import charts
from lrp.results.collect import collect, study_of
from lrp.results.columns import DESCRIBED, OF_TEXT
from lrp.results.jobs import LOG, job_folders, rows_of, why_no_rows
from lrp.results.labels import distinct, line_label
from lrp.results.tables import read_table

HERE = Path(__file__).parent
MEANINGS = {column.name: column.meaning for column in (*DESCRIBED, *OF_TEXT)}
ASKED = [column.name for column in DESCRIBED if not column.measured and column.name not in ("checkpoint_sha256", "sparsity")]
FOUND = ["sparsity_params", "sparsity_macs", "accuracy", "accuracy_before_recovery", "accuracy_dense", "perplexity", "divergence"]
TIMES = ["latency_1", "latency_dense_1", "latency_64", "latency_dense_64"]
REPORT = "report.html"
MOST_ROWS = 2000  # of the table
MOST_LAYERS = 12000  # rows of layers.csv in all: the file stays below 2 MB


class Heading(NamedTuple):
    """A column of the table: what it is called, what it holds, and whether it is text."""

    name: str
    meaning: str
    text: bool


class Cell(NamedTuple):
    """A cell of the table: what it is sorted by and what stands in it."""

    value: str
    text: str


def write_report(folders: Sequence[Path], target: Path, command: str | None = None) -> Path:
    """Write the report of run folders and sweeps; ``command`` made them, where it is known.

    Raises:
        InputError: For folders without a table.
    """
    study = next(filter(None, map(study_of, folders)), None)
    places = [place for folder in folders for place in job_folders(folder) or [folder]]
    parts = _of_study(folders, places, study) if study else _of_runs(places)
    commands = [command] if command else [found for folder in folders for found in _commands(folder)]
    failed = [job for folder in folders for job in _failed(folder)]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = environment.from_string((HERE / "template.html").read_text(encoding="utf-8")).render(
        version=lrp.__version__, script=(HERE / "vega.js").read_text(encoding="utf-8"), command="\n".join(commands), failed=failed,
        footer=_footer(folders), **parts,
    )  # fmt: skip
    write_text(target, page)
    return target


def _of_runs(folders: Sequence[Path]) -> dict[str, Any]:
    table = collect(folders)
    if not len(table):
        raise InputError(f"the tables below {', '.join(map(str, folders))} hold no rows yet")
    jobs = _jobs(table)
    found = []
    for x, what in (("sparsity_params", "parameters"), ("sparsity_macs", "multiply-accumulates"), ("latency_64", "time")):
        if spec := charts.curves(table, x):
            found.append(_chart(f"against-{what}", f"Against {what}", "Means over seeds; a bar is one standard deviation.", spec))
    layers = _details(jobs, "layers.csv")
    if layers is not None:
        text = "How much of each layer's rank is kept. A layer that is stored whole counts with its full rank."
        found.append(_chart("ranks", "Ranks by layer", text, charts.kept_ranks(layers)))
    first = next((Path(folder, "scores.parquet") for folder in jobs if Path(folder, "scores.parquet").exists()), None)
    if first is not None:
        scores = pd.read_parquet(first)
        if len(scores) and {"layer", "singular_value"} <= {*scores}:
            text = f"Of {jobs[str(first.parent)]}; blocks of a layer are taken together."
            found.append(_chart("spectra", "Singular values", text, charts.spectra(scores)))
    if spec := charts.stages(table, jobs):
        text = "Of what is done for each sparsity the mean. It is what a step took when it was done, also where it was found in the cache."
        found.append(_chart("seconds", "Seconds by stage", text, spec))
    varying = [name for name in ASKED if distinct(table[name]) > 1]
    shown = ["sparsity", *(name for name in [*FOUND, *TIMES] if name in table and table[name].notna().any())]
    names = ", ".join(table["model"].unique()) + " on " + ", ".join(table["dataset"].unique())
    dense = ", ".join(f"{100 * value:.2f} %" for value in table["accuracy_dense"].dropna().unique()[:3])
    summary = f"{counted(len(jobs), 'run')}, {counted(len(table), 'row')}" + (
        f"; the dense network has an accuracy of {dense}." if dense else "."
    )
    return {"title": names, "summary": summary, "charts": found, **_table(table, [*varying, *shown])}


def _of_study(folders: Sequence[Path], places: Sequence[Path], study: str) -> dict[str, Any]:
    table = pd.concat([read_table(place / "results.csv") for place in places], ignore_index=True)
    images = [file for folder in folders for file in sorted(folder.glob("*.png"))]
    found = [
        {
            "id": file.stem,
            "title": file.stem.replace("_", " ").capitalize(),
            "text": f"The figure of the study {study}, as it is drawn in {file.name}.",
            "image": "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode(),
            "spec": None,
        }
        for file in images
    ]  # fmt: skip
    varying = [name for name in table if distinct(table[name]) > 1]
    title = f"{study.replace('_', ' ')} on {', '.join(map(str, table['dataset'].unique()))}"
    return {"title": title, "summary": counted(len(table), "row") + ".", "charts": found, **_table(table, varying)}


def _chart(name: str, title: str, text: str, spec: dict[str, Any]) -> dict[str, Any]:
    written = json.dumps(spec, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return {"id": name, "title": title, "text": text, "spec": written, "image": None}


def _jobs(table: pd.DataFrame) -> dict[str, str]:
    """What each folder's run is called: as its line in the figures, with its number where several are called the same."""
    first = table.drop_duplicates("folder").set_index("folder")
    labels = {str(folder): line_label(row) for folder, row in first.iterrows()}
    seen = pd.Series(labels)
    several = set(seen[seen.duplicated(keep=False)])
    return {folder: f"{label} ({Path(folder).name})" if label in several else label for folder, label in labels.items()}


def _details(jobs: Mapping[str, str], name: str) -> pd.DataFrame | None:
    """The tables of this name of all jobs, as far as there is room."""
    tables, count = [], 0
    for folder, label in jobs.items():
        file = Path(folder, name)
        if file.exists():
            table = read_table(file)
            count += len(table)
            if count > MOST_LAYERS and tables:
                break
            tables.append(table.assign(job=label))
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else None


def _table(table: pd.DataFrame, names: Sequence[str]) -> dict[str, Any]:
    text = {name: not pd.api.types.is_numeric_dtype(table[name]) for name in names}
    shown = table[list(names)].head(MOST_ROWS)
    rows = [[_cell(value, text[name]) for name, value in zip(names, row)] for row in shown.itertuples(index=False)]
    said = "What differs between the runs, and what was found. Press a heading to sort by it."
    if len(table) > MOST_ROWS:
        said += f" These are the first {MOST_ROWS:,} of {len(table):,} rows; results.csv has all."
    columns = [Heading(name, MEANINGS.get(name, name.replace("_", " ")), text[name]) for name in names]
    return {"columns": columns, "rows": rows, "table_text": said}


def _cell(value: Any, text: bool) -> Cell:
    if pd.isna(value):
        return Cell("", "")
    return Cell(str(value), str(value)) if text else Cell(f"{value:.10g}", f"{value:.4g}" if isinstance(value, float) else str(value))


def _commands(folder: Path) -> Iterator[str]:
    """The commands of the sweeps in a folder, as Hydra notes them."""
    for file in sorted(folder.rglob("multirun.yaml")):
        noted = yaml.safe_load(file.read_text(encoding="utf-8"))
        words = noted.get("hydra", {}).get("overrides", {}) if isinstance(noted, dict) else {}
        others = [word for word in map(str, words.get("hydra", [])) if not word.startswith(("hydra.mode=", "hydra.sweep.dir="))]
        yield shlex.join(["lrp", "run", "-m", *map(str, words.get("task", [])), *others])


def _failed(folder: Path) -> Iterator[dict[str, str]]:
    """The jobs of the sweeps in a folder that left no rows, and what their logs say."""
    for log in sorted(folder.rglob(LOG)):
        job = log.parent
        if job != folder and not rows_of(job):
            yield {"name": f"job {job.name}", "reason": why_no_rows(job)}


def _footer(folders: Sequence[Path]) -> str:
    """Which versions made the runs."""
    files = [file for folder in folders for file in sorted(folder.rglob("versions.json"))]
    versions = json.loads(files[0].read_text(encoding="utf-8")) if files else {}
    named = ", ".join(f"{name} {value}" for name, value in versions.items() if isinstance(value, str))
    return f"Made by lrp {lrp.__version__} from {', '.join(str(folder) for folder in folders)}" + (
        f"; the runs: {named}." if named else "."
    )
