"""A schedule as text: one line per step, for the report and for `hgc-video plan`."""

from __future__ import annotations

from .cost import cost, full_cost
from .graph import BlockGraph
from .liveness import live
from .schedule import Schedule


def tera(macs: int) -> str:
    """MACs in units of 10^12, three digits."""
    return f"{macs / 1e12:.3g}" if macs < 1e15 else f"{macs / 1e12:.0f}"


def chart(graph: BlockGraph, schedule: Schedule) -> tuple[str, ...]:
    """Per step: its label, the guidance branches, the ControlNet residuals computed, MACs and their
    share, and the bytes kept when it ends."""
    spent = cost(graph, schedule)
    whole = sum(full_cost(graph, 1).macs[0].values())
    residuals = graph.residuals()
    lines = []
    for i, step in enumerate(schedule.steps):
        computed = live(graph, step, lossless=schedule.lossless).computed
        control = sum(name in computed for name in residuals)
        branches = "both branches" if step.branches == 2 else "one branch   "
        total = sum(spent.macs[i].values())
        lines.append(
            f"{i:3d}  {step.label:<14} {branches}  controlnet {control:2d}/{len(residuals)}  "
            f"{total / 1e9:8.1f} GMACs  {100 * total / whole:5.1f} %  "
            f"{spent.nbytes[i] / 2**20:7.1f} MiB kept"
        )
    return tuple(lines)
