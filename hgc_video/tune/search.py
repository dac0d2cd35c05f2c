"""Searches the schedule for a budget: exact dynamic programming on what was measured, then hill-climbing
on the error of the final latents of real runs.

Deterministic by its seed; what was judged once is not judged again, also not by a later run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from ..errors import InputError, at_least
from ..evaluate.jobs import workers
from ..evaluate.samples import SampleSet
from ..evaluate.trials import kept_trials, setting, trials
from ..models.identity import is_hash_of
from ..options.values import MOST_STEPS
from ..plan.calibration import Calibration
from ..plan.graph import BlockGraph
from ..plan.policies.searched import CodedSchedule
from ..plan.search.fit_steps import StepFitter
from ..plan.search.hill_climb import Space, climb
from ..plan.search.segments import search_keys, share
from ..plan.step_codes import FULL
from .plan_evaluator import PlanEvaluator

_GATES = (1.0, 0.94, 0.88, 0.8, 0.72, 0.64, 0.56, 0.48)  # shares of the run


@dataclass(frozen=True)
class SearchConfig:
    """What is looked for.

    budget: MACs as a share of an uncached run of `num_inference_steps`.
    converged_steps: 0 measures errors to the uncached run; more to an uncached run of that many steps.
    lengths: numbers of steps that the plan may run, as multiples of num_inference_steps.
    starts: plans found before, which the climb may go on from.
    judgements: plans to judge by real runs; the starts are all judged, and count.
    coefficients: of 1, what is reused is extrapolated by slopes; of more, by fitted coefficients of so many
        kept values too, where that is better on real runs.

    Raises:
        InputError: a number that is out of range, or options that exclude each other.
    """

    source: SampleSet
    num_inference_steps: int
    budget: float
    converged_steps: int = 0
    lengths: tuple[float, ...] = (1.0,)
    space: Space = field(default_factory=Space)
    judgements: int = 48
    jobs: int = 1
    seed: int = 0
    starts: tuple[CodedSchedule, ...] = ()
    coefficients: int = 1

    def __post_init__(self) -> None:
        for name in ("num_inference_steps", "judgements", "jobs"):
            at_least(name, getattr(self, name), 1)
        at_least("converged_steps", self.converged_steps, 0)
        if not 0 < self.budget < math.inf:
            raise InputError(
                f"budget={self.budget} is not possible; give a share of the uncached MACs above 0, as 0.4"
            )
        for length in self.lengths:
            if not 1 <= length * self.num_inference_steps <= MOST_STEPS:
                raise InputError(
                    f"lengths={length} of {self.num_inference_steps} steps is not possible; give multiples "
                    f"that come to 1 to {MOST_STEPS} steps"
                )
        if self.coefficients > 1 and (self.space.online or set(self.lengths) != {1.0}):
            raise InputError(
                f"coefficients={self.coefficients} is possible for the steps that were calibrated alone, and "
                "not online; leave --lengths and --online out, or take coefficients=1"
            )


@dataclass(frozen=True)
class Found:
    """The best plan, its share of the uncached MACs, its error in dB (the higher the closer), that of the
    best plan that dynamic programming gave, and that of the best uniform one, where one was judged as it
    is: the climb brings its starts within its space and budget first."""

    plan: CodedSchedule
    share: float
    closeness_db: float
    planned_db: float | None
    uniform_db: float | None


def search(
    task: SearchConfig, measured: Calibration, *, memory: Path, log: Callable[[str], None] = print
) -> Found:
    """The plan for a task; `memory` is the file of judgements made so far."""
    with kept_trials():
        return _searched(task, measured, memory, log)


def _searched(
    task: SearchConfig, measured: Calibration, memory: Path, log: Callable[[str], None]
) -> Found:
    with torch.no_grad():
        first = trials(task.source)(0, task.num_inference_steps)
    run = setting(
        task.source.model, task.num_inference_steps, first.guidance_scale, first.pipe.scheduler
    )
    if is_hash_of(measured.setting.model_hash, task.source.model):
        run = replace(run, model_hash=measured.setting.model_hash)
    measured.setting.check(run)
    graph = first.graph
    price = partial(_price, graph, task.num_inference_steps)
    fit = StepFitter(measured, task.coefficients) if task.coefficients > 1 else None
    planned, uniform = list(_planned(task, measured, graph)), list(_uniform(task, graph))
    starts = list(task.starts)
    if fit:
        starts = [plan.resampled(task.num_inference_steps) for plan in starts]
        starts += [fit(plan) for plan in starts]
        planned += _planned(task, measured, graph, fit)
        uniform = [fit(plan) for plan in uniform]
    with workers(task.jobs) as each:
        judge = PlanEvaluator(
            task.source, task.num_inference_steps, task.converged_steps, memory=memory, each=each
        )
        best = None
        for step in climb(
            [*starts, *planned, *uniform], price, task.budget, judge, judgements=task.judgements,
            at_once=max(1, task.jobs), seed=task.seed, space=task.space, fit=fit,
        ):  # fmt: skip
            best = step
            log(
                f"{step.judged:4d} judged: {-step.error:.2f} dB at {price(step.plan):.3f}  "
                f"{step.plan.actions} gate {step.plan.gate}"
            )
    if best is None:
        raise InputError(
            f"budget={task.budget} is not possible; give a larger share of the uncached MACs"
        )
    stretch = len(best.plan.actions) / task.num_inference_steps
    return Found(
        replace(best.plan, step_ratio=stretch), price(best.plan), -best.error,
        *(max((-e for e in judge.known(plans)), default=None) for plans in (planned, uniform)),
    )  # fmt: skip


def _price(graph: BlockGraph, asked: int, plan: CodedSchedule) -> float:
    steps = len(plan.actions)
    bare = replace(
        plan, coefficients=()
    )  # which cost nothing, and are fitted to what is in the budget
    return share(graph, bare(graph, steps)) * steps / asked


def _planned(
    task: SearchConfig, measured: Calibration, graph: BlockGraph, fit: StepFitter | None = None
) -> Iterator[CodedSchedule]:
    """The best plan for each gate by dynamic programming, the best three gates of each objective."""
    steps = task.num_inference_steps
    for length in task.lengths:
        for coherent in (False, True):
            found = []
            for gate in sorted(
                {min(steps, round(g * steps)) for g in _GATES if task.space.gated or g == 1}
            ):
                plan = search_keys(
                    measured,
                    graph,
                    task.budget / length,
                    gate=gate,
                    coherent=coherent,
                    letters=task.space.letters,
                    fit=fit,
                )
                if plan is not None:
                    found.append(plan)
            for plan in _spread(found):
                yield plan.resampled(round(length * steps))


def _spread(plans: Sequence[CodedSchedule]) -> Sequence[CodedSchedule]:
    """Three of the plans for different gates: the closed loop, not the prediction, chooses the gate."""
    return plans if len(plans) <= 3 else (plans[len(plans) // 2], plans[-2], plans[-1])


def _uniform(task: SearchConfig, graph: BlockGraph) -> Iterator[CodedSchedule]:
    """Key steps at equal and at growing intervals, half of the last slope, one branch late in the run."""
    for length in task.lengths:
        steps = round(length * task.num_inference_steps)
        for gate in (steps, round(0.8 * steps), round(0.6 * steps)):
            for growth in (0.0, 0.35):
                plan = _intervals(steps, gate, growth, task, graph)
                if plan is not None:
                    yield plan


def _intervals(
    steps: int, gate: int, growth: float, task: SearchConfig, graph: BlockGraph
) -> CodedSchedule | None:
    """The shortest first interval within the budget; the next ones grow by `growth` each."""
    for tenths in range(10, 10 * steps):
        keys, at, interval = {0, 1, 2}, 2.0, tenths / 10
        while at < steps:
            keys.add(round(at))
            at, interval = at + interval, interval + growth
        word = "".join(FULL if i in keys else task.space.partial for i in range(steps))
        plan = CodedSchedule(word, max(gate, 2), (0.5,) * steps)
        if _price(graph, task.num_inference_steps, plan) <= task.budget:
            return plan
    return None


def with_origin(
    found: Found, task: SearchConfig, measured: Calibration, name: str
) -> CodedSchedule:
    """The plan under a name, with what it was found from, as its file tells."""
    reached = {
        "closeness_db": found.closeness_db,
        "planned_db": found.planned_db,
        "uniform_db": found.uniform_db,
    }
    origin = {
        "model": measured.setting.model, "model_hash": measured.setting.model_hash,
        "scheduler": measured.setting.scheduler, "guidance_scale": measured.setting.guidance_scale,
        "num_inference_steps": task.num_inference_steps, "budget": task.budget,
        "share": round(found.share, 4), "judged_against": task.converged_steps or "the uncached run",
        **{name: round(db, 2) for name, db in reached.items() if db is not None},
        "judgements": task.judgements,
        "samples": f"{task.source.count} of {task.source.num_frames} frames from {task.source.first}",
        "seed": task.seed,
        **({"coefficients_of": task.coefficients} if task.coefficients > 1 else {}),
    }  # fmt: skip
    return replace(found.plan, name=name, metadata=origin)
