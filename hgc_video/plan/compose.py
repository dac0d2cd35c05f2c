"""Several policies at once: what any of them reuses is reused, and a branch that one drops is dropped."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from ..errors import PlanError
from .adaptive import AdaptivePlan
from .schedule import Schedule, StepPlan


def compose(schedules: list[Schedule]) -> Schedule:
    """One schedule of several for the same run; PlanError where they contradict each other."""
    first, *others = schedules
    for other in others:
        if len(other) != len(first):
            raise PlanError(
                f"{first.name} has {len(first)} steps and {other.name} {len(other)}; "
                "only schedules of one length can be composed"
            )
    steps = tuple(
        reduce(_both, at_once) for at_once in zip(*(s.steps for s in schedules), strict=True)
    )
    anchors = {s.anchors for s in schedules} - {None}
    if len(anchors) > 1:
        raise PlanError(f"{' and '.join(s.name for s in schedules)} choose different anchor frames")
    return Schedule(
        "+".join(s.name for s in schedules),
        steps,
        lossless=any(s.lossless for s in schedules),
        anchors=anchors.pop() if anchors else None,
        adjust=next((s.adjust for s in schedules if s.adjust), ""),
    )


def compose_choices(plan: AdaptivePlan, schedules: list[Schedule]) -> AdaptivePlan:
    """An adaptive plan whose every choice also does what the schedules do at its step; PlanError where they
    contradict each other."""
    for other in schedules:
        if len(other) != len(plan):
            raise PlanError(
                f"{plan.name} has {len(plan)} steps and {other.name} {len(other)}; only plans of one length "
                "can be composed"
            )
        if other.anchors is not None:
            raise PlanError(
                f"{other.name} chooses anchor frames and {plan.name} decides at run time; give one of them"
            )
    at_once = [[schedule.steps[i] for schedule in schedules] for i in range(len(plan))]
    return replace(
        plan,
        name="+".join([plan.name, *(schedule.name for schedule in schedules)]),
        alternatives=tuple(
            tuple(reduce(_both, others, choice) for choice in choices)
            for choices, others in zip(plan.alternatives, at_once, strict=True)
        ),
        lossless=plan.lossless or any(schedule.lossless for schedule in schedules),
    )


def _both(one: StepPlan, other: StepPlan) -> StepPlan:
    rules = {(step.coefficients, step.latent_progress) for step in (one, other) if step.extrapolate}
    if len(rules) > 1:
        raise PlanError(
            f'"{one.label}" and "{other.label}" extrapolate differently at the same step'
        )
    clean = {s.clean for s in (one, other) if s.clean}
    if len(clean) > 1:
        raise PlanError(f'"{one.label}" and "{other.label}" forecast the same step differently')
    differences = {s.cfg_delta for s in (one, other) if s.branches == 1}
    if len(differences) > 1:
        raise PlanError(
            f'"{one.label}" and "{other.label}" treat guidance differently at the same step'
        )
    coefficients, follow = rules.pop() if rules else ((), None)
    labels = dict.fromkeys(s.label for s in (one, other) if s.label != "full")
    branches = min(one.branches, other.branches)
    return replace(
        one,
        reuse=one.reuse | other.reuse,
        deltas=one.deltas | other.deltas,
        average_branches=one.average_branches | other.average_branches,
        branches=branches,
        cfg_delta=differences.pop() if differences else None,
        extrapolate=one.extrapolate | other.extrapolate,
        coefficients=coefficients,
        latent_progress=follow,
        clean=clean.pop() if clean else (),
        inactive_controlnets=one.inactive_controlnets | other.inactive_controlnets,
        always_compute=one.always_compute | other.always_compute,
        label=" ".join(labels) or "full",
    ).because(other.reason)
