"""What runs and sweeps are called."""

from datetime import datetime
from types import SimpleNamespace

import pytest
import yaml

from lrp.config.sweeps import sweep_name
from lrp.tracker.names import LONGEST, LONGEST_TAG, group_name, run_name, tags

DATE = datetime(2026, 1, 31, 12, 5)
CHOSEN = {"method": "balf", "label": "balf", "model": "resnet20", "dataset": "cifar10", "scorer": "energy", "recovery": "none"}


@pytest.mark.parametrize(
    ("chosen", "name", "group"),
    [
        (CHOSEN, "balf; resnet20 on cifar10; seed 3; 2026-01-31 12:05", "balf resnet20 2026-01-31"),
        (
            {**CHOSEN, "method": "singular_vectors", "label": "relative error, alds"},
            "singular_vectors: relative error, alds; resnet20 on cifar10; seed 3; 2026-01-31 12:05", "singular_vectors resnet20 2026-01-31",
        ),
        ({"study": "dim_rank", "dataset": "mnist"}, "dim_rank; mnist; seed 3; 2026-01-31 12:05", "dim_rank 2026-01-31"),
        ({"study": "sweep", "label": "balf,pca resnet20 x"}, "sweep: balf,pca resnet20 x; 2026-01-31 12:05", None),
    ],
)  # fmt: skip
def test_method_model_and_date(chosen, name, group):
    assert run_name(chosen, {"seed": 3}, DATE) == name
    assert group is None or group_name(chosen, DATE) == group


def test_tags_are_the_parts_that_do_something():
    assert tags(CHOSEN, ["paper", "balf"]) == ["balf", "resnet20", "cifar10", "energy", "paper"]


def test_nothing_is_longer_than_wandb_takes():
    long = dict.fromkeys(CHOSEN, "a.b" * 100)
    assert len(run_name(long, {"seed": 0}, DATE)) == len(group_name(long, DATE)) == LONGEST
    assert [len(tag) for tag in tags(long, [])] == [LONGEST_TAG]


@pytest.mark.parametrize(
    ("words", "params", "folder", "name"),
    [
        (["method=balf,pca", "seed=0,1"], None, "2026-01-31/12-05-00-1", "balf,pca vgg16 2026-01-31 12-05-00-1"),
        (["model=resnet20"], {"method": "balf,pca"}, "mine", "balf,pca resnet20 mine"),
        (["experiment=figure3"], None, "mine", "figure3 singular_vectors vgg16 mine"),
        (["study=dim_rank"], None, "mine", "dim_rank mine"),
        (["method=" + ",".join(f"method_{i}" for i in range(20))], None, "mine", "20 of method_0 and others vgg16 mine"),
    ],
)
def test_a_sweep_is_called_by_what_is_swept(words, params, folder, name, tmp_path):
    place = tmp_path / folder
    place.mkdir(parents=True)
    noted = {"hydra": {"overrides": {"task": words}, "sweeper": {"params": params}}}
    (place / "multirun.yaml").write_text(yaml.safe_dump(noted))
    choices = {"method": "singular_vectors", "model": "vgg16", "experiment": None, "study": None}
    hydra = SimpleNamespace(sweep=SimpleNamespace(dir=str(place)), runtime=SimpleNamespace(choices=choices))
    assert sweep_name(hydra) == name


def test_a_sweep_without_hydras_note(tmp_path):
    hydra = SimpleNamespace(
        sweep=SimpleNamespace(dir=str(tmp_path / "x")), runtime=SimpleNamespace(choices={"method": "balf", "model": "m"})
    )
    assert sweep_name(hydra) == "balf m x"
