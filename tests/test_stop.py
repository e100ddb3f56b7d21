"""Ctrl-C and SIGTERM: one line that says how to go on."""

import os
import signal
import time

import pytest

from lrp.stop import remember_folder, stoppable


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_stopped_command(number, name, capsys, tmp_path):
    """What it was writing is cleaned up, the line can be pasted, the handlers are those of before."""
    before, file = signal.getsignal(number), tmp_path / "half"
    with pytest.raises(SystemExit) as stop, stoppable(["-m", "seed=0,1", "resume=false", "hydra.sweep.dir=x", "a=b c"]):
        remember_folder("hydra.sweep.dir=out puts")
        file.touch()
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            file.unlink()
    assert stop.value.code == 128 + number and not file.exists() and signal.getsignal(number) == before
    go_on = "python -m lrp.run -m seed=0,1 'a=b c' resume=true 'hydra.sweep.dir=out puts'"
    assert capsys.readouterr().err == f"lrp: stopped by {name}; to go on: {go_on}\n"


def test_stopped_before_there_was_a_folder(capsys):
    with pytest.raises(SystemExit) as stop, stoppable([]):
        raise KeyboardInterrupt
    assert stop.value.code == 130 and capsys.readouterr().err == "lrp: stopped by Ctrl-C; nothing had been computed yet\n"


def test_whatever_else_happens_passes():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), stoppable([]):
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) == before
