"""Refuses a schedule that could not be carried out on a graph, before anything runs."""

from __future__ import annotations

import sys
from typing import TypeVar

from ..errors import PlanError, nearest
from .graph import PREDICTION, BlockGraph
from .liveness import CFG_DELTA, LATENTS, live, made, reads
from .schedule import Plan, Schedule, StepPlan

AnyPlan = TypeVar("AnyPlan", bound=Plan)


def _is_finite(weight: float) -> bool:
    """Neither infinite nor NaN, nor a whole number that no float holds."""
    return abs(weight) <= sys.float_info.max


def check(plan: AnyPlan, graph: BlockGraph) -> AnyPlan:
    """The plan itself, or PlanError: unknown names, reuse of what was never computed. Every choice of an
    adaptive plan must be possible whatever was chosen before."""
    first = plan.upper_bound()
    if not plan.is_adaptive:
        _check(first, graph)
        return plan
    for i, choices in enumerate(plan.choices):
        for choice in choices:
            _check(first.executed((*first.steps[:i], choice)), graph)
    return plan


def _check(schedule: Schedule, graph: BlockGraph) -> None:
    stored: dict[str, list[int]] = {}  # the branches of the values so far, newest last
    for i, step in enumerate(schedule.steps):
        _check_names(step, graph, i)
        if not 1 <= step.branches <= graph.branches:
            raise PlanError(
                f"step {i} computes {step.branches} branches; this run has {graph.branches}"
            )
        alive = live(graph, step, lossless=schedule.lossless)
        for name, depth in sorted(reads(step, alive).items()):
            layer = graph.by_name.get(name)
            hint = layer is not None and layer.kind == "hint"
            once = hint or name == CFG_DELTA or name.startswith(LATENTS)
            _check_read(name, depth, stored.get(name, []), 1 if once else step.branches, i)
        for name, branches in made(graph, step, alive, i).items():
            stored.setdefault(name, []).append(branches)


def _check_read(name: str, depth: int, values: list[int], branches: int, index: int) -> None:
    if not values:
        raise PlanError(f"step {index} reuses {name}, which no step before it has computed")
    if len(values) < depth:
        raise PlanError(
            f"step {index} extrapolates {name} from {depth} values, but only {len(values)} "
            f"{'was' if len(values) == 1 else 'were'} computed; give no more coefficients than that"
        )
    if min(values[-depth:]) < branches:
        raise PlanError(f"step {index} reuses {name} for both branches, but it was made for one")


def _check_names(step: StepPlan, graph: BlockGraph, index: int) -> None:
    for name in (
        step.reuse | step.deltas | step.average_branches | step.always_compute | step.extrapolate
    ):
        known = name in graph.by_name or name in graph.attentions or name == PREDICTION
        if not known:
            close = nearest(name, [*graph.by_name, *graph.attentions]).split("(")[0]
            raise PlanError(f"step {index} names {name}, which the model has not; {close}")
    for name in step.deltas - {PREDICTION}:
        if name not in graph.by_name or not graph.by_name[name].has_delta:
            raise PlanError(
                f"step {index} reuses the delta of {name}; only attention and motion layers "
                "add to their input"
            )
    if not all(map(_is_finite, step.coefficients)):
        raise PlanError(
            f"step {index} has the coefficients {step.coefficients}; only finite numbers can be"
        )
    for name in sorted(step.extrapolate & set(graph.names("hint"))):
        raise PlanError(
            f"step {index} extrapolates {name}, the encoded control clip, which is the same at every step; "
            "only reuse it"
        )
    for earlier, weight in step.clean:
        if not 0 <= earlier < index or not _is_finite(weight):
            raise PlanError(
                f"step {index} is forecast from step {earlier} times {weight}; name steps before it and "
                "finite weights"
            )
    for name in step.average_branches:
        if name not in graph.attentions or step.branches != 2:
            raise PlanError(f"step {index} merges {name}; only attentions of two branches can be")
    if step.latent_progress is not None:
        older, newer = step.latent_progress
        if not 0 <= older < newer < index:
            raise PlanError(
                f"step {index} follows the latents of steps {older} and {newer}; name an older and a newer "
                "step before it"
            )
    if step.latent_progress is not None and step.extrapolate & graph.attentions.keys():
        raise PlanError(f"step {index} follows the latents; only whole layers can, not attentions")
    if step.cfg_delta is not None and step.branches != 1:
        raise PlanError(
            f"step {index} adds a guidance difference although it computes both branches"
        )
