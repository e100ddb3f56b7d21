"""The one maker of parts: names, objects, what a class takes, what is said, and one home for every default."""

import dataclasses
import inspect
import logging

import pytest
from hydra.utils import get_object

from lrp.blocking.alds import AldsBlocking
from lrp.config.build import compose_job
from lrp.config.parts import make, option_defaults
from lrp.config.paths import CONF, option_files
from lrp.errors import InputError
from lrp.job.calibration import Calibration

PARTS = ("blocking", "decomposition", "scorer", "estimator", "selection", "compensation", "recovery", "dataset", "tracker")
OPTIONS = [(group, option) for group in PARTS for option in option_files(group)]


@pytest.mark.slow
@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{group}={option}" for group, option in OPTIONS])
def test_made_by_name_and_made_in_python_are_equal(group, option):
    kind = get_object(option_defaults(group, option)["_target_"])
    assert make(group, option) == kind()


def test_names_objects_and_options():
    assert make("blocking", "alds", k=2) == AldsBlocking(2)
    blocking = AldsBlocking(3)
    assert make("blocking", blocking) is blocking
    for chosen in (3, None, AldsBlocking, {"k": 3}):
        with pytest.raises(InputError, match="blocking=.*: must be the name of an option or a configured object"):
            make("blocking", chosen)
    with pytest.raises(InputError, match="blocking=foo: no such option; choose one of "):
        make("blocking", "foo")
    with pytest.raises(InputError, match="blocking.k=0: must be an integer of at least 1"):
        make("blocking", "alds", k=0)


@pytest.mark.slow
def test_what_a_class_does_not_take_is_said_where_it_is_not_the_default(caplog):
    caplog.set_level(logging.INFO, "lrp.config.unread")
    make("blocking", "none")
    compose_job("blocking=square")
    assert not caplog.messages
    compose_job("blocking=none", "blocking.k=2", "compensation.ridge=0.1", "recovery.lr=1")
    assert caplog.messages == [
        "blocking=none does not use blocking.k=2",
        "compensation=none does not use compensation.ridge=0.1",
        "recovery=none does not use recovery.lr=1",
    ]


@pytest.mark.slow
def test_shared_options_are_options_of_some_class():
    """Whatever stands in conf/options.yaml is taken by at least one option of its group."""
    for group in PARTS:
        shared = set.intersection(*({*option_defaults(group, option)} for option in option_files(group))) - {"_target_"}
        kinds = [get_object(option_defaults(group, option)["_target_"]) for option in option_files(group)]
        assert shared <= {name for kind in kinds for name in inspect.signature(kind).parameters}
    assert (CONF / "options.yaml").exists()


@pytest.mark.slow
def test_the_estimator_is_made_once():
    job = compose_job("+method.parts={estimator: exact}", "estimator.output=hellinger")
    assert job.estimator is job.method.estimator and job.estimator.name == "exact" and job.estimator.output == "logits"
    job = compose_job("estimator.output=hellinger")
    assert job.estimator is job.method.estimator and job.options == "estimator.output=hellinger"


@pytest.mark.slow
def test_calibration_has_one_home():
    assert compose_job().calibration == Calibration()
    assert {field.name for field in dataclasses.fields(Calibration)} == {*compose_job().settings["calibration"]}


def test_a_function_without_a_name_is_refused():
    """Tables and sentences call a part by it."""

    def mine(network, context):
        raise AssertionError

    with pytest.raises(InputError, match="recovery=.*mine: a function has to have a name"):
        make("recovery", mine)
    mine.name = "mine"
    assert make("recovery", mine) is mine
