"""Several processes together find what one finds."""

import os
import signal
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from forked import together
from shell import run_here
from torch import Tensor, nn

import lrp
from lrp.blocking.none import Unblocked
from lrp.cost import layer_time
from lrp.decomposition.base import decompose
from lrp.estimator.exact import ExactEstimator
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.evidence import Evidence
from lrp.group import ALONE, LOST, UNIT, Group
from lrp.job.prune import Job
from lrp.partition import cut
from lrp.results.tables import read_table

pytestmark = pytest.mark.slow
EXAMPLES = 2 * UNIT + 40  # three units: of four processes one has none
NEEDS = ("inputs", "products", "magnitudes", "gradients", "outputs")


class Expert(nn.Module):
    """A layer that runs on some of the rows alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_add(0, (x[:, 0] > 0).nonzero()[:, 0], self.layer(x[x[:, 0] > 0]))


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*layers, nn.Flatten(), Expert(), nn.Linear(8, 40)).eval()  # more outputs than are differentiated


def images() -> Tensor:
    return torch.randn(EXAMPLES, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def everything(group: Group) -> dict[str, Tensor]:
    """Scores by both estimators, statistics, and a compressed network."""
    model, x, found = network(), images(), dict[str, Tensor]()
    evidence = Evidence(model, x, scoring_images=30, group=group).of(FirstOrderEstimator(projections=8), (), 1000)
    factors = decompose(evidence.matrices, cut(Unblocked(), evidence.matrices), group=group)
    exact = evidence.of(ExactEstimator(), ("7.layer", "8"), 1000)
    of_exact = [factor for factor in factors if factor.block.layer in exact.matrices]
    for name, held in {"first order": evidence.moments(factors), "exact": exact.moments(of_exact)}.items():
        found |= {f"{name} {i} {key}": getattr(each, key) for i, each in enumerate(held) for key in ("first", "second")}
    for name, held in evidence.statistics(NEEDS).items():
        values: dict[str, Any] = {"C": held.inputs, "G": held.gradients, "zz": held.zz, "mean": held.mean, "abs": held.magnitudes}
        found |= {f"{name} {key}": value for key, value in values.items() if value is not None}
    processes = dist.group.WORLD if group.fixed else None
    small, report = lrp.compress(model, x, 0.6, samples=2000, scoring_images=60, group=processes)
    found |= {f"compressed {name}": value for name, value in small.state_dict().items()}
    cut_by_plan, _ = lrp.compress(model, x, 0.4, method="alds", group=processes)  # decomposed when it is planned
    found |= {f"alds {name}": value for name, value in cut_by_plan.state_dict().items()}
    found["rank"] = torch.tensor([-1 if rank != rank else int(rank) for rank in report["rank"].astype(float)])
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Tensor]]]:
    class Found(dict[int, list[dict[str, Tensor]]]):
        def __missing__(self, size: int) -> list[dict[str, Tensor]]:
            self[size] = together(size, everything, tmp_path_factory.mktemp("group"))
            return self[size]

    return Found()


@pytest.mark.parametrize("size", [pytest.param(2, marks=pytest.mark.long), 4])
def test_any_number_of_processes_finds_the_same(found: dict[int, list[dict[str, Tensor]]], size: int) -> None:
    (one,) = found[1]
    for each in found[size]:
        assert each.keys() == one.keys()
        for name, value in one.items():
            rounding = 1e-5 if name.startswith("compressed") else 1e-9  # fits are solved in double precision and stored in single
            torch.testing.assert_close(each[name], value, rtol=rounding, atol=rounding * float(value.abs().max()), msg=name)


def test_all_processes_hold_the_same_network_to_the_last_bit(found: dict[int, list[dict[str, Tensor]]]) -> None:
    first, *others = found[4]
    for other in others:
        assert all(torch.equal(other[name], value) for name, value in first.items() if name.startswith(("compressed", "rank")))


def test_a_group_of_one_finds_what_a_process_alone_finds(found: dict[int, list[dict[str, Tensor]]]) -> None:
    alone = everything(ALONE)
    for name, value in found[1][0].items():
        if name.startswith("compressed"):
            continue  # single weights may differ where a layer is nearly singular
        torch.testing.assert_close(value, alone[name], rtol=1e-5, atol=1e-6 * float(value.abs().max()), msg=name)


def refusal(*given: Any, **options: Any) -> str:
    """Why a network is not compressed by the processes of a group."""
    with pytest.raises(lrp.InputError) as refused:
        lrp.compress(*given, **options, group=dist.group.WORLD)
    return str(refused.value)


def refuses(group: Group) -> str:
    """The second process has other weights, or examples that are not numbers."""
    said = []
    for weights, examples in ((2.0, 1.0), (1.0, 2.0), (1.0, float("nan"))):
        model, x = network(), images()
        if not group.first:
            model[0].weight.data.mul_(weights)
            x = x * examples
        said.append(refusal(model, x, 0.5))
    return "|".join(said)


def test_what_one_process_refuses_all_refuse(tmp_path) -> None:
    first, second = together(2, refuses, tmp_path)
    assert first == second
    weights, examples, values = first.split("|")
    assert weights == "the processes of the group have weights that differ; give all of them the same network, examples and options"
    assert "examples that differ" in examples and values == "calibration: the inputs hold values that are not finite"


def differs(group: Group) -> str:
    """The second process is asked for something else."""
    different = ({"method": "svd_llm"}, {"scoring_images": 8}, {"exclude": ["0"]}, {"sparsity": 0.6}, {"method": "no such"})
    return "|".join(refusal(network(), images(), **({} if group.first else options)) for options in different)


def test_processes_that_are_asked_for_different_things_say_so(tmp_path) -> None:
    """They would ask each other for sums of different things."""
    first, second = together(2, differs, tmp_path)
    assert first == second
    *options, sparsities, unknown = first.split("|")
    assert len(options) == 3 and all("have options that differ" in each for each in options)
    assert "have sparsities that differ" in sparsities and unknown.startswith("method=no such: no such option")


def slower(group: Group) -> str:
    """The second process is slower, and by how much depends on the layer."""

    def times(layers: Sequence[nn.Module], *_: Any) -> np.ndarray:
        sizes = np.array([sum(parameter.numel() for parameter in layer.parameters()) for layer in layers], dtype=float)
        return 100 + sizes if group.first else 100 + 10 * sizes**0.5

    layer_time._times = times
    report = lrp.compress(network(), images(), 0.3, budget="milliseconds", forms="matrix", samples=1000, group=dist.group.WORLD)[1]
    return str(report["rank"].tolist())


def test_processes_take_the_times_of_the_first(tmp_path) -> None:
    first, second = together(2, slower, tmp_path)
    assert first == second and first.startswith("[")


def ends(group: Group) -> str:
    """The second process is killed."""
    if not group.first:
        os.kill(os.getpid(), signal.SIGKILL)
    lrp.compress(network(), images(), 0.5, group=dist.group.WORLD)
    return ""


def test_a_process_that_is_lost_ends_the_others_in_a_sentence(tmp_path) -> None:
    first, second = together(2, ends, tmp_path)
    assert first.startswith(f"InputError: {LOST}") and second is None


def test_a_group_has_to_be_one() -> None:
    with pytest.raises(lrp.InputError, match="^group=int: call torch.distributed.init_process_group first$"):
        lrp.compress(network(), images(), 0.5, group=3)


def test_a_job_of_two_processes_has_the_rows_of_one(tmp_path, cache) -> None:
    """As torchrun starts it; one row is there already, as if another had stored it, and the others know."""
    words = ["scorer=perturbation", "compensation=least_squares", "sparsity.grid=[0,0.5,0.8]", "calibration.images=200", "save=true"]

    def job(group: Group) -> str:
        os.environ["TORCHELASTIC_RUN_ID"] = "tests"
        finished = Job.finished
        Job.finished = lambda self, sparsity, results: sparsity == 0.5 and bool(len(results.rows)) or finished(self, sparsity, results)
        return f"{len(run_here(cache, tmp_path / str(group.rank), *words))} rows"

    run_here(cache, tmp_path / "alone", *words)
    assert together(2, job, tmp_path / "ranks") == ["2 rows", "0 rows"]
    assert not (tmp_path / "1").exists()
    found, alone = (read_table(tmp_path / name / "results.csv").set_index("sparsity") for name in ("0", "alone"))
    numbers = ["params", "macs", "accuracy", "loss", "perturbation_true", "components_kept"]
    pd.testing.assert_frame_equal(found[numbers], alone.loc[[0.0, 0.8], numbers], rtol=1e-4)
