"""The command ``lrp``: compress and measure (``run``), a first look (``tour``), tables and figures, and a W&B workspace (``dashboard``)."""

from __future__ import annotations

import signal
import sys

import lrp
from lrp.stop import read_or_not

USAGE = """usage: lrp run [group=choice] [option=value] ...    compress a network and measure it; -m for a sweep, --help for every option
       lrp tour                                     the paper and lrp on digits that come with it: a figure, in minutes
       lrp figure NAME FOLDER...                    draw the tables of runs: {figures}
       lrp report FOLDER...                         one HTML file of runs, which opens without a network
       lrp collect FOLDER...                        one table of the runs of many machines, and what is not finished
       lrp dashboard ENTITY/PROJECT                 make a W&B workspace for lrp's runs (needs lrp[dashboard])
       lrp --version

Each of them explains itself with --help. python -m lrp is the same command."""
FIGURES = (  # without loading them, which takes seconds
    "figure1, figure2, figure3, simplicity_bias, at_initialisation, iterative, no_retraining, forms, cited, scoring_images, speed_whole, "
    "speed_layers, speed_batch, growth"
)


def main() -> None:
    """Do what the first word says.

    Raises:
        SystemExit: With one sentence, for a word that is none of them and for whatever goes wrong.
    """
    try:
        with read_or_not():
            _do()
    except KeyboardInterrupt:  # what runs has said how to go on
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        from lrp.command import reason_of  # torch

        raise SystemExit(f"lrp: {reason_of(error, None)}") from error


def _do() -> None:
    word, *rest = sys.argv[1:] or ["--help"]
    if word in ("--help", "-h"):
        print(USAGE.format(figures=FIGURES))
    elif word == "--version":
        print(f"lrp {lrp.__version__}")
    elif word == "run":
        from lrp.run import main as run  # torch

        sys.argv[:] = ["lrp run", *rest]
        run()
    elif word == "tour":
        from lrp.tour import main as tour  # torch

        tour(rest, "lrp tour")
    elif word == "figure":
        _figure(rest)
    elif word == "report":
        from lrp.report.command import main as report  # torch

        report(rest, "lrp report")
    elif word == "collect":
        from lrp.collect import main as collect  # torch

        collect(rest, "lrp collect")
    elif word == "dashboard":
        from lrp.dashboard import main as dashboard  # optional: wandb-workspaces

        dashboard(rest, "lrp dashboard")
    else:
        raise SystemExit(f"lrp: {word}: give run, tour, figure, report, collect or dashboard; lrp --help says what they do")


def _figure(words: list[str]) -> None:
    if not words or words[0] in ("--help", "-h"):
        print(f"usage: lrp figure NAME FOLDER... [--out FILE]\n\nNAME is one of {FIGURES}; lrp figure NAME --help has its options.")
        return
    from lrp.figure.command import command  # torch, pandas and matplotlib, which take seconds
    from lrp.figure.known import FIGURES as known  # torch

    if words[0] not in known:
        raise SystemExit(f"lrp figure: {words[0]}: there is no such figure; choose one of {FIGURES}")
    command(known[words[0]], words[1:], f"lrp figure {words[0]}")


if __name__ == "__main__":
    main()
