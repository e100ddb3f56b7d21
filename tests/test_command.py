"""One sentence for whatever fails."""

import errno
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from torch import nn

import lrp
from lrp.command import JobFailed, reason_of
from lrp.config.callbacks import RememberSweep
from lrp.config.parts import make
from lrp.errors import InputError, OwnCodeError, own_code
from lrp.files import write_text


def caught(function):
    with pytest.raises(BaseException) as error:
        function()
    return error.value


def raises(error):
    raise error


def test_a_reason_is_one_line(tmp_path):
    """Bad input and a full disk as they are; the rest with the path of its traceback."""
    assert reason_of(InputError("seed", -1, "must be an\ninteger"), tmp_path) == "seed=-1: must be an integer"
    full = OSError(errno.ENOSPC, "No space left on device", "a/b.csv")
    assert reason_of(full, tmp_path) == "a/b.csv: No space left on device"
    assert reason_of(full, tmp_path, {"cache_dir": "a"}) == "cache_dir=a: a/b.csv: No space left on device"
    assert reason_of(full, tmp_path, {"cache_dir": "b", "hydra.run.dir": "a/b.csv"}) == "hydra.run.dir=a/b.csv: No space left on device"
    (tmp_path / "file").touch()
    error = caught(lambda: write_text(tmp_path / "file" / "a.csv", ""))
    assert reason_of(error, None) == f"{tmp_path}/file/a.csv: Not a directory"
    assert list(tmp_path.glob("*.log")) == []
    own = OwnCodeError("scorer=mine: Mine raised KeyError: 'x'")
    for error in (KeyError("x"), SystemExit(3), RuntimeError("two\nlines \x1b[31m"), own):
        said = reason_of(caught(lambda error=error: raises(error)), tmp_path)
        log = Path(re.search(r"\(the traceback is in (.*)\)$", said)[1])
        assert said.isprintable() and log.parent == tmp_path and "raises(error)" in log.read_text()
        assert said.startswith(str(error).splitlines()[0] if isinstance(error, OwnCodeError) else type(error).__name__)
    assert "the traceback is in" in reason_of(KeyError("x"), tmp_path / "nothing")


def test_a_job_that_failed_is_told_once(capsys):
    """Hydra prints the words of a job whose result is asked for; also one that comes from another process."""
    result = JobReturn(overrides=["seed=1"], status=JobStatus.FAILED, _return_value=JobFailed("job 1: bad"))
    RememberSweep().on_job_end(OmegaConf.create(), result)
    with pytest.raises(JobFailed, match="job 1: bad"):
        _ = pickle.loads(pickle.dumps(result)).return_value
    assert capsys.readouterr().err == ""
    done = JobReturn(status=JobStatus.COMPLETED, _return_value=0.5)
    RememberSweep().on_job_end(OmegaConf.create(), done)
    assert done.return_value == 0.5


@dataclass(frozen=True)
class Failing:
    name: ClassVar[str] = "failing"
    reads_outputs: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    reads_network: ClassVar[bool] = False
    per_parameter: ClassVar[bool] = False
    round_to: ClassVar[int] = 1
    break_even: ClassVar[str] = "params"
    changes: ClassVar[bool] = True

    def __call__(self, *args, **kwargs):
        raise KeyError("mine")


@pytest.mark.parametrize("group", ["blocking", "decomposition", "scorer", "selection", "compensation", "recovery"])
def test_a_part_of_ones_own_that_fails_is_named(group):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)), torch.randn(8, 6)
    with pytest.raises(InputError, match=f"{group}=failing: Failing raised KeyError: 'mine'$") as error:
        lrp.compress(model, x, 0.5, method="singular_vectors", **{group: Failing()})
    assert isinstance(error.value.__cause__, KeyError)


def test_a_fault_of_lrp_s_own_part_is_not_the_user_s():
    with pytest.raises(KeyError), own_code("scorer=magnitude", make("scorer", "magnitude")):
        raise KeyError


def test_a_function_that_makes_no_network(tmp_path):
    lrp.save(nn.Linear(2, 2), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="the function that makes the network raised ZeroDivisionError: division by zero"):
        lrp.load(tmp_path / "a.safetensors", lambda: 1 / 0)
    for function in (lrp.load, lrp.save):
        with pytest.raises(InputError, match="=3: give the path of a file"):
            function(*((3, nn.Linear(2, 2)) if function is lrp.load else (nn.Linear(2, 2), 3)))
