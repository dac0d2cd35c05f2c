"""Judges plans by real runs: the error of the final latents, kept in a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import torch

from ..evaluate.jobs import Map
from ..evaluate.results_file import ResultsFile
from ..evaluate.samples import SampleSet
from ..evaluate.trials import trials
from ..models.identity import model_hash
from ..plan.policies.searched import CodedSchedule


class PlanEvaluator:
    """The mean error of plans over the task's samples, in dB: the mean over samples of ten times the
    logarithm of the mean square, as PSNR takes it. Judgements are kept in a file."""

    def __init__(
        self, source: SampleSet, num_inference_steps: int, converged_steps: int, *, memory: Path, each: Map
    ) -> None:  # fmt: skip
        self._source, self._each = source, each
        self._target_steps = converged_steps or num_inference_steps
        self._results = ResultsFile(memory)
        self._results.check_writable()
        self._name = _setting(source, num_inference_steps, converged_steps)
        self._known: dict[str, float] = {
            result["plan"]: result["error_db"]
            for result in self._results.read(self._name, _Judgement)
        }

    def __call__(self, plans: list[CodedSchedule]) -> list[float]:
        """One error a plan."""
        new = [plan for plan in plans if _key(plan) not in self._known]
        indices = range(self._source.count)
        jobs = [(plan, index) for plan in new for index in indices]
        errors = self._each(partial(_error, self._source, self._target_steps), jobs)
        for at, plan in enumerate(new):
            own = errors[at * len(indices) : (at + 1) * len(indices)]
            self._known[_key(plan)] = fmean(10 * math.log10(max(e, 1e-12)) for e in own)
        judged = [{"plan": _key(plan), "error_db": self._known[_key(plan)]} for plan in new]
        self._results.add(self._name, judged)
        return [self._known[_key(plan)] for plan in plans]

    def known(self, plans: Sequence[CodedSchedule]) -> list[float]:
        """The errors of those plans that were judged as they are."""
        return [self._known[_key(plan)] for plan in plans if _key(plan) in self._known]


@dataclass(frozen=True)
class _Judgement:
    """What is kept of a plan."""

    plan: str
    error_db: float


def _setting(source: SampleSet, num_inference_steps: int, converged_steps: int) -> str:
    """All that a judgement depends on beside the plan."""
    model = f"{source.model} {model_hash(source.model)}"
    clips = f"{model} {source.list_identity()} {source.first} {source.count} {source.num_frames}"
    clips = f"{clips} {source.scheduler}".rstrip()
    return f"search {clips} | {num_inference_steps} {converged_steps}"


def _key(plan: CodedSchedule) -> str:
    extrapolation = " ".join(f"{d:g}" for d in plan.extrapolation)
    own = [f"{i}:" + ",".join(map(str, c)) for i, c in enumerate(plan.coefficients) if c]
    return " ".join([plan.actions, str(plan.gate), extrapolation, *["online"] * plan.online, *own])


def _error(source: SampleSet, target_steps: int, job: tuple[CodedSchedule, int]) -> float:
    """One plan on one sample, in a worker."""
    plan, index = job
    steps = len(plan.actions)
    made = trials(source)
    with torch.no_grad():
        trial = made(index, steps)
        target = made(index, target_steps).uncached
        return trial.error(plan(trial.graph, steps), target)
