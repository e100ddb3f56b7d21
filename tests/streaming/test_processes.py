"""Several processes compress a network block by block as one does."""

import errno
import os
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forked import together
from safetensors.torch import save_file
from torch import nn

import lrp
from lrp.batches import Batches
from lrp.group import LOST, Group
from lrp.streaming.skeleton import Skeleton
from lrp.streaming.spool import Spool, Work, batches

pytestmark = pytest.mark.slow
EXAMPLES = 300  # three units: of four processes one has none


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(10, 24), nn.Linear(24, 10)

    def forward(self, x):
        return x + self.narrow(torch.tanh(self.wide(x)))


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 10), nn.Sequential(*(Block() for _ in range(3))), nn.Linear(10, 5)).double()


def examples() -> torch.Tensor:
    return torch.randn(EXAMPLES, 6, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("dense") / "model.safetensors"
    save_file(make().state_dict(), file)
    return file


def compress(weights: Path, folder: Path, group: Group | None, **options):
    options = {"blocks": "1", "batch_size": 16, "images": EXAMPLES, "scoring_images": 40, **options}
    processes = None if group is None else dist.group.WORLD
    return lrp.compress_blocks(make, weights, options.pop("x", examples()), 0.5, folder, group=processes, **options)


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.long), 2, pytest.param(4, marks=pytest.mark.long)])
def test_any_number_of_processes_writes_the_same_network(weights, tmp_path, size):
    whole = compress(weights, tmp_path / "whole", None)
    found = together(size, lambda group: compress(weights, tmp_path / "small", group).to_csv(), tmp_path / "group")
    assert found == [whole.to_csv()] * size
    torch.testing.assert_close(loaded(tmp_path / "small"), loaded(tmp_path / "whole"), rtol=1e-9, atol=1e-9)
    assert {file.name for file in (tmp_path / "small").iterdir()} == {file.name for file in (tmp_path / "whole").iterdir()}


def test_each_runs_its_own_part_of_the_batches(weights, tmp_path, monkeypatch):
    def ran(group: Group) -> int:
        count = []
        write = Spool.write
        monkeypatch.setattr(Spool, "write", lambda *given, **named: (count.append(1), write(*given, **named)))
        compress(weights, tmp_path / "small", group)
        return len(count)

    first, second = together(2, ran, tmp_path / "group")
    batches_of_all, passes = -(-EXAMPLES // 16), 1 + 3 + 1 + 2 + 3  # before, forward, behind, backward but the first, compressed
    assert first + second == batches_of_all * passes and first - second == passes  # 19 batches: the first has one more


def loaded(folder: Path) -> torch.Tensor:
    return lrp.load_blocks(folder, make)(examples()).detach()


@pytest.mark.parametrize(
    "rank, block, done, resumed",
    [
        (1, 8, "compress0", 2),  # 3 forward, 3 backward, the second of those that are compressed
        pytest.param(0, 5, "backward2", 3, marks=pytest.mark.long),
        pytest.param(1, 3, "forward1", 1, marks=pytest.mark.long),
    ],
)
def test_one_that_is_killed_ends_all_and_the_same_call_goes_on(weights, tmp_path, monkeypatch, rank, block, done, resumed):
    whole = compress(weights, tmp_path / "whole", None)

    def killed(group: Group) -> str:
        held, seen = Skeleton.block, []

        def watched(skeleton, number):
            seen.append(number)
            if len(seen) == block and group.rank == rank:
                os.kill(os.getpid(), signal.SIGKILL)
            return held(skeleton, number)

        monkeypatch.setattr(Skeleton, "block", watched)
        return compress(weights, tmp_path / "small", group).to_csv()

    found = together(2, killed, tmp_path / "group")
    assert found[rank] is None and LOST in found[1 - rank]
    assert sorted((tmp_path / "small/work").glob("*.done"), key=lambda file: file.stat().st_mtime)[-1].name == f"{done}.done"

    def again(group: Group) -> str:
        steps, finish = [], Work.finish
        monkeypatch.setattr(Work, "finish", lambda work, step: (steps.append(step), finish(work, step)))
        return "|".join([compress(weights, tmp_path / "small", group).to_csv(), *steps])

    for said in together(resumed, again, tmp_path / "again"):
        report, *steps = said.split("|")
        assert report == whole.to_csv() and done not in steps and steps[-1] == "compress2"
    torch.testing.assert_close(loaded(tmp_path / "small"), loaded(tmp_path / "whole"), rtol=1e-9, atol=1e-9)


def test_a_disk_that_is_full_for_one_ends_all_and_leaves_nothing_half_done(weights, tmp_path, monkeypatch):
    """Also where that one asks again at once."""

    def full(group: Group) -> str:
        write, said = Spool.write, []

        def fails(spool, number, **tensors):
            if spool.folder.name == "x2" and number == 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(spool, number, **tensors)

        with monkeypatch.context() as patch:
            patch.setattr(Spool, "write", fails)
            try:
                compress(weights, tmp_path / "small", group)
            except (OSError, lrp.InputError) as error:
                said.append(f"{type(error).__name__} {error}")
        assert not (tmp_path / "small/work/forward1.done").exists()
        said.append(compress(weights, tmp_path / "small", group).to_csv())
        return "|".join(said)

    first, second = together(2, full, tmp_path / "group")
    assert first.startswith("InputError another process of this group has failed: OSError: [Errno 28] No space left")
    assert second.startswith("OSError [Errno 28]") and first.split("|")[1] == second.split("|")[1]
    compress(weights, tmp_path / "whole", None)
    torch.testing.assert_close(loaded(tmp_path / "small"), loaded(tmp_path / "whole"), rtol=1e-9, atol=1e-9)


def test_few_examples_are_shared_too(weights, tmp_path, monkeypatch):
    """Statistics of 48 examples, of which each process has its part."""

    def looked(group: Group) -> int:
        seen, shared = [], Batches.shared
        monkeypatch.setattr(Batches, "shared", lambda *given: (seen.append(shared(*given)), seen[-1])[1])
        compress(weights, tmp_path / "small", group, images=48, scoring_images=16)
        return min(len(each) for each in seen)

    assert min(together(4, looked, tmp_path / "group")) > 0
    compress(weights, tmp_path / "whole", None, images=48, scoring_images=16)
    torch.testing.assert_close(loaded(tmp_path / "small"), loaded(tmp_path / "whole"), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "given, sentence",
    [
        (lambda first: {} if first else {"scoring_images": 8}, "weights, examples or options that differ"),
        (lambda first: {} if first else {"x": examples() + 1}, "weights, examples or options that differ"),
        (lambda first: {} if first else {"blocks": "2"}, "weights, examples or options that differ"),
        (lambda first: {} if first else {"batch_size": 0}, "batch_size=0"),
    ],
)
def test_what_one_process_refuses_all_refuse(weights, tmp_path, given, sentence):
    found = together(2, lambda group: compress(weights, tmp_path / "small", group, **given(group.first)).to_csv(), tmp_path / "group")
    assert found[0] == found[1] and sentence in found[0] and found[0].startswith("InputError")


def test_a_folder_that_not_all_see_is_refused(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(lrp.streaming.spool, "SEEN_WITHIN", 0)
    found = together(2, lambda group: compress(weights, tmp_path / str(group.rank), group).to_csv(), tmp_path / "group")
    assert found[0] == found[1] and "the processes of the group do not all see it" in found[0]


def test_what_is_dropped_is_not_read(tmp_path):
    work, values = Work(tmp_path, "key"), torch.arange(10.0)[:, None]
    for number, part in enumerate(values.split(4)):
        work.spool("x").write(number, x=part)
    given = batches({work.spool("x"): ["x"]}, [4, 4, 2])
    for first in range(10):
        for last in range(first + 1, 11):
            found = given.take(last).drop(first)
            assert len(found) == last - first and torch.equal(torch.cat([x for (x,) in found.split(3)]), values[first:last])
    (tmp_path / "x/0.safetensors").unlink()
    assert torch.equal(given.drop(5).whole()[0], values[5:])
