"""Rows that cannot lie: what they list, and folders and tables from before."""

import shutil
from pathlib import Path

import pytest
import yaml
from helpers import results_row, results_table
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from lrp.config.build import compose_job
from lrp.config.paths import CONF
from lrp.config.schema import register
from lrp.figure.accuracy import average_over_seeds
from lrp.results.collect import collect
from lrp.results.settings import differences


def test_a_part_s_own_options_are_never_averaged():
    """Rows of a blocking of one's own with other k, and with other options that have no column, are lines of their own."""
    rows = [results_row(blocking="clustered", blocking_k=k, options=None if k == 4 else f"blocking.k={k}") for k in (4, 16)]
    assert average_over_seeds(results_table(*rows))["line"].nunique() == 2
    rows = [results_row(blocking="clustered", options=f"blocking.blocks={blocks}") for blocks in (9, 99)]
    assert sorted(average_over_seeds(results_table(*rows))["line"].str.split(", ").str[-1]) == ["blocks = 9", "blocks = 99"]


def test_old_and_new_rows_compare(tmp_path):
    """Rows from before ``options`` listed everything get the words that they lack, and lose a seed that is the job's."""
    old = [
        results_row(blocking="alds", blocking_k=2, options="scorer.depth=0.5"),
        results_row(round_to=8, per_parameter=True, break_even="measured", options=None),
        results_row(scorer="random", seed=3, options="scorer.seed=3 recovery.lr=1"),
        results_row(options="scorer.seed=1 rounds.keep_factor=0.8"),
        results_row(blocking="alds", blocking_k=4, options=None),
    ]
    results_table(*[{"round_to": 1, "break_even": "params"} | each for each in old]).assign(
        round_to=[1, 8, 1, 1, 1], break_even=["params", "measured", "params", "params", "params"]
    ).to_csv(tmp_path / "results.csv", index=False)
    assert [None if option != option else option for option in collect([tmp_path])["options"]] == [
        "blocking.k=2 scorer.depth=0.5",
        "selection.per_parameter=True selection.round_to=8 selection.break_even=measured",
        "recovery.lr=1",
        "scorer.seed=1 rounds.keep_factor=0.8",
        None,
    ]
    new = results_row(blocking="alds", blocking_k=2, options="blocking.k=2 scorer.depth=0.5", seed=1)
    assert average_over_seeds(results_table(old[0], new))["seeds"].tolist() == [2]


@pytest.mark.slow
def test_a_seed_that_follows_the_job_is_no_option():
    assert compose_job("scorer=random", "seed=3").options is None
    assert compose_job("scorer=random", "seed=3", "scorer.seed=0").options == "scorer.seed=0"
    assert compose_job("method=alds", "seed=3", "method.starts=4").options == "method.starts=4"


@pytest.mark.slow
def test_options_that_nothing_reads_are_not_in_the_row():
    job = compose_job(
        "method=balf", "scorer=noise_to_signal", "scorer.depth=1", "blocking.k=2", "recovery.lr=1", "estimator.output=hellinger"
    )
    assert job.options == "estimator.output=hellinger"


WORDS = [
    "compensation.ridge=0.03",
    "blocking=alds",
    "blocking.k=2",
    "scorer=noise_to_signal",
    "scorer.depth=0.5",
    "selection=lagrangian",
    "sparsity.grid=[0.5,0.8,0.9]",
    "recovery=batchnorm",
    "model.training.epochs=1",
    "calibration.images=64",
    "calibration.scoring_images=8",
    "threads=1",
]


@pytest.mark.slow
def test_a_folder_from_before_the_moves_goes_on(tmp_path):
    """Its class paths are no longer lrp's; its rows stay to the byte, and the one that is missing is added. The network is narrower than
    the one that they are of, which would take a quarter of a minute to train."""
    shutil.copytree(Path(__file__).parents[1] / "fixtures" / "run_folder", tmp_path / "run")
    settings = tmp_path / "run" / "config.yaml"
    settings.write_text(settings.read_text().replace("width: 0.125", "width: 0.03125"))
    words = [*WORDS, "model.width=0.03125", "resume=true", f"cache_dir={tmp_path}/cache"]
    before = (tmp_path / "run" / "results.csv").read_bytes()
    compose_job(*words).run(tmp_path / "run")
    after = (tmp_path / "run" / "results.csv").read_bytes()
    assert after.startswith(before) and len(after.splitlines()) == 4
    rows = collect([tmp_path / "run"])
    assert rows["sparsity"].tolist() == [0.5, 0.8, 0.9] and rows["options"].tolist() == ["blocking.k=2 scorer.depth=0.5"] * 3
    compose_job(*words).run(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["blocking=square"], "blocking was alds, now square"),
        (["blocking.k=3"], "blocking.k was 2, now 3"),
        (["selection=global"], "selection was lagrangian, now global"),
        (["dataset=mnist"], "dataset was mnist_small, now mnist"),
        (["method=output_aware"], "method was singular_vectors, now output_aware"),
        (["scorer._target_=mine.Scorer"], "scorer._target_ was None, now mine.Scorer"),
    ],
)
def test_a_folder_of_other_settings_is_refused(words, said):
    folder = Path(__file__).parents[1] / "fixtures" / "run_folder"
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[*WORDS, *words], return_hydra_config=True)
    choices = OmegaConf.to_container(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    now = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    now.pop("study")
    found = differences(settings, {**now, "choices": {group: option for group, option in choices.items() if group in now}})
    assert said in found
