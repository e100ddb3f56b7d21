"""A folder of one's own is held to the contracts: what fulfils them passes, what does not is told the rule."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCORER = """
from dataclasses import dataclass
from typing import ClassVar

from lrp.scorer.magnitude import Magnitude


@dataclass(frozen=True)
class Shifted(Magnitude):
    name: ClassVar[str] = "{name}"
    by: float = {by}

    def __call__(self, *given):
        return [score + self.by for score in super().__call__(*given)]
"""


def folder_of(place, name, by):
    (place / "conf" / "scorer").mkdir(parents=True)
    (place / "conf" / "scorer" / f"{name}.yaml").write_text(f"_target_: {name}.Shifted\nby: {by}\n")
    (place / f"{name}.py").write_text(SCORER.format(name=name, by=by))
    return str(place / "conf")


@pytest.mark.long
@pytest.mark.slow
def test_scorers_of_ones_own(tmp_path):
    """One that fulfils the contracts, in a folder that the environment names, and one that does not, in the folder of an option: a
    process of its own takes ten seconds to begin, so both are in one."""
    here = Path(__file__).parent
    words = [str(here / "test_scorer.py"), str(here / "test_options.py"), "-k", "raised or sunk", "-p", "no:cacheprovider", "--color=no"]
    words += ["-rA", "--conf", folder_of(tmp_path / "b", "sunk", -1e6)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "LRP_CONF"))}
    environment["LRP_CONF"] = folder_of(tmp_path / "a", "raised", 1.0)
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=here.parents[1], env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "scorer=sunk, layer stem: no score is negative" in done.stdout and "scorer=raised, " not in done.stdout
    ended = re.findall(r"^([A-Z]+) (\S+)::(\w+)\[(.*)\]", done.stdout, re.MULTILINE)
    passed, failed = ([test[1:] for test in ended if test[0] == how] for how in ("PASSED", "FAILED"))
    tests = {test[1] for test in passed if "raised" in test[2]}
    assert tests >= {"test_one_score_for_each_component", "test_repeats_bit_for_bit", "test_an_option_knows_its_name"}
    assert {test[1] for test in failed} == {"test_one_score_for_each_component"} and all("sunk" in test[2] for test in failed)
