"""The plan of the house, read from the source: which file may know what, and who may import whom (CONTRIBUTING.md says why)."""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest
import yaml
from torch.nn.modules import conv, linear, sparse

import lrp
from lrp.config.paths import CONF
from lrp.layer.build import KINDS

ROOT = Path(lrp.__file__).parent

# From the bottom up. A module imports from the levels below its own and from its own package.
LEVELS = (
    ("epochs", "errors", "follower", "heap", "locks", "order", "shelf"),
    ("files", "group", "stop"),
    ("entries", "identity", "matrices", "inputs"),
    ("batch_rule", "batch_shapes", "partition"),
    ("batches",),
    ("blocking", "dataset", "tracker"),
    ("evaluation", "layer"),
    ("standin",),
    ("training", "network"),
    ("cost", "layer_statistics", "estimator", "model", "recovery"),
    ("evidence",),
    ("decomposition", "scorer", "selection", "results", "deploy"),
    ("form",),
    ("compensation", "figure"),
    ("report",),
    ("method",),
    ("search",),
    ("job",),
    ("study",),
    ("config",),
    ("collect", "command", "compression", "dashboard", "streaming", "tour"),
    ("run",),
    ("__main__",),
)
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}

# Files that make networks out of torch's layers, and one that puts a layer of its own in their place.
MAKE_NETWORKS = ("lrp.standin", "lrp.model", "lrp.study.networks", "lrp.study.product_layer", "lrp.study.simplicity_bias")

# Options that are no file of their own: combinations of parts under a name, and sizes of one network.
NAMED_COMBINATIONS = {
    **{f"method/{name}": "singular_vectors" for name in ("balf", "output_aware", "pca", "random", "svd_energy", "svd_uniform")},
    **{
        f"method/{name}": "singular_vectors"
        for name in ("aa_svd", "asvd", "kfac_svd", "lems", "surgeon", "svd_llm", "swift_svd", "zero_sum")
    },
    "model/vgg16_slim": "vgg16",
    "selection/global": "global_",  # a keyword of Python
}

LINES = 300
MEDIAN = 100


class Import(NamedTuple):
    """One import of one module: where it stands, and whether inside a function."""

    module: str
    target: str
    line: int
    local: bool

    def __str__(self) -> str:
        return f"{SOURCES[self.module].relative_to(ROOT.parent)}:{self.line} imports {self.target}"


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(file): file for file in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(file.read_text()) for name, file in SOURCES.items()}


def imports(module: str) -> Iterator[Import]:
    """Every import of a module, the local ones and those for types alone included."""
    local = {
        id(node)
        for function in ast.walk(TREES[module])
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [name if name in SOURCES else str(node.module) for name in inner]
        else:
            continue
        for target in dict.fromkeys(targets):
            yield Import(module, target, node.lineno, id(node) in local)


IMPORTS = [found for module in SOURCES for found in imports(module)]
OWN = [found for found in IMPORTS if found.target.split(".")[0] == "lrp" and found.module != "lrp"]  # lrp itself names what it offers


def room(module: str) -> str:
    """What of the plan a module belongs to: a package below lrp/, or a file in it."""
    return (module.split(".") + [""])[1]


def report(what: str, found: list) -> None:
    assert not found, f"{what}:\n" + "\n".join(f"  {each}" for each in found)


@pytest.mark.parametrize("file", sorted(CONF.glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_an_option_is_a_file_of_its_name(file):
    target = (yaml.safe_load(file.read_text()) or {}).get("_target_")
    if target is None:
        return
    group = file.parent.name
    expected = f"lrp.{group}.{NAMED_COMBINATIONS.get(f'{group}/{file.stem}', file.stem)}"
    assert target.rpartition(".")[0] == expected


def test_named_combinations_exist():
    report("no such option", [name for name in NAMED_COMBINATIONS if not (CONF / f"{name}.yaml").exists()])


def test_only_lrp_layer_knows_the_kinds_of_layers():
    """What a Linear or a convolution is, dense or low-rank, stands in one file of lrp/layer: nobody else names the type."""
    types = {*conv.__all__, *linear.__all__, *sparse.__all__} - {"Identity"}
    types |= {form.__name__ for kind in KINDS for form in kind.forms}
    found = []
    for module, tree in TREES.items():
        if room(module) == "layer" or any(f"{module}.".startswith(f"{place}.") for place in MAKE_NETWORKS):
            continue
        for node in ast.walk(tree):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None
            torchs = not isinstance(node, ast.Attribute) or isinstance(node.value, ast.Name) and node.value.id == "nn"
            if name in types and torchs:
                found.append(f"{SOURCES[module].relative_to(ROOT.parent)}:{node.lineno} names {name}")
    report("types of layers outside of lrp/layer", found)


def test_every_room_has_a_level():
    report("no level in LEVELS", sorted({room(module) for module in SOURCES if module != "lrp"} - LEVEL.keys()))


def test_imports_go_down():
    found = []
    for each in OWN:
        above, below = room(each.module), room(each.target)
        if above == below or below == "":  # lrp itself: its version
            continue
        if LEVEL[below] >= LEVEL[above]:
            found.append(f"{each}: {below} is not below {above}")
    report("imports that do not go down", found)


def test_no_circles():
    graph: dict[str, set[str]] = {module: set() for module in SOURCES}
    for each in OWN:
        graph[each.module].add(each.target)
    found = []
    while True:  # each circle once: without the import that closes it
        try:
            TopologicalSorter(graph).prepare()
            break
        except CycleError as error:
            circle = error.args[1]  # of each the next one imports it
            found.append(" <- ".join(circle))
            graph[circle[1]].discard(circle[0])
    report("circles", found)


def test_local_imports_say_why():
    """An import inside of a function: only so that torch is loaded late, or because what it imports is optional; a comment on
    the line, or on the one before it and its neighbours, says which."""
    found = []
    lines = {module: file.read_text().splitlines() for module, file in SOURCES.items()}
    for each in IMPORTS:
        if not each.local:
            continue
        text, at = lines[each.module], each.line - 1
        while re.match(r"\s*(from|import) ", text[at - 1]):
            at -= 1
        comments = [line.partition("#")[2] for line in (text[each.line - 1], text[at - 1])]
        if not any(re.search("torch|extra|optional", comment) for comment in comments):
            found.append(each)
    report("imports inside of functions, without the reason", found)


def test_files_that_are_run_import_pythons_own_modules():
    """``python lrp/run.py`` looks for modules in the folder of the file first: one named statistics would be found by random."""
    folders = {SOURCES[module].parent for module, tree in TREES.items() if any("__main__" in ast.dump(node) for node in tree.body)}
    assert ROOT in folders
    found = [path for folder in folders for path in folder.iterdir() if path.suffix in (".py", "") and path.stem in sys.stdlib_module_names]
    report("modules of Python's own names beside files that are run", sorted(found))


def test_files_are_short():
    counts = {str(file.relative_to(ROOT.parent)): len(file.read_text().splitlines()) for file in SOURCES.values()}
    report(f"files of more than {LINES} lines", [f"{file}: {count}" for file, count in counts.items() if count > LINES])
    assert median(counts.values()) <= MEDIAN
