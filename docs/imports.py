"""Write the table of old and new imports in CHANGELOG.md: every public name of lrp at a revision, where it is now.

    python docs/imports.py REVISION

A name that moved is found by itself; one that was renamed stands in RENAMED. Run by hand, since it needs the history.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator

from layout import ROOT, markdown

from lrp.files import write_text

# Names that are not only elsewhere: old -> what to use now.
RENAMED = {
    "lrp.data.Part": "`lrp.dataset.base.Part`",
    "lrp.errors.reject": "gone: `raise InputError(option, value, allowed)`",
    "lrp.compression.calibration_inputs": "`lrp.batches.Batches.of`",
    "lrp.config.CalibrationNode": "`lrp.job.calibration.Calibration`",
    "lrp.config.make_part": "`lrp.config.parts.make`",
    "lrp.scoring.moments.read_tensors": "`lrp.entries.read_entry`",
    "lrp.fitted.Fitted": "`lrp.method.base.FittedMethod`",
    "lrp.layers.KINDS": "`lrp.layer.build.find_kind`",
    "lrp.results.layer_table": "`lrp.method.plan.Plan.rows`",
    "lrp.studies.plots.STUDIES": "gone: conf/study/*.yaml name their figure",
    "lrp.studies.plots.summarise_study": "`lrp.figure.sweep.summarise`",
    "lrp.studies.training.whole_training_set": "`lrp.dataset.base.Data.undivided`",
    "lrp.tracking.flat_settings": "`lrp.files.flatten`",
}


def names(text: str) -> Iterator[str]:
    """Public classes, functions and constants of a module."""
    for node in ast.parse(text).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)] if isinstance(node, ast.AnnAssign) else []
        )
        found = [target.id for target in targets if isinstance(target, ast.Name)]
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found.append(node.name)
        yield from (name for name in found if not name.startswith("_") and name != "log")


def module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def then(revision: str) -> dict[str, list[str]]:
    """Module -> names at a revision."""
    paths = [path for path in git("ls-tree", "-r", "--name-only", revision, "lrp").split() if path.endswith(".py")]
    return {module(path): list(names(git("show", f"{revision}:{path}"))) for path in paths}


def now() -> dict[str, list[str]]:
    """Module -> names in the working tree."""
    paths = sorted((ROOT / "lrp").rglob("*.py"))
    return {module(str(path.relative_to(ROOT))): list(names(path.read_text(encoding="utf-8"))) for path in paths}


def closest(old: str, homes: list[str]) -> str:
    """Of several modules that define a name, the one whose own name shares most words with the old."""
    words = set(re.split(r"[._]", old))
    return max(homes, key=lambda home: (len(words & set(re.split(r"[._]", home))), home))


def table(revision: str) -> str:
    """One row per old and new module, with the names that went from one to the other."""
    current, rows = now(), defaultdict(list)
    homes = defaultdict(list)
    for home, found in current.items():
        for name in found:
            homes[name].append(home)
    for old, found in then(revision).items():
        for name in found:
            if f"{old}.{name}" in RENAMED:
                rows[old, RENAMED[f"{old}.{name}"]].append(name)
            elif name in current.get(old, ()):
                continue
            elif homes[name]:
                rows[old, f"`{closest(old, homes[name])}`"].append(name)
            else:
                rows[old, "gone"].append(name)
    lines = [[f"`{old}`", ", ".join(f"`{name}`" for name in sorted(moved)), new] for (old, new), moved in rows.items()]
    return markdown(["was in", "names", "is in"], lines)


if __name__ == "__main__":
    page = ROOT / "CHANGELOG.md"
    text = page.read_text(encoding="utf-8")
    marked = re.compile(r"(<!-- imports -->\n).*?(<!-- end -->)", re.DOTALL)
    write_text(page, marked.sub(lambda match: f"{match[1]}\n{table(sys.argv[1])}\n{match[2]}", text))
