"""A few of the campaign's faults, from a fixed seed: nothing is taken for another network, and no bad input ends in a traceback."""

import random
import shlex

import pytest
import torch
from faults.cached import reading
from faults.calls import calls, problem
from faults.children import quick
from faults.more_calls import more_calls
from faults.outcomes import Counts
from faults.saved import saved
from faults.words import EITHER, REFUSED

from lrp.config.check import check_command_line
from lrp.config.schema import register
from lrp.entries import write_entry, write_state, write_values


@pytest.mark.slow
def test_damaged_networks(tmp_path):
    found = saved(tmp_path, 0.02, 0)
    assert not found.examples and found.numbers["damaged files"] > 60
    assert found.numbers["refused in a sentence"] > 0.95 * found.numbers["damaged files"]


@pytest.mark.slow
def test_damaged_entries_and_states(tmp_path):
    """Each of two entries, states and tables of numbers, also in the place of the other."""
    torch.manual_seed(0)
    files = [
        tmp_path / f"{name}{number}{end}"
        for name, end in (("entry", ".safetensors"), ("state", ".pt"), ("values", ".json"))
        for number in (1, 2)
    ]
    for number in (1, 2):
        tensors = {"a": torch.randn(3, 2), "b": torch.randn(3, 2), "c": torch.arange(number)}
        write_entry(tmp_path / f"entry{number}.safetensors", tensors, f"weights {number}")
        write_state(tmp_path / f"state{number}.pt", {"model": tensors, "epoch": number, "history": [{"loss": 0.5}]}, f"seed {number}")
        write_values(tmp_path / f"values{number}.json", {"accuracy": number / 3}, f"images {number}")
    found = Counts("entries")
    reading(files, tmp_path / "damaged", 600, random.Random(0), found)
    assert not found.examples and found.numbers["damaged files"] == 600


def ends_of(lines, capsys):
    """What ``check_command_line`` does with each; lines that end otherwise than with status 2 and one sentence."""
    wrong, refused = [], 0
    for line in lines:
        try:
            check_command_line(quick(*shlex.split(line)))
            continue
        except SystemExit as stop:
            error = capsys.readouterr().err.strip()
            refused += 1
            fits = stop.code == 2 and error.startswith("lrp: ") and "\n" not in error and len(error) < 700
        except Exception as error:
            fits = False
            wrong.append(f"{line}: {error!r}")
        if not fits:
            wrong.append(line)
    assert not wrong
    return refused


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("composed_once")
def test_command_lines(capsys):
    """Most are refused before anything is loaded; the others where the job begins, as the campaign sees."""
    register()
    chance, lines = random.Random(0), REFUSED.strip().splitlines()
    chosen = chance.sample(lines, 12)
    assert ends_of(chosen, capsys) > 7
    ends_of(EITHER.strip().splitlines()[::9], capsys)


@pytest.mark.slow
@pytest.mark.usefixtures("composed_once")
def test_command_lines_of_noise(capsys):
    """Letters put in, taken out and repeated in words that are right."""
    register()
    chance, wrong = random.Random(0), []
    for _ in range(24):
        word = list(chance.choice(["sparsity.grid=[0.5,0.9]", "blocking.k=2", "scorer=magnitude", "seed=0,1", "exclude=[features.0]"]))
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(word))
            word[at : at + chance.randint(0, 1)] = chance.choice(
                ["", "[", "]", "=", ",", "$", "{", "'", "\\", "\n", "é", "\x1b", "*", "~", "0"]
            )
        wrong.append(shlex.quote("".join(word)))
    ends_of([word for word in wrong if word != "''"], capsys)


@pytest.mark.slow
def test_calls(tmp_path):
    every = [*calls(tmp_path), *more_calls(tmp_path)]
    found = {call.name: problem(call) for call in random.Random(0).sample(every, 20)}
    assert not [f"{name}: {what}" for name, what in found.items() if what]
