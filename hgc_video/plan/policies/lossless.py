"""The lossless savings: what changes nothing but rounding, alone or added to another policy.

The hint encoder runs once per clip, text is projected once per prompt, attention to a single token
(SVD's) is computed once, and what nobody reads is not run: the ControlNet's part behind the residuals
that are still read, a ControlNet that adds nothing at this step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from ..graph import BlockGraph
from ..liveness import live
from ..schedule import Schedule, StepPlan
from .base import SchedulePolicy


class Lossless(SchedulePolicy):
    """Only the lossless savings; `other+lossless` adds them to a published method."""

    spelling: ClassVar[str] = "lossless"
    source: ClassVar[str] = "this package"

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        step = StepPlan(branches=graph.branches)
        plain = Schedule("lossless", (step,) * num_inference_steps)
        return add_lossless(plain, graph)


def once_per_run(graph: BlockGraph) -> frozenset[str]:
    """What does not change within a run: the encoded hint, and attention to a single token."""
    constant = (a.name for a in graph.attentions.values() if a.constant)
    return frozenset([*graph.names("hint"), *constant])


def add_lossless(schedule: Schedule, graph: BlockGraph) -> Schedule:
    """The schedule with all lossless savings; hint and constant attentions are reused once they are made."""
    once = once_per_run(graph)
    there: dict[str, int] = {}
    steps: list[StepPlan] = []
    for i, step in enumerate(schedule.steps):
        new = replace(step, reuse=step.reuse - once | frozenset(there))
        alive = live(graph, new)
        for name in once & (alive.computed | alive.attended):
            there.setdefault(name, i)
        steps.append(new.because(_reason(graph, there, i)))
    return replace(schedule, steps=tuple(steps), lossless=True)


def add_lossless_to_choices(
    choices: tuple[tuple[StepPlan, ...], ...], graph: BlockGraph
) -> tuple[tuple[StepPlan, ...], ...]:
    """The choices of an adaptive plan with the lossless savings: what is computed once is reused after
    step 0, which computes everything."""
    once = once_per_run(graph)
    first, later = (_reason(graph, dict.fromkeys(once, 0), step) for step in (0, 1))
    return (
        tuple(c.because(first) for c in choices[0]),
        *(tuple(c.with_reuse(once, later) for c in some) for some in choices[1:]),
    )


def _reason(graph: BlockGraph, there: dict[str, int], index: int) -> str:
    """Why the lossless savings leave something out at a step: what was made before it."""
    hints = sorted({made for name, made in there.items() if name in graph.by_name})
    constant = any(name in graph.attentions for name in there)
    clauses = []
    if hints:
        before = hints[0] < index
        clauses.append(
            f"the hint was encoded at step {hints[0]}" if before else "the hint is encoded here"
        )
    if constant:
        clauses.append("attention to the image is computed once")
    return f"lossless: {', '.join(clauses) or 'the text is projected once'}"
