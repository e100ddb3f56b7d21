"""What every option is, in a sentence, from the comments in conf/ and the typed top of the configuration.

An option's meaning is the comment behind it in its YAML file; what a choice is, the comment above _target_ or, without one, the first
sentence of its class. ``lrp run --help`` prints it, and docs/options.md is written from it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

import yaml
from hydra.utils import get_object

from lrp.config.paths import CONF
from lrp.config.schema import Config

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
    "threads": "Threads of torch; null: as many as the job was given (OMP_NUM_THREADS, SLURM_CPUS_PER_TASK), or torch's own number",
    "resume": "Goes on in a folder that has rows; without it such a folder is refused",
    "cache_dir": "Scores, statistics and trained networks are cached here, by content",
    "optimise": "A column of results.csv, such as `accuracy` or `macs`: its mean over the rows of a job is what a job returns to a sweeper "
    "that searches (`hydra/sweeper=optuna`, see docs/sweeps.md); null: nothing is returned",
}


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


@functools.cache
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


@functools.cache
def chosen() -> dict[str, str]:
    """The default choice of each group."""
    entries = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return {name: str(value) for entry in entries if isinstance(entry, dict) for name, value in entry.items()}


class Group(NamedTuple):
    """A group of options.

    Attributes:
        name: What stands before the equals sign.
        meaning: What it decides.
        choices: What can stand behind it, the default first, and what each is.
        options: Its options, and the choices that have each; a name can come several times, with other values.
    """

    name: str
    meaning: str
    choices: dict[str, str]
    options: list[tuple[Option, list[str]]]


def group(name: str) -> Group:
    """One of ``GROUPS``, as the files in conf/ describe it."""
    default, common = chosen().get(name, "null"), shared().get(name, [])
    texts = {file.stem: file.read_text(encoding="utf-8") for file in sorted((CONF / name).glob("*.yaml"))}
    names = sorted(texts, key=lambda each: (each != default, each))
    own = {each: list(options(text)) if name != "experiment" else [] for each, text in texts.items()}
    holders: dict[Option, list[str]] = {}
    for option in common:  # a mapping adds to the shared one, any other value replaces it
        replaced = {each for each, lines in own.items() for line in lines if line.name == option.name and not line.value.startswith("{")}
        holders[option] = [each for each in takers(texts, option.name) if each not in replaced]
    meaning = {option.name: option.comment for option in common}
    for each in names:
        for option in own[each]:
            holders.setdefault(option._replace(comment=option.comment or meaning.get(option.name, "")), []).append(each)
    found = [(option, [each for each in names if each in having]) for option, having in holders.items()]
    return Group(name, GROUPS[name], {each: description(texts[each]) for each in names}, sorted(found, key=lambda pair: pair[0].name))


def top() -> list[Option]:
    """The options that no group holds, with the defaults of the typed configuration."""
    found = []
    for field in dataclasses.fields(Config):
        if field.name in GROUPS:
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        nested = dataclasses.is_dataclass(default) and not isinstance(default, type)
        values = {f"{field.name}.{key}": value for key, value in vars(default).items()} if nested else {field.name: default}
        found += [Option(name, yaml.safe_dump(value).split("\n")[0], MEANINGS[name]) for name, value in values.items()]
    return found


USAGE = """lrp: low-rank pruning of trained networks.

  {run} blocking=square scorer=perturbation
  {run} -m blocking=alds,square,none scorer=magnitude,relative_error,perturbation,variance

Choose one of a group with group=choice, set a value with node.key=value, sweep with -m and commas.
hydra/launcher=joblib runs the jobs of a sweep in parallel; ray, ray_cluster and slurm run them on clusters.
--config-dir FOLDER adds groups and choices of your own.
--cfg job prints the whole configuration; --hydra-help has the flags of Hydra.
"""


def help_text(run: str) -> str:
    """Every group, choice and option with what it is. ``run``: how the command is called."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 140)

    def entry(name: str, meaning: str, indent: int) -> str:
        text = f"{name}  {meaning.replace('`', '')}".rstrip()
        return textwrap.fill(text, width, initial_indent=" " * indent, subsequent_indent=" " * (indent + 4))

    lines = [USAGE.format(run=run), "EVERY RUN"]
    lines += [entry(f"{option.name}={option.value}", option.comment, 2) for option in top()]
    for name in GROUPS:
        found = group(name)
        default = next(iter(found.choices)) if chosen().get(name) in found.choices else None
        lines += ["", textwrap.fill(f"{name.upper()}: {found.meaning.replace('`', '')}", width, subsequent_indent="    ")]
        lines += [entry(f"{name}={each}{' (default)' * (each == default)}", what, 2) for each, what in found.choices.items()]
        for option, having in found.options:
            of = "" if len(having) == len(found.choices) else f" [{', '.join(having)}]"
            lines.append(entry(f"{name}.{option.name}={option.value}{of}", option.comment, 4))
    return "\n".join(lines)
