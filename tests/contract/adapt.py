"""What the contracts ask of lrp, in one place: where options are, how a part of each group is made and called.

A test of a contract names no option. It asks ``every(group)`` for all of lrp's and for those of the folders that the user names
(``pytest tests/contract --conf my/conf``, or the environment variable LRP_CONF, several separated as in PATH).
"""

import dataclasses
import functools
import os
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import yaml
from helpers import flat
from hydra.utils import get_object

import lrp
from lrp.compensation.base import compensate as lrp_compensate
from lrp.config.build import compose_job
from lrp.config.parts import make
from lrp.config.paths import CONF
from lrp.cost.costs import make_costs
from lrp.decomposition.base import decompose as lrp_decompose
from lrp.evidence import Evidence
from lrp.layer.build import build
from lrp.layer_statistics.gather import gather
from lrp.network.survey import find_candidates
from lrp.partition import cut
from lrp.recovery.context import Context

PACKAGE = Path(lrp.__file__).parent
GROUPS = sorted(folder.name for folder in CONF.iterdir() if (PACKAGE / folder.name / "__init__.py").exists() and any(folder.glob("*.yaml")))
USER = [Path(folder).resolve() for folder in os.environ.get("LRP_CONF", "").split(os.pathsep) if folder]
sys.path += [str(place) for folder in USER for place in (folder, folder.parent)]  # where a user's modules are


# Finding and making


def options(group):
    """The file of each option of a group, by name."""
    return {file.stem: file for folder in (*USER, CONF) for file in sorted(folder.glob(f"{group}/*.yaml"))}


def every(group):
    """A test of every option: its argument is ``name``."""
    return pytest.mark.parametrize("name", sorted(options(group)))


@functools.cache
def compose(*words):
    """The job that these words describe."""
    search = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in USER)}]"] if USER else []
    return compose_job(*search, *words)


def from_hydra(group, name):
    """The part as the command line makes it."""
    job = compose(f"{group}={name}")
    return getattr(job, group) if hasattr(job, group) else getattr(job.method, group)


def from_python(group, name, **changed):
    """The part as ``lrp.compress`` and scripts make it, with these options changed where it has them."""
    if group in ("method", "model", "study") or options(group)[name].parents[1] != CONF:
        part = from_hydra(group, name)
    else:
        part = make(group, name)
    fields = {field.name for field in dataclasses.fields(part)} if dataclasses.is_dataclass(part) else set()
    changed = {key: value for key, value in changed.items() if key in fields}
    return dataclasses.replace(part, **changed) if changed else part


def takes(group, name, option):
    """Whether an option of a group has an option of its own of this name."""
    return option in {field.name for field in dataclasses.fields(target(group, name)[0])}


def target(group, name):
    """The class or function that an option names, and whether no other option of its group names it too."""
    targets = {option: yaml.safe_load(file.read_text())["_target_"] for option, file in options(group).items()}
    return get_object(targets[name]), list(targets.values()).count(targets[name]) == 1


# Calling


def survey(model, x):
    return find_candidates(model, x[:1])


def blocks_of(blocking, matrices):
    """The blocks of every layer, within the groups of a grouped convolution."""
    return cut(blocking, matrices)


def decompose(decomposition, candidates, blocks, model, x):
    return lrp_decompose(candidates.matrices, blocks, decomposition, gather(model, candidates, x, decomposition.needs, flat))


def plain_factors(model, x, blocking="none"):
    """(candidates, factors) of the SVD."""
    candidates = survey(model, x)
    return candidates, lrp_decompose(candidates.matrices, blocks_of(from_python("blocking", blocking), candidates.matrices))


def moments(estimator, model, factors, x):
    """Of each block the moments of its components' changes."""
    return estimator(model, factors, x)[0]


def score(scorer, model, candidates, factors, x):
    """(R,) of each block."""
    evidence = Evidence(model, x).of(from_python("estimator", "exact"), (), 65536)
    evidence.labels = torch.zeros(len(x), dtype=torch.long)
    return scorer(factors, evidence)


def first_components(factors, share):
    """Masks of the first components of each block, all of one that is stored whole."""
    masks = [torch.arange(f.block.rank) < int(f.block.rank * share) for f in factors]
    return [mask | f.block.is_dense(int(mask.sum())) for f, mask in zip(factors, masks, strict=True)]


def remove(model, factors, keep):
    return build(model, factors, keep)


def compensate(compensation, pruned, model, candidates, x):
    """In place, given what it needs to know of the dense network."""
    lrp_compensate(compensation, pruned, candidates, Evidence(model, x).of(from_python("estimator", "first_order"), (), 65536))


def method(name, *words):
    return compose(f"method={name}", *words).method


def fit(chosen, model, x):
    return chosen.fit(Evidence(model, x))


def planned(fitted, sparsity):
    """(the plan, what it costs, what was allowed), in the unit of the method's budget."""
    plan = fitted.plan(sparsity)
    matrices, positions = fitted.evidence.survey.matrices, fitted.evidence.survey.positions
    if fitted.method.budget == "params":
        held, dense = plan.params, sum(matrix.weight.numel() for matrix in matrices.values())
    else:
        held, dense = plan.macs, sum(positions[name] * matrix.weight.numel() for name, matrix in matrices.items())
    return plan, held, (1 - Fraction(str(sparsity))) * dense


def build_plan(fitted, plan):
    """The smaller network, compensated."""
    return fitted.compress(plan)[0]


def select(selection, blocks, scores, sparsity):
    return selection(blocks, scores, sparsity, make_costs(blocks))


def reads_network(selection):
    """Whether it chooses by the network and not by scores."""
    return selection.reads_network


def recover(recovery, model, teacher, data, folder):
    images = data.normalise(data.train.images[:64])
    recovery(model, Context(images=lambda: images.split(32), data=data, teacher=teacher, unfinished=folder / "state.pt"))


def load(group_name, **changed):
    return from_python("dataset", group_name, **changed).load()
