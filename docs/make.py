"""Write docs/options.md from the comments in conf/ and the typed top of the configuration, the columns in docs/run_folder.md, and the
pages of docs/reference.

    python docs/make.py

What options are stands in lrp/config/explain.py, from which ``lrp run --help`` is printed as well. tests/test_docs.py runs this and
asserts that nothing changes.
"""

from __future__ import annotations

import re

import rooms
from layout import ROOT, markdown

from lrp.config.explain import GROUPS, chosen, group, top
from lrp.files import write_text
from lrp.results.columns import DESCRIBED, OF_TEXT

OPTIONS = ROOT / "docs/options.md"
RUN_FOLDER = ROOT / "docs/run_folder.md"
HEADER = """# Options

Written by `python docs/make.py` from the comments in [conf/](../conf): edit those, not this file.

Choose one of a group with `group=choice`, set a value with `node.key=value`, sweep with `-m` and commas:

    python -m lrp.run -m blocking=alds blocking.k=1,2,4,8 recovery=batchnorm

`lrp run --help` prints what follows (`lrp run` and `python -m lrp.run` are the same).
A bad value stops the run at once with one sentence that names the option, the value and what is allowed.
`hydra/launcher=joblib` runs the jobs of a sweep in parallel, `ray`, `ray_cluster` and `slurm` on clusters ([sweeps.md](sweeps.md));
`hydra.run.dir` and `hydra.sweep.dir` say where the folders go (below `outputs/`).
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def group_section(name: str) -> str:
    """A group: its choices, and one row per option with the choices that have it."""
    found = group(name)
    default = chosen().get(name, "null")
    rows = [[f"`{each}`" + (" (default)" if each == default else ""), _cell(what)] for each, what in found.choices.items()]
    parts = [f"## {name}", found.meaning, markdown(["choice", "what it is"], rows).strip()]
    rows = []
    for option, having in found.options:
        choices = ", ".join(f"`{each}`" for each in having) if len(having) < len(found.choices) else "all"
        rows.append([f"`{name}.{option.name}`", f"`{_cell(option.value)}`", choices, _cell(option.comment)])
    if rows:
        parts.append(markdown(["option", "default", "choices", "meaning"], rows).strip())
    return "\n\n".join(parts)


def top_section() -> str:
    """The options that no group holds."""
    rows = [[f"`{option.name}`", f"`{option.value}`", option.comment] for option in top()]
    return "## Every run\n\n" + markdown(["option", "default", "meaning"], rows).strip()


def columns(text: str) -> str:
    """docs/run_folder.md with the table of the columns of results.csv written anew."""
    tables = []
    for measured, title in ((False, "asked for"), (True, "measured")):
        rows = [[f"`{column.name}`", _cell(column.meaning)] for column in (*DESCRIBED, *OF_TEXT) if column.measured == measured]
        tables.append(markdown([title, "meaning"], rows))
    table = "\n".join(tables)
    return re.sub(r"(<!-- columns -->\n).*?(<!-- end -->)", lambda match: f"{match[1]}\n{table}\n{match[2]}", text, flags=re.DOTALL)


def page() -> str:
    """docs/options.md."""
    return "\n\n".join([HEADER.strip(), top_section(), *map(group_section, GROUPS)]) + "\n"


if __name__ == "__main__":
    write_text(OPTIONS, page())
    write_text(RUN_FOLDER, columns(RUN_FOLDER.read_text(encoding="utf-8")))
    for place, text in rooms.pages().items():
        write_text(place, text)
