"""The tables of docs/results/clustered_blocks.md."""

from __future__ import annotations

from layout import markdown, read, removed


def clustered() -> str:
    rows = []
    for r in read("clustered_blocks_summary").itertuples():
        shares = [r.contiguous_beats_none_refit, r.beats_contiguous_refit, r.beats_both, r.beats_both_refit, r.beats_both_counted_refit]
        ratios = [r.to_none_refit, r.to_contiguous_refit, r.shuffled_to_contiguous_refit]
        setting = [r.model, r.decomposition, r.k, removed(r.sparsity), r.layers]
        rows.append([*setting, *(f"{round(share * r.layers)}" for share in shares), *(f"{ratio:.2f}" for ratio in ratios)])
    header = [
        "network", "metric", "k", "removed", "layers", "contiguous beats none", "clustered beats contiguous", "beats both, not refitted",
        "beats both", "beats both, order counted", "clustered / none", "clustered / contiguous", "shuffled / contiguous",
    ]  # fmt: skip
    return markdown(header, rows)


def clustered_accuracy() -> str:
    table = read("clustered_accuracy")
    wide = table.pivot(index="blocking", columns="sparsity", values="accuracy").reindex(["none", "alds", "clustered"])
    rows = [[name, *("" if value != value else f"{100 * value:.2f}" for value in row)] for name, row in zip(wide.index, wide.to_numpy())]
    return markdown(["blocks", *(removed(sparsity) for sparsity in wide.columns)], rows)
