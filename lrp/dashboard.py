"""A W&B workspace for lrp's runs: ``python -m lrp.dashboard ENTITY/PROJECT`` (extra: dashboard, and a W&B login)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from lrp.errors import first_line
from lrp.tracker.summary import AT

SUMMARY = (*(f"accuracy_at_{at}" for at in AT), "accuracy_area")
STAGES = ("seconds_decompose", "seconds_score", "seconds_select", "seconds_recover")


def workspace(entity: str, project: str) -> Any:
    """The workspace, built without a network: accuracy against sparsity and MACs by method, the summaries of the runs, the ranks that
    each layer keeps, the trainings, and the seconds of each stage. Raises ImportError without wandb-workspaces."""
    # the extra dashboard
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    def accuracy(x: str, title: str, column: str = "accuracy") -> Any:
        return wr.LinePlot(title=title, x=x, y=[column], title_x=x, title_y=column, legend_fields=["config:method", "config:label"])

    # balf, svd_energy and pca have parts of the same names: the method comes first, then what tells runs of one method apart. The label
    # is that of the line in lrp's figures; runs of earlier versions lack it.
    groups: list[Any] = [ws.Config(name) for name in ("method", "label", "blocking", "scorer")]
    return ws.Workspace(
        entity=entity,
        project=project,
        name="lrp",
        auto_generate_panels=False,
        runset_settings=ws.RunsetSettings(groupby=groups),
        sections=[
            ws.Section(
                name="Accuracy",
                is_open=True,
                panels=[
                    accuracy("sparsity_params", "Accuracy against sparsity"),
                    accuracy("sparsity_macs", "Accuracy against MACs removed"),
                    accuracy("sparsity_params", "Accuracy before recovery", "accuracy_before_recovery"),
                ],
            ),
            ws.Section(
                name="Summary",
                is_open=True,
                panels=[wr.BarPlot(title=name, metrics=[name], groupby_aggfunc="mean") for name in SUMMARY],
            ),
            ws.Section(
                name="Ranks by layer",
                is_open=True,
                panels=[wr.LinePlot(title="Components kept", x="sparsity_params", metric_regex="rank/.*", title_x="sparsity_params")],
            ),
            ws.Section(
                name="Trainings",
                is_open=True,
                panels=[
                    wr.LinePlot(title="Training", x="train/epoch", y=["train/loss", "train/validation_accuracy"], title_x="epoch"),
                    wr.LinePlot(title="Fine-tuning, loss", x="finetune/epoch", metric_regex="finetune/loss/.*", title_x="epoch"),
                    wr.LinePlot(
                        title="Fine-tuning, validation accuracy",
                        x="finetune/epoch",
                        metric_regex="finetune/validation_accuracy/.*",
                        title_x="epoch",
                    ),
                ],
            ),
            ws.Section(
                name="Seconds by stage",
                is_open=True,
                panels=[wr.BarPlot(title=stage, metrics=[stage], groupby_aggfunc="mean") for stage in STAGES],
            ),
        ],
    )


def main(words: Sequence[str] | None = None, prog: str = "python -m lrp.dashboard") -> None:
    """Make the workspace that the command line names; ``words``: its words, None: those of the process.

    Raises:
        SystemExit: With one sentence, where it cannot be made.
    """
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("project", metavar="ENTITY/PROJECT")
    name = parser.parse_args(words).project
    entity, slash, project = name.partition("/")
    if not (entity and slash and project) or "/" in project:
        raise SystemExit(f"lrp: {name}: the W&B project is written ENTITY/PROJECT")
    try:
        built = workspace(entity, project)
    except ImportError:
        raise SystemExit(
            "lrp: the dashboard needs wandb-workspaces: pip install 'lrp[dashboard]', or -e '.[dashboard]' in a checkout"
        ) from None
    try:
        built.save()
    except Exception as error:
        raise SystemExit(
            f"lrp: {name}: W&B did not take the workspace ({first_line(error)}); wandb login makes the key that it needs"
        ) from error
    print(built.url)


if __name__ == "__main__":
    sys.exit(main())
