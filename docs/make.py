"""Write docs/options.md from the comments in conf/ and the typed top of the configuration, and the columns in docs/run_folder.md.

    python docs/make.py

An option's meaning is the comment behind it in its YAML file; what a choice is, the comment above _target_ or, without one,
the first sentence of its class. tests/test_docs.py runs this and asserts that nothing changes.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import NamedTuple

import yaml
from hydra.utils import get_object
from layout import ROOT, markdown

from lrp.config.schema import Config
from lrp.files import write_text
from lrp.results.columns import DESCRIBED, OF_TEXT

CONF = ROOT / "conf"
OPTIONS = ROOT / "docs/options.md"
RUN_FOLDER = ROOT / "docs/run_folder.md"
LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w.]+):(?: (?P<value>[^\s#].*?))?(?: +# (?P<comment>.*))?$")
TARGETED = re.compile(r"^_target_: ([\w.]+)$", re.MULTILINE)

# What each group decides, in the order of a run.
GROUPS = {
    "model": "The network to compress, and how it is trained when no checkpoint is given.",
    "dataset": "The images. 5,000 training images (a tenth of a small set) are kept as validation images, the same in every run.",
    "method": "How a whole network is compressed: by the parts below as you choose them, by a named combination of them, or by a rival.",
    "blocking": "How each layer matrix is cut into blocks.",
    "decomposition": "What a component of a block is.",
    "scorer": "How important a component is. s is its norm in the metric of the decomposition, y the output, y_b the output without it.",
    "estimator": "How y - y_b is computed, for the scorers that look at outputs.",
    "selection": "Which components stay.",
    "sparsity": "The sparsities of a run: the shares of the compressed layers' parameters to remove, each in [0, 1).",
    "compensation": "Refits what is kept to what the dense layers gave, layer by layer and in closed form: no gradient steps, no labels.",
    "search": "Sets options by trial, without labels, before each plan. `search.steps` lists what is tried, such as "
    "`search.steps=[{scorer: [{depth: 0}, {depth: 1}]}]`; the run folder's search.csv says what came of it.",
    "recovery": "What is done after pruning.",
    "tracker": "Where a run is reported besides its folder.",
    "study": "Trains networks instead of pruning one. Of the other options only `dataset`, `tracker`, `seed`, `device`, `threads`, "
    "`resume` and `cache_dir` are read then; any other is refused.",
    "experiment": "A whole setting, as the paper's figures and our tables need it.",
}
# Options that no YAML file holds.
MEANINGS = {
    "budget": "What a sparsity is a share of: `params` (parameters), `macs` (multiply-accumulates) or `milliseconds` of the compressed "
    "layers; milliseconds are measured on this machine and need parts that know forms, as those of `method=output_aware`",
    "budget_of": "What a sparsity is a share of: of the parameters or multiply-accumulates of the compressed `layers`, or of the whole "
    "`network` with all that is left alone, of which no more can go than the layers have",
    "macs_removed": "With `budget=params`: the share of the multiply-accumulates that has to go as well; null: no second budget",
    "forms": "In which forms a layer may be stored, of each the one that loses least under the budget: a list of `matrix`, `tucker2`, "
    "`spatial`, `nested`, `pivoted`, `tucker2_pivoted`, `spatial_pivoted`, or `auto`, the best that the method's parts know of; null: "
    "those of the method",
    "exclude": "Layers to leave alone: their names, names of modules that contain them, or patterns such as `*.conv1`",
    "calibration.images": "Unlabelled training images for batch norm, decomposition and compensation",
    "calibration.scoring_images": "How many of those images the components are scored on",
    "calibration.seed": "Which images are drawn",
    "calibration.batch_size": "Images at a time",
    "calibration.samples": "About how many positions of each layer's output decomposition and compensation look at, over all calibration "
    "images; use several times the number of columns of the widest layer matrix",
    "rounds.keep_factor": "Score again each time this share of the remaining parameters is left; null: score once",
    "evaluation.batch_size": "Images at a time when accuracy is measured",
    "evaluation.latency": "Adds milliseconds at batch 1 and 64, dense and compressed in alternation, as median and interquartile range; "
    "refused while other jobs run",
    "evaluation.part": "The images on which accuracy is measured: `test` or `validation`. Make your choices on `validation`",
    "save": "Writes the compressed network of every row to `model-<sparsity>.safetensors`; `lrp.load` reads it",
    "seed": "Seeds the training of the network and every part that draws",
    "device": "`auto`, `cpu`, `cuda` or `cuda:1`, ...",
    "threads": "Threads of torch; null leaves torch's number",
    "resume": "Goes on in a folder that has rows; without it such a folder is refused",
    "cache_dir": "Scores, statistics and trained networks are cached here, by content",
}
HEADER = """# Options

Written by `python docs/make.py` from the comments in [conf/](../conf): edit those, not this file.

Choose one of a group with `group=choice`, set a value with `node.key=value`, sweep with `-m` and commas:

    python -m lrp.run -m blocking=alds blocking.k=1,2,4,8 recovery=batchnorm

`python -m lrp.run --help` lists all groups and options. A bad value stops the run at once with one sentence that names the
option, the value and what is allowed. `hydra/launcher=joblib hydra.launcher.n_jobs=2` runs the jobs of a sweep in parallel;
`hydra.run.dir` and `hydra.sweep.dir` say where the folders go (below `outputs/`).
"""


class Option(NamedTuple):
    """A line of a YAML file: its name, the value as written there, the comment behind it."""

    name: str
    value: str
    comment: str


def options(text: str) -> Iterator[Option]:
    """The options of a YAML file in block style, nested names with dots; ``_target_`` and ``defaults`` left out."""
    path: list[str] = []
    for line in text.splitlines():
        if not (match := LINE.match(line)):
            continue
        path = [*path[: len(match["indent"]) // 2], match["key"]]
        if path[0] in ("_target_", "name", "defaults", "parts", "hydra", "figure") or not match["value"]:
            continue
        yield Option(".".join(path), match["value"], match["comment"] or "")


def shared() -> dict[str, list[Option]]:
    """The options that all choices of a group share, from conf/options.yaml: group -> options, named within the group."""
    file, groups = CONF / "options.yaml", {}
    if file.is_file():
        for option in options(file.read_text(encoding="utf-8")):
            group, _, name = option.name.partition(".")
            groups.setdefault(group, []).append(option._replace(name=name))
    return groups


def description(text: str) -> str:
    """The comment above the first key, or the first sentence of the class that ``_target_`` names."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    if lines:
        return " ".join(f"`{line}`" if line.startswith("python ") else line for line in lines)
    target = TARGETED.search(text)
    if not target:
        return ""
    first = " ".join((inspect.getdoc(get_object(target[1])) or "").split("\n\n")[0].split()).replace("``", "`")
    return re.split(r"(?<=\.) (?=[A-Z`])", first)[0]


def takers(texts: dict[str, str], option: str) -> list[str]:
    """The choices of a group whose class has such an option; all of them where no class has it (a model is built around its class)."""
    found = []
    for name, text in texts.items():
        target = TARGETED.search(text)
        if target and option in inspect.signature(get_object(target[1])).parameters:
            found.append(name)
    return found or list(texts)


def chosen() -> dict[str, str]:
    """The default choice of each group."""
    entries = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return {name: str(value) for entry in entries if isinstance(entry, dict) for name, value in entry.items()}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def group_section(group: str, default: str, common: list[Option]) -> str:
    """A group: its choices, and one row per option with the choices that have it."""
    texts = {file.stem: file.read_text(encoding="utf-8") for file in sorted((CONF / group).glob("*.yaml"))}
    names = sorted(texts, key=lambda name: (name != default, name))
    rows = [[f"`{name}`" + (" (default)" if name == default else ""), _cell(description(texts[name]))] for name in names]
    parts = [f"## {group}", GROUPS[group], markdown(["choice", "what it is"], rows).strip()]
    own = {name: list(options(text)) if group != "experiment" else [] for name, text in texts.items()}
    holders: dict[Option, list[str]] = {}
    for option in common:  # a mapping adds to the shared one, any other value replaces it
        replaced = {name for name, lines in own.items() for line in lines if line.name == option.name and not line.value.startswith("{")}
        holders[option] = [name for name in takers(texts, option.name) if name not in replaced]
    meaning = {option.name: option.comment for option in common}
    for name in names:
        for option in own[name]:
            holders.setdefault(option._replace(comment=option.comment or meaning.get(option.name, "")), []).append(name)
    rows = []
    for option, having in sorted(holders.items(), key=lambda each: each[0].name):
        choices = ", ".join(f"`{name}`" for name in names if name in having) if len(having) < len(names) else "all"
        rows.append([f"`{group}.{option.name}`", f"`{_cell(option.value)}`", choices, _cell(option.comment)])
    if rows:
        parts.append(markdown(["option", "default", "choices", "meaning"], rows).strip())
    return "\n\n".join(parts)


def top() -> str:
    """The options that no group holds, with the defaults of the typed configuration."""
    rows = []
    for field in dataclasses.fields(Config):
        if field.name in GROUPS:
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        nested = dataclasses.is_dataclass(default) and not isinstance(default, type)
        values = {f"{field.name}.{key}": value for key, value in vars(default).items()} if nested else {field.name: default}
        rows += [[f"`{name}`", f"`{yaml.safe_dump(value).split(chr(10))[0]}`", MEANINGS[name]] for name, value in values.items()]
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
    defaults, common = chosen(), shared()
    sections = [group_section(group, defaults.get(group, "null"), common.get(group, [])) for group in GROUPS]
    return "\n\n".join([HEADER.strip(), top(), *sections]) + "\n"


if __name__ == "__main__":
    write_text(OPTIONS, page())
    write_text(RUN_FOLDER, columns(RUN_FOLDER.read_text(encoding="utf-8")))
