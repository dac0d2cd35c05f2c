"""A schedule as text: one line per step, for the report and for `hgc-video plan`."""

from __future__ import annotations

from .cost import cost, full_cost
from .graph import BlockGraph
from .schedule import Schedule


def chart(graph: BlockGraph, schedule: Schedule) -> tuple[str, ...]:
    """Per step: its label, the guidance branches, the ControlNet residuals computed, MACs and their share."""
    spent = cost(graph, schedule)
    whole = sum(full_cost(graph, 1).macs[0].values())
    residuals = graph.names("zero_conv")
    lines = []
    for i, (step, macs) in enumerate(zip(schedule.steps, spent.macs, strict=True)):
        alive = graph.alive(step.reuse)
        control = sum(name in alive for name in residuals)
        branches = "both branches" if step.branches == 2 else "one branch   "
        total = sum(macs.values())
        lines.append(
            f"{i:3d}  {step.label:<12} {branches}  controlnet {control:2d}/{len(residuals)}  "
            f"{total / 1e9:8.1f} GMACs  {100 * total / whole:5.1f} %"
        )
    return tuple(lines)
