"""The command line: ``python -m lrp.run group=option node.key=value``, with -m for a sweep."""

from __future__ import annotations

import sys

from lrp.follower import follows
from lrp.stop import stoppable


def main() -> None:
    """Check the words, then run what they ask for."""
    with stoppable(list(sys.argv[1:]), silent=follows()):
        # Hydra, and torch when the words have been checked: a Ctrl-C while they load is a line, too
        from lrp.command import run

        run()


if __name__ == "__main__":
    main()
