"""Launchers: asked for where their package is missing, without a sweep, and begun again by themselves."""

import os
from types import SimpleNamespace

import pytest
import yaml
from hydra.core.utils import setup_globals
from omegaconf import OmegaConf
from shell import check_refused

from lrp.config import callbacks
from lrp.config.callbacks import RememberSweep, go_where_it_began
from lrp.config.paths import CONF
from lrp.config.plugins import PLUGINS
from lrp.config.sweeps import is_second_try
from lrp.errors import InputError

FILES = sorted(CONF.glob("hydra/launcher/*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_launcher_says_what_to_install(file, capsys, monkeypatch):
    """Before anything of it is composed."""
    key = ("hydra/launcher", file.stem)
    extra = PLUGINS[key][1]
    monkeypatch.setitem(PLUGINS, key, ("hydra_plugins.nothing_of_this_name", extra))
    said = f"hydra/launcher={file.stem}: a package is missing; pip install 'lrp[{extra}]' brings it"
    check_refused(["-m", f"hydra/launcher={file.stem}"], said, capsys)
    assert yaml.safe_load(file.read_text()) and file.read_text().startswith("# ")


@pytest.mark.slow
def test_a_launcher_without_a_sweep(capsys):
    check_refused(["hydra/launcher=joblib"], "hydra/launcher=joblib: a launcher runs several jobs, which needs -m", capsys)


def test_a_job_that_the_same_sweep_began(tmp_path):
    """Goes on; one of an earlier sweep in the same folder does not, and neither does one that begins."""
    hydra = OmegaConf.create({"sweep": {"dir": str(tmp_path)}})
    sweep, job = tmp_path / "multirun.yaml", tmp_path / "0" / "config.yaml"
    job.parent.mkdir()
    assert not is_second_try(hydra, job.parent)
    sweep.touch()
    assert not is_second_try(hydra, job.parent)
    job.touch()
    os.utime(sweep, (100, 100))
    assert is_second_try(hydra, job.parent)
    os.utime(job, (99, 99))
    assert not is_second_try(hydra, job.parent)


@pytest.mark.parametrize(("given", "told"), [("out/${now:%Y}", True), ("/out", False)])
def test_jobs_know_their_folder_by_its_whole_path(given, told, tmp_path, monkeypatch, capsys):
    """Wherever they are started."""
    setup_globals()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(callbacks, "count_jobs", lambda config: 2)
    monkeypatch.setattr(callbacks, "multirun", None)
    monkeypatch.setenv(callbacks.STARTED, "")
    config = OmegaConf.create({"hydra": {"sweep": {"dir": given}, "overrides": {"hydra": []}}})
    RememberSweep().on_multirun_start(config)
    assert OmegaConf.to_container(config.hydra.overrides.hydra) == [f"hydra.sweep.dir={tmp_path}/{given}"] * told
    assert capsys.readouterr().out.startswith(f"folder: {given[:4]}")


def test_a_job_goes_to_the_folder_of_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    job = SimpleNamespace(runtime=SimpleNamespace(cwd=str(tmp_path)), job=SimpleNamespace(chdir=True))
    go_where_it_began(job)
    assert os.getcwd() == "/"
    job.job.chdir = False
    go_where_it_began(job)
    assert os.getcwd() == str(tmp_path)
    job.runtime.cwd = str(tmp_path / "nothing")
    with pytest.raises(InputError, match="has no folder .*nothing, in which the sweep was started"):
        go_where_it_began(job)
