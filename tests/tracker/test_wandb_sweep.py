"""experiments/wandb_sweep.yaml: the commands that W&B's agent builds of it, and a job that one of them runs."""

import itertools
import os
import subprocess
from pathlib import Path

import pytest
from shell import command
from tracker.offline import offline_runs
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args, load_sweep_config

import lrp
from lrp.config.build import compose_job
from lrp.config.check import check_command_line
from lrp.config.schema import register
from lrp.tracker.summary import AT

FILE = Path(lrp.__file__).parents[1] / "experiments" / "wandb_sweep.yaml"


def agents_command(config, chosen):
    """The words of one run, as ``wandb.wandb_agent.Agent._command_run`` puts them together."""
    found = create_sweep_command_args({"args": {name: {"value": value} for name, value in chosen.items()}})
    found |= {"interpreter": ["python"], "program": [config["program"]], "env": ["/usr/bin/env"]}
    words = map(str, create_sweep_command(config["command"]))
    return [part for word in words for part in (found[word[2:-1]] if word.startswith("${") else [word])]


@pytest.fixture(scope="module")
def config():
    return load_sweep_config(str(FILE))


@pytest.fixture(scope="module")
def commands(config):
    """(what was chosen, the command) of every run of the sweep."""
    names = list(config["parameters"])
    values = itertools.product(*(parameter["values"] for parameter in config["parameters"].values()))
    return [(chosen, agents_command(config, chosen)) for each in values for chosen in [dict(zip(names, each))]]


def test_the_command_is_lrps(commands):
    for chosen, words in commands:
        assert words[:4] == ["/usr/bin/env", "python", "-m", "lrp.run"]
        assert words[-len(chosen) :] == [f"{name}={value}" for name, value in chosen.items()]  # Hydra's words, without --


def test_it_looks_for_a_number_that_a_run_has(config):
    assert config["metric"]["name"] in {"accuracy_area", *(f"accuracy_at_{at}" for at in AT)} and config["metric"]["goal"] == "maximize"


@pytest.mark.long
@pytest.mark.slow
def test_each_value_makes_the_job_that_it_names(config, commands):
    register()
    for name, parameter in config["parameters"].items():
        for value in parameter["values"]:
            words = next(words for chosen, words in commands if chosen[name] == value)[4:]
            assert check_command_line(words) == words
            job = compose_job(*words)
            assert (job.tracker.name, job.tracker.mode) == ("wandb", "online")
            node = job.settings["choices"] if name in job.settings["choices"] else job.settings
            for key in name.split(".") if node is job.settings else [name]:
                node = node[key]
            assert node == value


@pytest.mark.long
@pytest.mark.slow
def test_a_run_of_the_agent(commands, tmp_path, cache):
    """With the environment that the agent sets; without a key the run stays offline. There is no server here to start an agent on."""
    words = [*commands[0][1][4:], "hydra.run.dir=run"]
    mine = {"WANDB_RUN_ID": "fromagent", "WANDB_SWEEP_ID": "sweep1", "HOME": str(tmp_path)}
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")} | mine
    line = command(cache, *words)
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    (run,) = offline_runs(tmp_path / "run")
    assert run.run.run_id == "fromagent" and run.run.sweep_id == "sweep1" and "accuracy_area" in run.summary
