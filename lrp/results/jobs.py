"""What the folders of jobs say of how far they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lrp.errors import one_line
from lrp.results.plain import read_settings
from lrp.results.tables import read_if_there

REASON = re.compile(r"failed: (?P<reason>.*)$")
LOG = "lrp.log"


def job_folders(folder: Path) -> list[Path]:
    """The folders of a sweep's jobs that have tables, or the folder itself: a sweep's own table holds theirs once more."""
    jobs = [file.parent for file in folder.rglob("results.csv")]
    jobs = [job for job in jobs if not any(job in other.parents for other in jobs)]
    return sorted(jobs, key=lambda path: (len(path.name), path.name))


def rows_of(job: Path) -> int:
    """How many rows a job has stored."""
    table = read_if_there(job / "results.csv")
    return 0 if table is None else len(table)


def rows_asked(job: Path) -> int | None:
    """How many rows a job will have when it is done; None where nothing says it."""
    try:
        noted = json.loads((job / "versions.json").read_text(encoding="utf-8")).get("rows")
    except (OSError, ValueError, AttributeError):
        noted = None
    if noted is None and (job / "config.yaml").is_file():  # of an earlier version
        sparsity = read_settings(job / "config.yaml").get("sparsity")
        grid = sparsity.get("grid") if isinstance(sparsity, dict) else None
        noted = len(grid) if isinstance(grid, list) else None
    return noted if isinstance(noted, int) else None


def why_no_rows(job: Path) -> str:
    """Why a job has stored nothing."""
    return failure(job) or "it was stopped, or still runs"


def failure(job: Path) -> str | None:
    """Why a job failed, in the last words that its log has of that."""
    try:
        lines = (job / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    reasons = [match["reason"] for line in lines if (match := REASON.search(line))]
    return one_line(reasons[-1]) if reasons else None
