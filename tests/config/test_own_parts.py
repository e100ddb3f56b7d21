"""Your own parts in a folder of your own: found by name, made with what they take, listed in rows and in sweeps under joblib."""

import pandas as pd
import pytest
import torch
from shell import check_refused, run_here, run_lrp

from lrp.config.build import compose_job
from lrp.errors import InputError

NUCLEAR = """
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Nuclear:
    name: ClassVar[str] = "nuclear"
    reads_outputs: ClassVar[bool] = False
    power: float = 1.0

    def __call__(self, factors, evidence):
        return [factor.S.double() ** self.power for factor in factors]
"""
CLUSTERED = """
from dataclasses import dataclass
from typing import ClassVar

from lrp.blocking.alds import AldsBlocking


@dataclass(frozen=True)
class Clustered:
    name: ClassVar[str] = "clustered"
    k: int = 4

    def __call__(self, matrices):
        return AldsBlocking(self.k)(matrices)
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """my/conf/scorer/nuclear.yaml with its module beside the conf folder; a blocking with its module in it."""
    place = tmp_path_factory.mktemp("own") / "my"
    for folder in ("conf/scorer", "conf/blocking"):
        (place / folder).mkdir(parents=True)
    (place / "nuclear_scores.py").write_text(NUCLEAR)
    (place / "conf" / "clustered_rows.py").write_text(CLUSTERED)
    (place / "conf" / "scorer" / "nuclear.yaml").write_text("_target_: nuclear_scores.Nuclear\npower: 1.0\n")
    (place / "conf" / "blocking" / "clustered.yaml").write_text("_target_: clustered_rows.Clustered\n")
    return place


@pytest.mark.long
@pytest.mark.slow
def test_a_sweep_over_your_own_parts(mine, cache):
    """By name beside lrp's own, two jobs at once; what differs is in the row. (One job after the other: tests/test_run.py.)"""
    words = ["--config-dir", "my/conf", "-m", "scorer=nuclear", "blocking=clustered", "blocking.k=2,4", "sparsity.grid=[0.5]"]
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", f"hydra.sweep.dir={mine}/sweep"]
    run_lrp(cache, *words, *joblib, cwd=mine.parent)
    table = pd.read_csv(mine / "sweep" / "results.csv", keep_default_na=False)
    assert sorted(zip(table["scorer"], table["blocking"], table["options"], table["blocking_k"])) == [
        ("nuclear", "clustered", "", 4),
        ("nuclear", "clustered", "blocking.k=2", 2),
    ]


@pytest.mark.slow
def test_a_class_named_on_the_command_line(tmp_path, cache, monkeypatch):
    """A module in the working directory, and options that no file of lrp's has."""
    (tmp_path / "named.py").write_text(NUCLEAR)
    monkeypatch.syspath_prepend(str(tmp_path))  # as ``python -m`` does; tests/test_own_network.py starts a process
    run_here(cache, tmp_path / "named", "scorer._target_=named.Nuclear", "+scorer.power=2", "sparsity.grid=[0.5]")
    row = pd.read_csv(tmp_path / "named" / "results.csv").iloc[0]
    assert row["scorer"] == "nuclear" and row["options"] == "scorer._target_=named.Nuclear scorer.power=2"


@pytest.mark.slow
def test_sentences(mine, capsys):
    check_refused(["--config-dir", "nowhere"], "--config-dir nowhere: no such folder", capsys)
    check_refused(["--config-dir", str(mine / "conf"), "scorer=nucular"], "noise_to_signal, nuclear, perturbation", capsys)
    check_refused(["scorer._target_=nowhere.Scorer"], "scorer._target_=nowhere.Scorer: must be the dotted path of a class", capsys)


@pytest.mark.slow
def test_defaults_of_your_own_are_not_replaced(mine, capsys):
    """An option that lrp's group shares, another default in the class, and a YAML file that is silent."""
    (mine / "conf" / "other_rows.py").write_text(CLUSTERED.replace("k: int = 4", "k: int = 2"))
    (mine / "conf" / "blocking" / "other.yaml").write_text("_target_: other_rows.Clustered\n")
    (mine / "conf" / "blocking" / "nothing.yaml").write_text("k: 3\n")
    words = ["--config-dir", str(mine / "conf")]
    check_refused(
        [*words, "blocking=other"], "blocking=other: its YAML file must set k: lrp's group blocking shares it, with the default 4", capsys
    )
    check_refused([*words, "blocking=nothing"], "blocking=nothing: its YAML file must name a class or a function as _target_", capsys)
    check_refused(["--config-dir"], "--config-dir: it needs a folder", capsys)
    check_refused(["--config-dir", str(mine / "nuclear_scores.py")], "nuclear_scores.py: not a folder", capsys)
    (mine / "conf" / "blocking" / "other.yaml").write_text("_target_: other_rows.Clustered\nk: 2\n")
    assert compose_job("blocking=other", config_dir=mine / "conf").method.blocking.k == 2
    (mine / "conf" / "blocking" / "nothing.yaml").unlink()


@pytest.mark.slow
def test_from_python(mine):
    job = compose_job("scorer=nuclear", "scorer.power=3", config_dir=mine / "conf")
    assert job.method.scorer.power == 3 and job.options == "scorer.power=3"
    with pytest.raises(InputError, match="scorer=nucular: no such option"):
        compose_job("+method.parts={scorer: nucular}", config_dir=mine / "conf")
    assert torch.equal(job.method.scorer([type("F", (), {"S": torch.ones(2)})], None)[0], torch.ones(2, dtype=torch.float64))


def test_of_two_folders_the_last_one_named_counts(tmp_path):
    """An option of one name in two folders, one after the other and back, as Hydra itself finds it."""
    for place, k in (("a", 2), ("b", 8)):
        (tmp_path / place / "blocking").mkdir(parents=True)
        (tmp_path / place / "blocking" / "mine.yaml").write_text(f"_target_: lrp.blocking.alds.AldsBlocking\nk: {k}\n")
    for place, k in (("a", 2), ("b", 8), ("a", 2)):
        job = compose_job("blocking=mine", "method=singular_vectors", config_dir=tmp_path / place)
        assert job.method.blocking.k == k and job.options is None
