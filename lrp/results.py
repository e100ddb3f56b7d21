"""The tables of a run folder: written a row at a time, always whole, continued after a kill."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from torch import Tensor

from lrp.errors import InputError, reject
from lrp.files import write_text, write_whole
from lrp.latency import LATENCY_COLUMNS
from lrp.matrices import Block, Factors

COLUMNS = (
    "model checkpoint_sha256 dataset method blocking decomposition scorer estimator scoring_images selection per_parameter "
    "round_to break_even exclude budget compensation rounds recovery options seed sparsity sparsity_params sparsity_macs params params_dense "
    "params_total params_total_dense macs macs_dense part accuracy accuracy_before_recovery accuracy_dense loss perturbation_additive "
    "perturbation_joint perturbation_true blocks components components_kept "
    f"{' '.join(LATENCY_COLUMNS)} seconds_statistics seconds_decompose seconds_score seconds_select seconds_compensate seconds_recover blocking_k calibration_images calibration_seed"
).split()

# What a row was measured to be; all other columns say what was asked for.
MEASURED = [name for name in COLUMNS[COLUMNS.index("sparsity_params") : COLUMNS.index("seconds_recover") + 1] if name != "part"]

# Columns that tables of earlier versions lack, with what they are when those are read.
ADDED = {
    **dict.fromkeys(("perturbation_additive", "perturbation_joint", "perturbation_true", "exclude", "options", *LATENCY_COLUMNS)),
    **dict.fromkeys(("seconds_statistics", "seconds_compensate")), "round_to": 1, "break_even": "params", "part": "test",
}  # fmt: skip

# Settings that configurations of earlier versions lack, with what they were before they could be set, where that is not null.
_LATER = {"recovery.hold_out": True}

# Settings that change where and how a job runs, not what it computes.
_INCIDENTAL = ("resume", "threads", "cache_dir", "tracker")


class RunFolder:
    """One job's results.csv, a table of details (layers.csv), config.yaml and versions.json. ``keys``: the columns that name a row.

    Raises InputError for a folder that holds rows when ``resume`` is false, and for one whose settings differ.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], resume: bool, columns: Sequence[str] = COLUMNS, details: str = "layers.csv",
        keys: Sequence[str] = ("sparsity",),
    ) -> None:  # fmt: skip
        self.folder, self.columns, self.file, self.keys = folder, list(columns), details, list(keys)
        self.rows = _read(folder / "results.csv", self.columns)
        self.details = _read(folder / details, None)
        config = folder / "config.yaml"
        if self.rows is not None and len(self.rows) and not resume:
            raise reject("resume", "false", f"{folder} holds finished rows; resume=true keeps them and computes the rest")
        if resume and config.exists():
            before = _flat(_read_settings(config))
            differing = _differences(before, _flat(settings))
            if differing:
                raise reject("resume", "true", f"{folder} was made with other settings: {'; '.join(differing)}")
        if self.rows is None or not resume:
            self.rows, self.details = pd.DataFrame(columns=self.columns), None
        if self.details is not None:  # a kill may fall between the two tables
            whole = set(self.rows[self.keys].itertuples(index=False, name=None))
            self.details = self.details[[key in whole for key in self.details[self.keys].itertuples(index=False, name=None)]]
        write_text(config, yaml.safe_dump(dict(settings), sort_keys=False))
        write_text(folder / "versions.json", json.dumps(versions(), indent=1) + "\n")

    def finished(self, **key: Any) -> bool:
        """Whether the row named by these values of ``keys`` is there."""
        assert list(key) == self.keys
        return any(row == tuple(key.values()) for row in self.rows[self.keys].itertuples(index=False, name=None))

    def add(self, row: Mapping[str, Any], details: pd.DataFrame) -> None:
        """Store the details of one row and then the row."""
        assert set(row) == set(self.columns), set(row) ^ set(self.columns)
        self.details = details if self.details is None or self.details.empty else pd.concat([self.details, details], ignore_index=True)
        write_whole(self.folder / self.file, lambda path: self.details.to_csv(path, index=False))
        new = pd.DataFrame([row], columns=self.columns)
        self.rows = new if self.rows.empty else pd.concat([self.rows, new], ignore_index=True)
        write_whole(self.folder / "results.csv", lambda path: self.rows.to_csv(path, index=False))


def read_table(file: Path) -> pd.DataFrame:
    """A .csv file; "none" stays a word. Raises InputError for what is no table."""
    table = _read(file, None)
    if table is None:
        raise InputError(f"{file}: there is no such file")
    return table


def _read(file: Path, columns: list[str] | None) -> pd.DataFrame | None:
    if not file.exists():
        return None
    try:
        table = pd.read_csv(file, keep_default_na=False, na_values=[""])
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as a table ({str(error).splitlines()[0]}); remove it or choose another folder") from error
    if columns is not None and list(table.columns) != list(columns):
        raise InputError(f"{file} has other columns than this version of lrp writes; choose another folder")
    return table


def _read_settings(file: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({str(error).splitlines()[0]}); choose another folder") from error
    if not isinstance(settings, dict):
        raise InputError(f"{file} holds no settings; choose another folder")
    return settings


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result = {}
    for key, value in settings.items():
        if not prefix and key in _INCIDENTAL:
            continue
        if isinstance(value, Mapping):
            result.update(_flat(value, f"{prefix}{key}."))
        else:
            result[prefix + key] = value
    return result


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    before = {**{key: _LATER.get(key) for key in now}, **before}
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return [f"{key} was {before.get(key)}, now {now.get(key)}" for key in keys]


def versions() -> dict[str, str]:
    """Python, the packages that matter, and the git commit of lrp's own code ("+changes" where files differ from it)."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "pandas", "safetensors", "wandb"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    here = Path(__file__).parent
    try:
        ask = lambda *words: subprocess.run(  # noqa: E731
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        found["git_commit"] = ask("rev-parse", "HEAD") + ("+changes" if ask("status", "--porcelain", "--", str(here)) else "")
    except (OSError, subprocess.SubprocessError):
        found["git_commit"] = "unknown"
    return found


def collect(folders: list[Path]) -> pd.DataFrame:
    """All rows of all results.csv below these folders (or of these .csv files), with the folder each came from.

    Raises InputError where there are none.
    """
    tables = []
    for folder in folders:
        files = [folder] if folder.is_file() else sorted(folder.rglob("results.csv"))
        for file in files:
            table = _read(file, None)
            missing = [name for name in COLUMNS if name not in table and name not in ADDED]
            if missing:
                raise InputError(f"{file} lacks the columns {', '.join(missing)}")
            table = table.assign(**{name: value for name, value in ADDED.items() if name not in table})
            table = table.reindex(columns=[*COLUMNS, *(name for name in table if name not in COLUMNS)])
            tables.append(table.assign(folder=str(file.parent)))
    if not tables:
        raise InputError(f"no results.csv lies below {', '.join(str(folder) for folder in folders)}")
    return pd.concat(tables, ignore_index=True)


def score_table(factors: Sequence[Factors], scores: Sequence[Tensor], errors: Sequence[Tensor] | None = None) -> pd.DataFrame:
    """A row a component: its place, singular value and score, and where ``errors`` are given the perturbation's standard error."""
    parts = []
    for i, (factor, score) in enumerate(zip(factors, scores)):
        b = factor.block
        part = pd.DataFrame({"component": range(b.rank), "singular_value": factor.S.numpy(), "score": score.double().cpu().numpy()})
        place = {"layer": b.layer, "block": b.index, "row_start": b.row_start, "row_stop": b.row_stop}
        place |= {"col_start": b.col_start, "col_stop": b.col_stop}
        for at, (name, value) in enumerate(place.items()):
            part.insert(at, name, value)
        if errors is not None:
            part["perturbation_standard_error"] = errors[i].numpy()
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def layer_table(sparsity: float, blocks: Sequence[Block], keep: Sequence[Tensor]) -> pd.DataFrame:
    """A row a block: the components kept of all, and whether it is stored whole."""
    rows = []
    for block, mask in zip(blocks, keep):
        kept = int(mask.sum())
        shape = f"{block.shape[0]}x{block.shape[1]}"
        rows.append([sparsity, block.layer, block.index, shape, kept, block.rank, bool(kept) and block.is_dense(kept)])
    return pd.DataFrame(rows, columns=["sparsity", "layer", "block", "shape", "kept", "full", "dense"])
