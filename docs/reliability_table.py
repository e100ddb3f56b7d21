"""The table of docs/reliability.md: what the fault campaign counted."""

from __future__ import annotations

from layout import markdown, read

GOALS = {  # section: what was tried, the count of it, how often is wanted, and what its counts are called that are no faults
    "kills": ("runs killed with `kill -9`, then resumed", "kills", 200, ("runs",)),
    "saved": ("damaged files of saved networks, loaded", "damaged files", 2000, ("refused in a sentence",)),
    "cached": ("damaged files of caches and unfinished work, read", "damaged files", 1000, ("jobs that went on from a damaged file",)),
    "full_disk": ("runs on a full disk, then resumed with room", "full disks", 40, ("runs that failed",)),
    "shared_cache": ("processes that shared a cache with two others", "processes", 30, ()),
    "inputs": ("bad command lines, data, checkpoints, run folders and calls", "bad inputs", 500, ("refused in a sentence",)),
}


def reliability() -> str:
    """One row a section: how often it was tried, the faults that were counted, and the commit."""
    counts, rows = read("reliability"), []
    for section, (what, tried, wanted, others) in GOALS.items():
        part = counts[counts["section"] == section].set_index("count")
        if part.empty:
            continue
        number = int(part["value"][tried])
        faults = [f"{value} {name}" for name, value in part["value"].items() if name not in (tried, *others)]
        beside = "".join(f", {part['value'][name]:,} {name}" for name in others if name in part.index)
        rows.append([what, f"{number:,}{beside}", f"{wanted:,}", "; ".join(faults), f"`{part['commit'].iloc[0]}`"])
    return markdown(["what", "tried", "goal", "faults (goal: 0 of each)", "commit"], rows)
