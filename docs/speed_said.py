"""What docs/results/speed.md says was found.

What pays was judged by a reader; the numbers are computed.
"""

# ruff: noqa: E501  (sentences that become lines of pages)

from __future__ import annotations

from layout import bullets, markdown, paragraph, read, removed, said

GOALS = {0.8: 90, 0.9: 90, 0.95: 75}  # per cent of the MAC ratio with matrices alone, by the share of parameters removed
BLOCKS_GOAL = 25  # per cent that blocks may take longer at the same MACs
SHARES = (0.8, 0.9, 0.95)


def goals() -> str:
    """One row per share removed: the goal, and the better of as pruned and rounded for each number of threads and size of batch."""
    table = read("speed_summary").query("network == 'vgg16' and budget == 'params' and blocking == 'none'")
    best = 100 * table.groupby(["sparsity", "threads", "batch"])["of_macs_ratio"].max()
    columns = [(1, 64), (2, 64), (1, 1), (2, 1)]
    rows = [[removed(s), f"{GOALS[s]} %", *(f"{best[s, threads, batch]:.0f} %" for threads, batch in columns)] for s in SHARES]
    header = [f"{threads} thread{'s' * (threads > 1)}, batch {batch}" for threads, batch in columns]
    return markdown(["parameters removed", "goal", *header], rows)


def whole() -> str:
    table = read("speed_summary").query("network == 'vgg16' and batch == 64").fillna({"break_even": "params"})
    every = read("speed_whole").query("network == 'vgg16' and batch == 64 and blocking == 'dense'").set_index(["threads", "mode"])["ms"]
    chosen = table.query("budget == 'params'").set_index(["threads", "break_even", "sparsity"])
    at_equal_macs = table.query("budget == 'macs'").set_index(["threads", "blocking"])["ms"]

    def longer(blocking: str) -> str:
        return (
            " and ".join(f"{100 * (at_equal_macs[threads, blocking] / at_equal_macs[threads, 'none'] - 1):.0f}" for threads in (1, 2))
            + " %"
        )

    faster = {threads: said((chosen.loc[(threads, "measured", share), "speedup"] for share in (0.1, 0.3, 0.5)), 2) for threads in (1, 2)}
    first = [every[threads, "eager"] / every[threads, "channels_last"] for threads in (1, 2)]
    return bullets(
        f"**The goals** are met at batch 64, but for 95 % on two threads. There the Amdahl bound is {chosen.loc[(2, 'measured', 0.95), 'amdahl_bound']:.2f}, and "
        f"{chosen.loc[(2, 'measured', 0.95), 'speedup']:.2f} times is reached. (At 90 % on two threads the measured selection chose a smaller MAC ratio, "
        f"{chosen.loc[(2, 'measured', 0.9), 'macs_ratio']:.2f}, than the others, {chosen.loc[(2, 'params', 0.9), 'macs_ratio']:.2f}.) Two threads at batch 1 "
        "vary too much here to be trusted.",
        f"**Hardly ever slower** with `break_even=measured`: {faster[1]} times as fast with 10, 30 and 50 % of the parameters removed on one thread, {faster[2]} on two.",
        f"**What pays**: ranks that are multiples of 8 at high sparsity ({chosen.loc[(2, 'measured', 0.95), 'speedup']:.2f} against "
        f"{chosen.loc[(2, 'params', 0.95), 'speedup']:.2f} times at 95 % on two threads); folding batch norm (`lrp.fuse`); onnxruntime, which merges ReLU into the "
        "convolutions and repacks weights once, and which gains more on thin convolutions than on the dense ones; channels_last in eager (the dense network as well: "
        f"{said(first)} times on one and two threads).",
        f"**Where the goal is missed**: at the same multiply-accumulates alds takes {longer('alds')} longer than no blocking on one and two threads (goal: {BLOCKS_GOAL} %), "
        f"square blocks {longer('square')}. Part of the time of alds's convolutions is copying slices of the channels; the rest is lost in convolutions that read few "
        "channels. What was tried against it: [decisions](../decisions.md).",
    )


def forms() -> str:
    best = read("speed_forms_summary").groupby(["forms", "sparsity", "threads", "batch"])["speedup"].max()
    every, alone = read("forms").query("sparsity == 0.95"), read("no_retraining").query("method == 'output_aware' and sparsity == 0.9")
    alone = alone.query("blocking == 'none' and calibration_images == 12000")
    settings = [(1, 1), (1, 64), (2, 1), (2, 64)]
    return paragraph(
        "At equal parameters matrices alone are often as fast or faster, up to 90 %. At equal accuracy they are not: with 95 % removed `auto` keeps what matrices keep with",
        f"90 % removed ({100 * every['accuracy'].mean():.2f} and {100 * alone['accuracy_before_recovery'].mean():.2f} %, [forms](forms.md)), and there it is",
        f"{said((best['auto', 0.95, *key] for key in settings), 2)} times faster than dense, in the order of the table, where matrices are",
        f"{said((best['matrix', 0.9, *key] for key in settings), 2)} times.",
    )
