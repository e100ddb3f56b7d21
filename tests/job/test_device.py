"""The threads of a job."""

import pytest
import torch

from lrp.job.device import GIVEN, use_threads


@pytest.mark.parametrize(
    ("asked", "given", "threads"),
    [
        (3, {"OMP_NUM_THREADS": "1", "SLURM_CPUS_PER_TASK": "2"}, 3),
        (None, {"OMP_NUM_THREADS": "2", "SLURM_CPUS_PER_TASK": "4"}, 2),
        (None, {"OMP_NUM_THREADS": "2,1"}, 2),
        (None, {"OMP_NUM_THREADS": "", "SLURM_CPUS_PER_TASK": "4"}, 4),
        (None, {"OMP_NUM_THREADS": "many", "SLURM_CPUS_PER_TASK": "0"}, 1),
        (None, {}, 1),
    ],
)
def test_a_job_has_the_threads_that_it_asks_for_or_was_given(asked, given, threads, monkeypatch):
    before, set_to = torch.get_num_threads(), []
    for name in GIVEN:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    use_threads(asked)
    assert [before, *set_to][-1] == threads
