"""What a tracker is told, put into the words of one: steps, names of metrics, summaries, media and artifacts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from lrp.errors import first_line
from lrp.tracker.summary import summarise
from lrp.tracker.told import Told

log = logging.getLogger(__name__)

X = "sparsity_params"
OTHER_X = "sparsity_macs"
Y = ("accuracy", "accuracy_before_recovery", "perplexity", "divergence")  # also drawn over the multiply-accumulates removed
MODEL = ".safetensors"
IMAGES = (".png", ".jpg", ".jpeg")


class Sink(Protocol):
    """One run of one tracker, in its own terms."""

    def define(self, metric: str, x: str | None) -> None:
        """Draw a metric over another, and take its last value for no summary."""
        ...

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Values of one step."""
        ...

    def summary(self, values: Mapping[str, float]) -> None:
        """The run in a few numbers, in place of those of before."""
        ...

    def image(self, path: Path) -> Any:
        """A picture that can be logged."""
        ...

    def page(self, path: Path) -> Any:
        """A page of HTML that can be logged."""
        ...

    def table(self, table: pd.DataFrame) -> Any:
        """A table that can be logged."""
        ...

    def artifact(self, kind: str, paths: Sequence[Path], aliases: Sequence[str], about: Mapping[str, Any]) -> None:
        """A version of the run's artifact of this kind."""
        ...


class Writing:
    """A job's view of a run: a failure to log is said and otherwise ignored."""

    def __init__(self, tracker: str, sink: Sink, told: Told) -> None:
        self.tracker, self.sink, self.told = tracker, sink, told
        self.seen: list[dict[str, Any]] = []
        self.defined: set[str] = set()

    def rows(self, rows: pd.DataFrame) -> None:
        """The rows that an earlier, killed run had finished: those that it did not log are logged now."""
        self.seen = [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]
        missing = self.seen[self.told.rows :]
        for row in missing:
            self._quietly(lambda row=row: self._row(row, None))
        if missing:
            self._quietly(lambda: self.sink.summary(summarise(pd.DataFrame(self.seen))))

    def row(self, row: Mapping[str, Any], layers: pd.DataFrame | None) -> None:
        """A row and its ranks; the summary is that of all rows so far."""
        self.seen = [*(old for old in self.seen if old.get("sparsity", old) != row.get("sparsity", row)), dict(row)]
        self._quietly(lambda: self._row(row, layers))
        self._quietly(lambda: self.sink.summary(summarise(pd.DataFrame(self.seen))))

    def _row(self, row: Mapping[str, Any], layers: pd.DataFrame | None) -> None:
        values: dict[str, Any] = numbers(row)
        x = X if X in values else None
        if OTHER_X in values:
            over_macs = {f"over_macs/{name}": values[name] for name in Y if name in values}
            self._define(over_macs, OTHER_X)
            values |= over_macs
        if layers is not None:
            ranks = layers.groupby("layer", sort=False)[["kept", "full"]].sum()
            values |= {f"rank/{name}": int(kept) for name, kept in ranks["kept"].items()}
        self._define(values, x)
        if layers is not None:
            values["ranks"] = self.sink.table(ranks.reset_index())
        self.told.rows += 1
        self._log(values)

    def epoch(self, training: str, which: str, values: Mapping[str, float]) -> None:
        """An epoch, unless it was logged before: train/loss, or finetune/loss/90, over train/epoch or finetune/epoch."""
        name, number = "/".join(filter(None, (training, which))), int(values["epoch"])
        if number <= self.told.epochs.get(name, 0):
            return
        x = f"{training}/epoch"
        named = {"/".join(filter(None, (training, key, which))): value for key, value in numbers(values).items() if key != "epoch"}

        def write() -> None:
            self._define({x: number, **named}, x)
            self.told.epochs[name] = number
            self._log({x: number, **named})

        self._quietly(write)

    def model(self, path: Path, label: str, row: Mapping[str, Any]) -> None:
        """A saved network, as a version of the run's artifact of models."""
        self._quietly(lambda: self.sink.artifact("model", [path], [f"sparsity-{label}"], numbers(row)))

    def files(self, paths: Sequence[Path]) -> None:
        """Pictures and pages as media; everything else is one artifact, with its first table to look at."""
        for path in paths:
            if path.suffix in IMAGES:
                self._quietly(lambda path=path: self._log({f"figures/{path.stem}": self.sink.image(path)}))
            elif path.suffix == ".html":
                self._quietly(lambda path=path: self._log({path.stem: self.sink.page(path)}))
        tables = [path for path in paths if path.suffix not in (*IMAGES, ".html")]
        if tables:
            self._quietly(lambda: self.sink.artifact("results", tables, [], {}))
        for path in tables:
            if path.name == "results.csv":
                self._quietly(lambda path=path: self._log({"results": self.sink.table(_read(path))}))

    def _define(self, values: Mapping[str, Any], x: str | None) -> None:
        for name in values:
            if name not in self.defined:
                self.defined.add(name)
                self.sink.define(name, None if name == x else x)

    def _log(self, values: Mapping[str, Any]) -> None:
        self.sink.log(values, self.told.step)
        self.told.logged()

    def _quietly(self, action: Callable[[], None]) -> None:
        quietly(self.tracker, action)


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def quietly(tracker: str, action: Callable[[], Any]) -> None:
    """Do it; where it fails, say so in the log: a job never fails because of its tracker."""
    try:
        action()
    except Exception as error:
        log.warning("tracker=%s: not logged (%s)", tracker, first_line(error))


def numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """What of a row is a number."""
    return {key: value for key, value in row.items() if isinstance(value, (int, float)) and type(value) is not bool and value == value}
