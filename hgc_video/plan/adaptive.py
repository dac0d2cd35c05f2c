"""Policies that decide at run time: from plain numbers, among steps that were planned before.

The engine measures on features that are computed anyway and asks; what was done is a schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol, cast

from ..errors import PlanError
from .schedule import Plan, Schedule, StepPlan


class Signals(Protocol):
    """What is measured; each is read only when asked for. Means of absolute values."""

    @property
    def step(self) -> int:
        """The step that is decided on; of a run that was planned anew, counted from there."""

    @property
    def computed_last(self) -> bool:
        """Whether the step before this one computed the prediction."""

    def agreed(self, flag: bool) -> bool:
        """A flag for all windows of the step: whether any of them raised it, those after the first one at the
        step before. Every decider of a plan whose windows act together asks at every step, once."""

    def products(self) -> tuple[tuple[float, ...], ...]:
        """The mean product of every two of F1, F1 - F2, F2 - F3 and F3 - F4, where F1 to F4 are the guided
        predictions that were computed last, the newest first; fewer rows where there are fewer. All that
        a linear forecast of F1 from the others is wrong by follows from these numbers."""

    def noise_angle(self) -> float | None:
        """Of this step's latents x = alpha x0 + sigma noise, atan(sigma / alpha); None where the scheduler
        does not tell."""

    def prediction_type(self) -> str:
        """What the model predicts, as diffusers names it; "v_prediction" where that is not known."""

    def input_change(self) -> float:
        """Of this step's latents minus those of the step before; 0 at step 0."""

    def input_change_since_computed(self) -> float:
        """Of this step's latents minus those of the last step that computed the prediction; 0 without one."""

    def output_change(self) -> float:
        """Of the last computed prediction minus the one computed before it; 0 without two."""

    def output_size(self) -> float:
        """Of the last computed prediction."""

    def stability(self) -> float:
        """SADA's criterion (2507.17135), by latents of the last four steps: of the way that they went
        beyond what their path foretold, times the path's second difference; 0 before there are as many."""

    def drift(self) -> float:
        """Of the outermost block's output at the step before minus its value at the last refresh,
        relative to that value; 0 where that step was the refresh."""


class Decision(NamedTuple):
    """Which of a step's choices is taken, and why.

    coefficients: in place of the choice's own, no more of them; None takes those.
    forecast_error: what the step before, which was computed, was measured to differ by from its forecast,
        relative to its size; None where nothing was measured.
    """

    choice: int
    reason: str
    coefficients: tuple[float, ...] | None = None
    forecast_error: float | None = None

    def of(self, choices: Sequence[StepPlan]) -> StepPlan:
        """The step that is carried out; PlanError where it reads more values than were planned."""
        step = choices[self.choice]
        if self.coefficients is not None:
            if len(self.coefficients) > step.depth:
                raise PlanError(
                    f"{len(self.coefficients)} coefficients were chosen for a step that was planned to read "
                    f"{step.depth} values; plan it with as many"
                )
            step = replace(step, coefficients=self.coefficients)
        return replace(step, forecast_error=self.forecast_error).because(self.reason)


Decide = Callable[[int, Signals], Decision]
# The metadata of fields of a decider that the plan gives it, or that follow from its other fields: they are
# no part of what is kept of a run.
OF_PLAN: Mapping[str, bool] = {"of_plan": True}


def decider_state(decide: Decide) -> dict[str, Any]:
    """What a decider goes by, as plain data, without its fields `OF_PLAN`; PlanError where it is no dataclass
    and cannot be told."""
    if not is_dataclass(decide) or isinstance(decide, type):
        raise PlanError(
            f"the decider {decide!r} is no dataclass, so that a run cannot be kept; make it one"
        )
    return {
        f.name: deepcopy(getattr(decide, f.name))
        for f in fields(decide)
        if not f.metadata.get("of_plan")
    }


def restored_decider(fresh: Decide, state: Mapping[str, Any]) -> Decide:
    """A fresh decider that goes on from what `decider_state` told of another one."""
    restored: Any = replace(fresh, **state)  # type: ignore[type-var]
    return cast(Decide, restored)


@dataclass(frozen=True)
class AdaptivePlan(Plan):
    """Per step the step plans to choose from, the fullest first, and `start()`, which gives a fresh
    decider for a run: called at every step with the number of choices and the signals, it gives the
    place of the one to take, and the reason.

    cheapest: per step the choice of the run that costs least; empty where any choice may follow any other.
    fixed: the schedule that is carried out unless something is measured that speaks against it.
    together: whether all windows of frames take the same choice at a step, as their deciders see to.
    """

    name: str
    alternatives: tuple[tuple[StepPlan, ...], ...]
    start: Callable[[], Decide]
    lossless: bool = True
    cheapest: tuple[int, ...] = ()
    fixed: Schedule | None = None
    together: bool = False

    is_adaptive: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.alternatives)

    @property
    def choices(self) -> tuple[tuple[StepPlan, ...], ...]:
        """Per step the steps to choose from."""
        return self.alternatives

    @property
    def decides_apart(self) -> bool:
        """Whether windows may take different choices at a step."""
        return not self.together and any(len(some) > 1 for some in self.alternatives)

    def executed(self, steps: Collection[StepPlan]) -> Schedule:
        """The schedule of a run in which these steps were chosen."""
        if self.fixed is not None:
            return replace(self.fixed, name=self.name, steps=tuple(steps))
        return Schedule(self.name, tuple(steps), self.lossless)

    def lower_bound(self) -> Schedule:
        """The schedule of the run that costs least."""
        if not self.cheapest:
            return self.executed([choices[-1] for choices in self.alternatives])
        return self.executed(
            [some[at] for some, at in zip(self.alternatives, self.cheapest, strict=True)]
        )

    def num_computed(self) -> tuple[int, int]:
        """The fewest and the most steps that are computed in full, or as far as they ever are."""
        cheapest = self.cheapest or [len(choices) - 1 for choices in self.alternatives]
        return sum(not at for at in cheapest), len(self)

    def with_inactive(self, steps: Mapping[int, Collection[str]]) -> AdaptivePlan:
        """The plan with ControlNets that add nothing, by step."""
        alternatives = tuple(
            tuple(choice.with_inactive(steps.get(i, ())) for choice in some)
            for i, some in enumerate(self.alternatives)
        )
        fixed = None if self.fixed is None else self.fixed.with_inactive(steps)
        return replace(self, alternatives=alternatives, fixed=fixed)
