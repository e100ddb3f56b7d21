"""What the process of another job does; without torch, which would take it seconds to load."""

import threading

from lrp.job.running import running


def hold(folder, alone, ready):
    with running(folder, alone):
        ready.set()
        threading.Event().wait()  # until it is killed
