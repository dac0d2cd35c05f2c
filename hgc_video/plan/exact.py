"""The exact savings: what changes nothing but rounding, added to any schedule.

The hint encoder runs once per clip, text is projected once per prompt, attention to a single token
(SVD's) is computed once, and what nobody reads is not run: the ControlNet's part behind the residuals
that are still read, a ControlNet that adds nothing at this step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from .graph import BlockGraph
from .liveness import live
from .schedule import Schedule, StepPlan


def once_per_run(graph: BlockGraph) -> frozenset[str]:
    """What does not change within a run: the encoded hint, and attention to a single token."""
    constant = (a.name for a in graph.attentions.values() if a.constant)
    return frozenset([*graph.names("hint"), *constant])


def add_exact(schedule: Schedule, graph: BlockGraph) -> Schedule:
    """The schedule with all exact savings; hint and constant attentions are reused once they are made."""
    once = once_per_run(graph)
    there: set[str] = set()
    steps: list[StepPlan] = []
    for step in schedule.steps:
        new = replace(step, reuse=step.reuse - once | there)
        alive = live(graph, new)
        there |= once & (alive.computed | alive.attended)
        steps.append(new)
    return replace(schedule, steps=tuple(steps), lossless=True)


def silence(schedule: Schedule, steps: Mapping[int, Collection[str]]) -> Schedule:
    """The schedule told which ControlNets add nothing at which steps: scale 0, or outside their window."""
    told = tuple(
        replace(step, silent=step.silent | frozenset(steps.get(i, ())))
        for i, step in enumerate(schedule.steps)
    )
    return replace(schedule, steps=told)
