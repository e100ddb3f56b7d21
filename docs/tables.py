"""Write the tables in README.md, docs/reliability.md and docs/results/*.md, and sentences with numbers, from experiments/results/*.csv.

    python docs/tables.py

A table stands between <!-- table: NAME --> and <!-- end -->, sentences between <!-- text: NAME --> and <!-- end -->; what is
between them is replaced, and nothing else is touched. tests/test_docs.py runs this and asserts that nothing changes: edit the CSV or
a script, never the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import accuracy_said as found
import accuracy_tables as accuracy
import bias_tables as bias
import block_tables as blocks
import cited_tables as cite
import claim_tables as claims
import cost_tables as cost
import mask_tables as masks
import network_tables as nets
import pandas as pd
import scoring_said as scoring
import speed_said
import spread_tables as spread
import study_tables as studies
from layout import RESULTS, ROOT
from reliability_table import reliability

from lrp.figure.figure1 import figure1_markdown, figure1_table
from lrp.figure.figure2 import figure2_markdown, figure2_table
from lrp.figure.simplicity_bias import pruned_markdown, simplicity_markdown
from lrp.files import write_text
from lrp.results.tables import read_table

MARKED = re.compile(r"(<!-- (?:table|text): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _bias() -> tuple[pd.DataFrame, pd.DataFrame]:
    return read_table(RESULTS / "simplicity_bias.csv"), read_table(RESULTS / "simplicity_bias_measures.csv")


TABLES: dict[str, Callable[[], str]] = {
    "overview": cost.overview, "waiting": cost.waiting,
    "figure3_batchnorm": lambda: accuracy.figure3("batchnorm"), "figure3_no_recovery": lambda: accuracy.figure3("none"),
    "figure3_collapse": accuracy.figure3_collapse, "figure3_blocks": accuracy.figure3_blocks,
    **spread.tables("figure3_networks"), **spread.tables("figure3_half"),
    "figure3_spearman": accuracy.figure3_spearman, "figure3_k": accuracy.figure3_k, "alds_authors": accuracy.alds_authors,
    "no_retraining": lambda: accuracy.no_retraining("no_retraining"),
    "no_retraining_resnet20": lambda: accuracy.no_retraining("no_retraining_resnet20"),
    "forms": lambda: accuracy.forms("forms"), "forms_resnet20": lambda: accuracy.forms("forms_resnet20"), "form_sets": accuracy.form_sets,
    "form_rivals": accuracy.form_rivals, "form_search": accuracy.form_search, "form_ablation": accuracy.form_ablation,
    "form_stages": accuracy.form_stages,
    "form_loss": accuracy.form_loss, "form_finetuned": accuracy.form_finetuned, "forms_hand": accuracy.forms_hand,
    "ablation": accuracy.ablation, "two_sided": accuracy.two_sided, "retraining": accuracy.retraining,
    "figure1": lambda: figure1_markdown(figure1_table(read_table(RESULTS / "figure1.csv"))),
    "figure1_search": studies.figure1_search, "figure1_nearest": studies.figure1_nearest,
    "figure1_nearest_said": studies.figure1_nearest_said, "figure1_epochs": studies.figure1_epochs,
    "figure1_epochs_said": studies.figure1_epochs_said, "figure2_rank14": studies.rank14, "figure2_rank14_said": studies.rank14_said,
    "stacked": blocks.stacked, "stacked_said": blocks.stacked_said,
    "figure2_small": lambda: figure2_markdown(figure2_table(read_table(RESULTS / "figure2_small.csv"))),
    "simplicity_bias": lambda: simplicity_markdown(_bias()[0]), "simplicity_bias_pruned": lambda: pruned_markdown(*_bias()),
    "bias_settled": bias.settled, "bias_settled_said": bias.settled_said,
    "bias_settled_pruned": bias.settled_pruned, "bias_settled_claims": bias.settled_claims,
    "claims_in_short": claims.claims_in_short,
    "figure1_claims": claims.figure1_claims, "figure2_claims": claims.figure2_claims, "figure3_claims": claims.figure3_claims,
    "simplicity_bias_claims": claims.simplicity_bias_claims, "no_retraining_goals": claims.no_retraining_goals,
    "scoring_speed": cost.scoring_speed, "scoring_quality": cost.scoring_quality, "scoring_correlation": cost.scoring_correlation,
    "scoring_images": cost.scoring_images, "scoring_outputs": cost.scoring_outputs, "scoring_fewer": cost.scoring_fewer,
    "speed_vgg16": lambda: cost.speed("vgg16"), "speed_resnet18": lambda: cost.speed("resnet18"), "speed_layers": cost.speed_layers,
    "speed_batch": cost.speed_batch, "speed_sizes": cost.speed_sizes,
    "speed_forms": cost.speed_forms, "speed_forms_sizes": cost.speed_forms_sizes, "speed_rivals": cost.speed_rivals,
    "reliability": reliability,
    "tied": nets.tied, "networks": nets.networks, "language_model": nets.language_model, "pretrained": nets.pretrained,
    "pretrained_said": nets.pretrained_said,
    "pretrained_all": nets.pretrained_all, "clustered_blocks": blocks.clustered, "clustered_accuracy": blocks.clustered_accuracy,
    "score_forms": blocks.score_forms, "score_forms_said": blocks.score_forms_said,
    "scale": nets.scale, "scale_growth": nets.scale_growth, "depth": nets.depth, "processes": nets.processes,
    "plan": nets.plan, "plan_hours": nets.plan_hours,
    "few_examples": lambda: nets.few_examples(["before", "after"]), "few_views": lambda: nets.few_examples(["one view", "8 views"]),
    "few_views_said": nets.few_views_said,
    "at_initialisation": masks.at_initialisation,
    "at_initialisation_layers": masks.at_initialisation_layers, "iterative": masks.iterative,
    "at_initialisation_said": masks.at_initialisation_said, "iterative_said": masks.iterative_said,
    "scoring_speed_said": scoring.speed, "scoring_quality_said": scoring.quality, "scoring_additive": scoring.additive,
    "scoring_correlation_said": scoring.correlation, "scoring_images_said": scoring.images, "scoring_outputs_said": scoring.outputs,
    "scoring_fewer_said": scoring.fewer, "speed_goals": speed_said.goals, "speed_said": speed_said.whole,
    "speed_forms_said": speed_said.forms,
    "no_retraining_said": found.no_retraining, "no_retraining_seconds": found.seconds, "ablation_said": found.ablation,
    "form_ablation_said": found.form_ablation,
    "alds_search": found.alds_search, "form_search_said": found.form_search, "form_finetuned_said": found.form_finetuned,
    "forms_said": found.forms, "forms_hand_said": found.forms_hand, "tied_said": nets.tied_said,
    "retraining_said": found.retraining, "cited_said": cite.cited_said,
    "cited": cite.cited, "cited_correlation": cite.cited_correlation, "cited_identity": cite.cited_identity,
}  # fmt: skip


def filled(text: str) -> str:
    """The text with every table between markers written anew."""
    return MARKED.sub(lambda match: f"{match[1]}\n{TABLES[match[2]]().strip()}\n\n{match[3]}", text)


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "docs/reliability.md", *sorted((ROOT / "docs/results").glob("*.md"))]


if __name__ == "__main__":
    for page in pages():
        write_text(page, filled(page.read_text(encoding="utf-8")))
