"""One sentence for each command line that cannot run; every option composes."""

import logging
import shlex
import time

import pytest
from helpers import GROUPS, NAMES
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from shell import check_refused

from lrp.config.build import compose_job
from lrp.config.callbacks import STARTED, count_jobs, place_in_sweep, time_left
from lrp.config.check import check_command_line
from lrp.config.paths import CONF
from lrp.config.plugins import PLUGINS
from lrp.config.schema import register

# Each composes configurations, a quarter of a second and more.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("composed_once")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sed=1"], "sed=1: no option sed, did you mean seed?"),
        (["model=huggingface", "model.path=x", "sed=1"], "sed=1: no option sed, did you mean seed?"),
        (["model=huggingface", "model.pth=x"], "model.pth=x: no option model.pth, did you mean model.path?"),
        (["seed=abc"], "seed=abc: value 'abc' of type 'str' could not be converted to Integer"),
        (["calibration.scoring_imges=3"], "did you mean calibration.scoring_images?"),
        (["xyzzy=1"], "no option xyzzy; choose among model, dataset"),
        (["sparsity.grid=[0,1.0]"], "sparsity.grid=1.0: must be a share in [0, 1)"),
        (["sparsity.grid=[-0.1]"], "sparsity.grid=-0.1: must be a share in [0, 1)"),
        (["sparsity.grid=[0.5,0.5]"], "each sparsity may appear only once"),
        (["sparsity.grid=[x]"], "sparsity.grid=x: must be a share in [0, 1)"),
        (["sparsity.grid=[[0.5]]"], "sparsity.grid=[0.5]: must be a share in [0, 1), or a list of shares"),
        (["sparsity.grid=null"], "sparsity.grid=null: must be a share in [0, 1), or a list of shares"),
        (["sparsity.grid=[true]"], "sparsity.grid=True: must be a share"),
        (["exclude=[null]"], "exclude=null: give a list of layer names"),
        (["seed=18446744073709551616"], "seed=18446744073709551616: must be an integer from 0 to 9223372036854775807"),
        (["calibration.seed=9223372036854775808"], "must be an integer from 0 to 9223372036854775807"),
        (["scorer=random", "scorer.seed=9223372036854775808"], "must be an integer from 0 to 9223372036854775807"),
        (["model.training.epochs=99999999999999999999"], "must be an integer from 0 to 9007199254740992"),
        (["threads=1000000"], "threads=1000000: must be an integer of at least 1 and at most 1024"),
        (["device=meta"], "device=meta: must be auto, cpu, or a device that torch finds here"),
        (["save=3"], "save=3: must be true or false"),
        (["resume=0"], "resume=0: must be true or false"),
        (["evaluation.latency=1"], "evaluation.latency=1: must be true or false"),
        (["+foo=1"], "foo=1: there is no such option; choose among model, dataset"),
        (["+evaluation.foo=1"], "evaluation.foo=1: there is no such option; choose among batch_size, latency, part"),
        (["+scorer.foo=1"], "scorer.foo=1: scorer=perturbation has no such option"),
        (["~seed"], "seed: an option can be set, not taken away"),
        (["+hydra.foo=1"], "+hydra.foo=1: no option hydra.foo; choose among callbacks"),
        (["hydra.foo=1"], "hydra.foo=1: no option hydra.foo; choose among callbacks"),
        (["++hydra.job.chdr=true"], "++hydra.job.chdr=true: no option hydra.job.chdr, did you mean hydra.job.chdir?"),
        (["-m", "seed=0,1", "hydra/launcher=joblib", "+hydra.launcher.njobs=2"], "did you mean hydra.launcher.n_jobs?"),
        (
            ["-m", "hydra/sweeper=optuna", "optimise=accuracy", "seed=0,1", "hydra.sweeper.ntrials=2"],
            "hydra.sweeper.ntrials=2: no option hydra.sweeper.ntrials, did you mean hydra.sweeper.n_trials?",
        ),
        (
            ["-m", "blocking.k=1,2"],
            "blocking.k=1,2: nothing reads it, and all jobs would be the same (blocking=none does not use blocking.k=1)",
        ),
        (["-m", "method=alds", "scorer=magnitude,variance"], "scorer=magnitude,variance: nothing reads it, and all jobs would be the same"),
        (
            ["-m", "hydra/sweeper=optuna", "optimise=accuracy", "blocking.k=int(interval(1,8))"],
            "blocking.k=int(interval(1,8)): nothing reads it, and all jobs would be the same (blocking=none does not use blocking.k=1)",
        ),
        (["=5"], "=5: options are written group=option or node.key=value"),
        (["-m", "seed=range(5,5)"], "seed=range(5,5): it holds no value"),
        (["-m", "seed=range(0,1000000000)"], "it holds more than 100000 values"),
        (["hydra.run.dir="], "hydra.run.dir=: it is empty; give a folder"),
        (["seed=1", "scorer=variance", "seed=2"], "seed=1 and seed=2: one option has two values; give one of them"),
        (["scorer=magnitude,variance"], "scorer=magnitude,variance: several values are a sweep, which needs -m"),
        (["-m", "blocking=alds", "blocking.k=4,0"], "blocking.k=0: must be an integer of at least 1"),
        (["calibration.scoring_images=9999"], "calibration.scoring_images=9999: must be at most calibration.images=512"),
        (["-m", "blocking.k=interval(1,8)"], "blocking.k=interval(1,8): an interval has no list of values; add hydra/sweeper=optuna"),
        (["-m", "scorer=glob(xyz*)"], "scorer=glob(xyz*): it holds no value"),
        (["optimise=0"], "optimise=0: choose one of sparsity_params, sparsity_macs, params"),
        (["optimise=acc"], "optimise=acc: did you mean accuracy? choose one of "),
        (["optimise=latency_1"], "optimise=latency_1: nothing is timed; add evaluation.latency=true"),
        (["hydra/sweeper=optuna", "optimise=accuracy"], "hydra/sweeper=optuna: a sweeper runs several jobs, which needs -m"),
        (["-m", "seed=glob(*)"], "seed=glob(*): it holds no value; glob() stands for options of a group, such as scorer"),
        (["-m", "hydra/sweeper=optuna", "seed=1"], "hydra/sweeper=optuna: nothing says what a job is judged by; add optimise=accuracy"),
        (
            ["-m", "hydra/sweeper=optuna", "optimise=loss", "blocking.k=interval(1,8)", "blocking=alds"],
            "blocking.k=1.0: must be an integer of at least 1; int(interval(1,8)) draws whole numbers",
        ),
        (["model.wdth=3"], "did you mean model.width?"),
        (["model.width=-1"], "model.width=-1: must be a number greater than 0"),
        (["device=gpu"], "device=gpu: must be auto, cpu, or a device that torch finds here"),
        (["estimator.memory_limit=0"], "estimator.memory_limit=0: must be a number greater than 0"),
        (
            ["compensation=least_squares", "compensation.memory_limit=0"],
            "compensation.memory_limit=0: must be a number greater than 0",
        ),
        (["estimator.output=odds"], "estimator.output=odds: choose one of logits, probabilities, hellinger"),
        (["estimator.projections=0"], "estimator.projections=0: must be an integer of at least 1"),
        (["estimator.output_fn=nowhere.pick"], "estimator.output_fn=nowhere.pick: must be the dotted path of a function"),
        (["tracker=wandb", "tracker.mode=on"], "tracker.mode=on: choose one of "),
        (["method=alds", "method.starts=0"], "method.starts=0: must be an integer of at least 1"),
        (["compensation=least_squares", "compensation.ridge=-1"], "compensation.ridge=-1: must be a number of at least 0"),
        (["compensation=least_squares", "compensation.metric=fisher"], "compensation.metric=fisher: choose one of gradient, plain"),
        (["rounds.keep_factor=1"], "rounds.keep_factor=1.0: must be a number greater than 0 and less than 1"),
        (["selection=joint", "selection.shrinkage=1"], "selection.shrinkage=1: must be a number of at least 0 and less than 1"),
        (["calibration.samples=0"], "calibration.samples=0: must be an integer of at least 1"),
        (["evaluation.part=train"], "evaluation.part=train: choose one of test, validation"),
        (
            ["evaluation.part=validation", "recovery=finetune", "recovery.hold_out=false"],
            "evaluation.part=validation: recovery.hold_out=false trains on these images",
        ),
        (["threads=0"], "threads=0: must be an integer of at least 1"),
        (["budget=flops"], "budget=flops: choose one of params, macs"),
        (["selection.round_to=0"], "selection.round_to=0: must be an integer of at least 1"),
        (["selection.break_even=guess"], "selection.break_even=guess: choose one of params, measured"),
        (["evaluation.latency=maybe"], "evaluation.latency=maybe"),
        (["save=perhaps"], "save=perhaps"),
        (["-m", "evaluation.latency=true", "hydra/launcher=joblib"], "evaluation.latency=true: jobs that run beside each other disturb it"),
        (["model._target_=torch.nn.Nothing"], "model._target_=torch.nn.Nothing: must be the dotted path of something that makes a network"),
        (["dataset=folder", "dataset.size=0"], "dataset.size=0: must be an integer of at least 1"),
        (["dataset=folder", "dataset.std=[0,1,1]"], "dataset.std=0: must be a number greater than 0"),
        (["dataset=folder", "dataset.mean=[0.5]"], "dataset.mean=[0.5]: must be three numbers"),
        (["model.training.epochs=-1"], "model.training.epochs=-1: must be an integer of at least 0"),
    ],
)
def test_one_sentence_for_bad_input(words, sentence, capsys):
    check_refused(words, sentence, capsys)


@pytest.mark.long
@pytest.mark.parametrize(
    "words",
    [
        ["-m", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "++hydra.launcher.verbose=1"],
        ["-m", "seed=0,1", "hydra/sweeper=optuna", "optimise=loss", "hydra.sweeper.n_trials=2", "++hydra.sweeper.sampler.seed=3"],
        ["+hydra.job.env_set.A=b", "hydra.searchpath=[file:///tmp]", "hydra.verbose=true", "++hydra.job_logging.root.level=DEBUG"],
        ["+hydra.callbacks.mine._target_=hydra.experimental.callback.Callback", "++hydra.output_subdir=null"],
        ["-m", "blocking=none,alds", "blocking.k=4,2"],  # 4 is the default: no job says that it is not read
        ["-m", "method=alds,singular_vectors", "blocking=none,alds", "blocking.k=1,2"],  # read in one combination of four
    ],
)
def test_what_hydra_has_and_what_some_job_reads_is_taken(words):
    register()
    check_command_line(words)


@pytest.mark.parametrize("file", sorted(CONF.glob("experiment/*.yaml")), ids=lambda file: file.stem)
def test_every_experiment_composes(file):
    check_command_line(["-m", f"experiment={file.stem}"])


@pytest.mark.parametrize(("column", "direction"), [("accuracy", "maximize"), ("macs", "minimize")])
def test_a_search_gets_its_direction(column, direction):
    words = ["-m", "hydra/sweeper=optuna", f"optimise={column}", "scorer=noise_to_signal", "scorer.depth=interval(0,1)"]
    assert {f"hydra.sweeper.direction={direction}", "hydra.sweeper.n_jobs=1"} < set(check_command_line(words))
    chosen = [*words, "hydra.sweeper.direction=minimize"]
    assert "hydra.sweeper.direction=maximize" not in check_command_line(chosen)


def test_a_sweep_in_a_folder_with_rows_is_refused_once(capsys, tmp_path):
    """Before any job; resume=true goes on."""
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "results.csv").write_text("a")
    words = ["-m", "seed=0,1", f"hydra.sweep.dir={tmp_path}"]
    check_refused(words, f"hydra.sweep.dir={tmp_path}: it holds finished rows; resume=true keeps them", capsys)
    check_command_line([*words, "resume=true"])
    check_command_line([*words, "hydra.sweep.subdir=of-${seed}"])  # folders of one's own naming: these jobs may be new


def test_a_plugin_that_is_missing(capsys, monkeypatch):
    monkeypatch.setitem(PLUGINS, ("hydra/sweeper", "optuna"), ("hydra_plugins.nothing_of_this_name", "search"))
    check_refused(["-m", "hydra/sweeper=optuna"], "hydra/sweeper=optuna: a package is missing; pip install 'lrp[search]' brings it", capsys)


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        (["seed=0,1,2", "scorer=magnitude,variance"], 6),
        (["scorer=glob(re*)", "seed=range(3)"], 3),
        (["experiment=figure3"], 12),
        (["experiment=figure3", "blocking=alds,none"], 8),  # in place of the three of the experiment
        (["hydra/sweeper=optuna", "optimise=accuracy", "seed=range(5)"], 20),
    ],
)
def test_the_jobs_of_a_sweep_are_counted(words, jobs, monkeypatch):
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[word for word in words if "(" not in word and "," not in word], return_hydra_config=True)
        OmegaConf.set_readonly(config.hydra, False)
        config.hydra.overrides.task = [word for word in words if not word.startswith("hydra")]
        assert count_jobs(config) == jobs
    monkeypatch.setenv(STARTED, f"{time.time() - 60} {jobs}")
    assert place_in_sweep(0) == f"job 1 of {jobs}" and time_left(jobs - 1) == ""
    assert time_left(0) == f", about {jobs - 1} min left"
    monkeypatch.delenv(STARTED)
    assert (place_in_sweep(0), time_left(0)) == ("job 1", "")


@pytest.mark.parametrize("group", sorted(set(NAMES) - {"hydra"}))
def test_a_name_that_there_is_not_is_told_those_that_there_are(group, capsys):
    error = check_refused([f"{group}=xyzzy"], f"{group}=xyzzy: ", capsys)
    assert all(name in error for name in NAMES[group])


def test_one_bad_name_of_several(capsys):
    check_refused(["-m", f"scorer={NAMES['scorer'][0]},xyzzy"], "scorer=xyzzy: ", capsys)


@pytest.mark.long
@pytest.mark.parametrize("group", GROUPS)
def test_every_key_exists_whatever_is_chosen(group):
    """A sweep over the options of one group may set what any other group has, and what any option of its own group has."""
    register()
    keys = {"calibration.scoring_images": 8, "rounds.keep_factor": 0.5, "blocking.k": 2, "estimator.memory_limit": 0.5,
            "estimator.projections": 8, "estimator.output": "probabilities", "dataset.path": "null", "tracker.project": "x",
            "compensation.ridge": 0.1, "selection.per_parameter": "true", "recovery.epochs": 2}  # fmt: skip
    if group in ("blocking", "decomposition"):  # of which some are found or known once, and say so
        del keys["rounds.keep_factor"]
    check_command_line(["-m", f"{group}={','.join(NAMES[group])}", *(f"{key}={value}" for key, value in keys.items())])


@pytest.mark.parametrize("path", ["w/epoch=9-step=100.ckpt", "w/naïve.pt", "w/a (1).pt", "w/v1#2.pt", "w/a,b.pt", "[w].pt", "w/a'b.pt"])
@pytest.mark.parametrize("option", ["model.checkpoint", "hydra.run.dir"])
def test_a_path_that_has_to_be_quoted(path, option, capsys):
    """The sentence says how, and what it says is understood."""
    error = check_refused([f"{option}={path}"], f"{option}={path}: ", capsys)
    written = shlex.split(error[error.index("quoted: ") + len("quoted: ") :])
    assert written == [f'{option}="{path}"']
    check_command_line(written)


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("sparsity.grid=0.5", lambda job: job.sparsities == (0.5,) and job.settings["sparsity"]["grid"] == [0.5]),
        ("exclude=features.0", lambda job: job.method.exclude == ("features.0",)),
        ("exclude=[0,1]", lambda job: job.method.exclude == ("0", "1")),
        ("save=yes", lambda job: job.save is True),
        ("evaluation.latency=false", lambda job: job.latency is False),
        ("study=dim_rank study.ranks=5", lambda job: job.study.ranks == [5]),
        ("study=simplicity_bias study.networks=mlp", lambda job: job.study.networks == ["mlp"]),
    ],
)
def test_one_value_is_a_list_of_one_and_yes_is_true(word, read):
    register()
    check_command_line(word.split())
    assert read(compose_job(*word.split()))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("method=alds scorer=perturbation", "method=alds does not use scorer=perturbation"),
        ("method=alds scorer=noise_to_signal scorer.depth=1", "method=alds does not use scorer.depth=1"),
        ("method=alds blocking.k=9", "method=alds does not use blocking.k=9"),
        ("method=alds rounds.keep_factor=0.5", "method=alds does not use rounds.keep_factor=0.5"),
        ("method=balf scorer=magnitude", "method=balf does not use scorer=magnitude, it has energy"),
        ("recovery.epochs=-3", "recovery=none does not use recovery.epochs=-3"),
        ("tracker.mode=on", "tracker=none does not use tracker.mode=on"),
        ("model.checkpoint=a.pt model.training.lr=1", "model.checkpoint=a.pt: model.training.lr=1 is not used"),
        ("method=alds estimator.output=hellinger", ""),
        ("method=balf blocking=alds blocking.k=2", ""),
    ],
)
def test_what_is_not_used_is_said(words, said, caplog):
    with caplog.at_level(logging.INFO):
        compose_job(*words.split())
    told = [message for message in caplog.messages if " use" in message]
    assert said in told if said else not told


@pytest.mark.slow
def test_lists_and_sizes_that_no_option_has(capsys):
    check_refused(["scorer=[magnitude]"], "scorer=['magnitude']: ", capsys)
    check_refused(["cache_dir=''"], "cache_dir='': must be the path of a folder", capsys)
    check_refused(["model.name=null"], "model.name=null: must be a text", capsys)
    for width in ("1000000", "1e300"):
        check_refused([f"model.width={width}"], "it cannot be made with", capsys)


@pytest.mark.parametrize("word", ["--nonsense", "-x", "--multi"])
def test_flags_that_there_are_not(word, capsys):
    check_refused([word, "seed=0"], f"{word}: there is no such flag", capsys)
