"""docs/reference/*.md: the public names of lrp, and a page for each room with the protocol and the parts that options name.

Written by ``docs/make.py``. What stands on the pages are directives; Sphinx fills them from the docstrings.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from hydra.utils import get_object
from layout import ROOT

import lrp
from lrp.config.explain import GROUPS

REFERENCE = ROOT / "docs/reference"
# What people extend or call, by package; the classes that options name follow by themselves.
ROOMS = {
    "blocking": ["lrp.blocking.base.Blocking"],
    "decomposition": ["lrp.decomposition.base.Decomposition"],
    "scorer": ["lrp.scorer.base.Scorer"],
    "estimator": ["lrp.estimator.base.Estimator"],
    "selection": ["lrp.selection.base.Selection"],
    "compensation": ["lrp.compensation.base.Compensation", "lrp.compensation.base.NetworkCompensation"],
    "recovery": ["lrp.recovery.base.Recovery", "lrp.recovery.context.Context"],
    "method": ["lrp.method.base.Method", "lrp.method.base.FittedMethod", "lrp.method.plan.Plan"],
    "search": ["lrp.search.base.Search"],
    "dataset": ["lrp.dataset.base.Dataset", "lrp.dataset.base.Data", "lrp.dataset.base.Part"],
    "model": [],
    "tracker": ["lrp.tracker.base.Tracker", "lrp.tracker.base.Tracked"],
    "study": ["lrp.study.job.Study", "lrp.study.job.Place"],
}
SHARED = {
    "what parts are given": ["lrp.matrices.LayerMatrix", "lrp.matrices.Block", "lrp.matrices.Components", "lrp.matrices.Factors"]
    + ["lrp.evidence.Evidence", "lrp.batches.Batches", "lrp.layer_statistics.base.LayerStatistics"],
    "jobs and tables": ["lrp.config.build.compose_job", "lrp.config.parts.make", "lrp.job.prune.run", "lrp.results.collect.collect"]
    + ["lrp.figure.accuracy.accuracy_table", "lrp.figure.accuracy.draw_figure3"],
}
INDEX = """# Python

Written by `python docs/make.py`; what a name does comes from its docstring. `import lrp` offers what stands here. Below are the packages
whose parts you can replace ([how](../extending.md)), each named as its group of [options](../options.md). Shape letters (B, K, M, N) are
explained in [CONTRIBUTING.md](../../CONTRIBUTING.md#shapes).
"""


def targets(room: str) -> list[str]:
    """The classes and functions that the options of a group name."""
    texts = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "conf" / room).glob("*.yaml"))]
    found = [name for text in texts for name in re.findall(r"^_target_: (lrp\.[\w.]+)$", text, re.MULTILINE)]
    return list(dict.fromkeys(found))


def directive(name: str) -> str:
    """A class with its public members, or a function."""
    thing = get_object(name)
    kind = "function" if not inspect.isclass(thing) else "exception" if issubclass(thing, Exception) else "class"
    members = "   :members:\n   :special-members: __call__\n" if kind == "class" else ""
    return f"```{{eval-rst}}\n.. auto{kind}:: {name}\n{members}```"


def pages() -> dict[Path, str]:
    """The text of every page."""
    names = [name for name in lrp.__all__ if not name.startswith("__")]
    rooms = "\n".join([*ROOMS, *(title.replace(" ", "_") for title in SHARED)])
    found = {REFERENCE / "index.md": "\n\n".join([INDEX.strip(), *(directive(f"lrp.{name}") for name in names)])}
    found[REFERENCE / "index.md"] += f"\n\n```{{toctree}}\n:hidden:\n\n{rooms}\n```\n"
    for room, bases in ROOMS.items():
        named = [name for name in targets(room) if name not in bases]
        parts = [f"# {room}", GROUPS[room], f"Options: [`{room}=`](../options.md#{room})."]
        parts += [directive(name) for name in bases]
        parts += ["## The parts of lrp", *(directive(name) for name in named)] if bases else [directive(name) for name in named]
        found[REFERENCE / f"{room}.md"] = "\n\n".join(parts) + "\n"
    for title, members in SHARED.items():
        parts = [f"# {title[0].upper()}{title[1:]}", *(directive(name) for name in members)]
        found[REFERENCE / f"{title.replace(' ', '_')}.md"] = "\n\n".join(parts) + "\n"
    return found
