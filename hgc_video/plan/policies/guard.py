"""Error-controlled reuse: whole steps are forecast while the error that this makes stays within a tolerance,
as an embedded Runge-Kutta pair chooses its step size.

At a computed step the forecast that would have been used there is compared with the fresh prediction. The
error tells how far the next forecasts may go, and how much of the slope they may take: under the noise of an
ancestral sampler none, and where steps do not resemble one another every step is computed. The tolerance
bounds the estimated error of the final latents, as a share of their standard deviation: what every step's
error makes of them follows from the scheduler's noise levels, or from a calibration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import pi, sqrt
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from ..adaptive import AdaptivePlan, Decision, Signals
from ..calibration import load_calibration
from ..coefficients import linear
from ..graph import BlockGraph
from ..schedule import StepPlan
from .base import Policy
from .lossless import add_lossless_to_choices

_SAFETY = 0.9  # share of the allowance that a forecast error may take, as step size control has it
# Errors of one interval point the same way and add up; those of several do in part (2 were independent ones).
_ADDING = 1.4
_FADING = 0.2  # of what earlier computed steps tell of the slope, at every further one


class Guard(Policy):
    """Whole steps are forecast by a damped line, as far as measured errors allow."""

    spelling: ClassVar[str] = "guard"
    source: ClassVar[str] = "this package"

    tolerance: float = Field(
        0.05, gt=0, description="error of the final latents that reuse may make, of their deviation"
    )
    longest: int = Field(10, ge=1, description="the most steps from one computed step to the next")
    growth: float = Field(
        2.0, gt=1, description="the most that the distance between computed steps grows by at once"
    )
    calibration: str = Field(
        "",
        description="what hgc-video calibrate wrote, for the steps' sensitivity; none: by noise level",
    )

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> AdaptivePlan:
        """The plan of a run."""
        choices = tuple(
            self._choices(graph, i, num_inference_steps) for i in range(num_inference_steps)
        )
        weights = self._weights(num_inference_steps)

        def start() -> _Decider:
            return _Decider(self.tolerance, self.longest, self.growth, num_inference_steps, weights)

        return AdaptivePlan(
            self.spelling,
            add_lossless_to_choices(choices, graph),
            start,
            cheapest=self._cheapest([len(some) for some in choices]),
        )

    def _choices(self, graph: BlockGraph, i: int, num_inference_steps: int) -> tuple[StepPlan, ...]:
        compute = StepPlan(branches=graph.branches, label="key")
        if i < 2:
            return (compute.because("guard: one of the first 2 steps"),)
        if i == num_inference_steps - 1:
            return (compute.because("guard: the last step"),)
        forecast = StepPlan(
            frozenset({graph.output, *graph.residuals()}), branches=graph.branches,
            extrapolate=frozenset({graph.output}), coefficients=linear(1.0), label="forecast",
        )  # fmt: skip
        return compute, forecast

    def _cheapest(self, choices: list[int]) -> tuple[int, ...]:
        """The choices of a run whose forecasts are exact: distances grow as fast as they may."""
        keys, gap = {0, 1}, 1
        while max(keys) < len(choices):
            gap = max(1, int(min(self.longest, self.growth * gap)))
            keys.add(max(keys) + gap)
        return tuple(int(some > 1 and i not in keys) for i, some in enumerate(choices))

    def _weights(self, num_inference_steps: int) -> tuple[float, ...]:
        """Per step the sensitivity that was calibrated, for a run of so many steps; none without."""
        if not self.calibration:
            return ()
        measured = self._sensitivity
        count = len(measured)
        # One of fewer steps goes further, so that its error counts for more.
        times = count / num_inference_steps
        at = (min(count - 1, int((i + 0.5) * times)) for i in range(num_inference_steps))
        return tuple(times * sqrt(measured[n]) for n in at)

    @cached_property
    def _sensitivity(self) -> tuple[float, ...]:
        return load_calibration(Path(self.calibration)).sensitivity


@dataclass
class _Decider:
    """What one window of frames goes by. Errors are relative to the prediction; costs are errors of the final
    latents, as a share of their deviation.

    weights: per step what a relative error of 1 costs; none takes the noise levels, or where they are not
        known equal turns of all steps.
    keys: the last computed steps, oldest first. share: of the slope. hits, total: the least squares of it.
    error: of the forecast at the last key, and of its share now; reach: how far that forecast went, and the
        distance of the keys that it was made from.
    costs: of the forecasts since the last key for an error of 1 each, and how far they went.
    spent: what the forecasts of all intervals so far cost, each to the power of _ADDING.
    """

    tolerance: float
    longest: int
    growth: float
    num_steps: int
    weights: tuple[float, ...] = ()
    keys: list[int] = field(default_factory=list)
    share: float = 0.0
    hits: float = 0.0
    total: float = 0.0
    error: float = 0.0
    measured: int = -1  # the key that was measured last
    reach: tuple[int, int] = (1, 0)
    ahead: list[tuple[float, int]] = field(default_factory=list)
    amplitude: float = 0.0
    spent: float = 0.0

    def __call__(self, choices: int, signals: Signals) -> Decision:
        step = signals.step
        error = self._learn(signals) if self.keys and self.measured < self.keys[-1] else None
        if choices == 1:
            return self._compute(step, "", error)
        distance, gap = step - self.keys[-1], self.keys[-1] - self.keys[-2]
        cost = self._weight(step, signals)
        amplitude = self.amplitude + cost * self.error * self._times(distance, gap)
        allowed = self._allowed(distance)
        told = f"guard: error {self.error:.3g} at step {self.keys[-1]}, "
        if distance + 1 > min(self.longest, self.growth * gap):
            return self._compute(step, f"{told}{distance} steps since, and no more at once", error)
        if amplitude > allowed:
            return self._compute(step, f"{told}{amplitude:.3g} > {allowed:.3g} allowed", error)
        self.ahead.append((cost, distance))
        self.amplitude = amplitude
        slope = round(self.share * distance / gap, 6)
        reason = f"{told}{amplitude:.3g} <= {allowed:.3g} allowed, {self.share:.2g} of the slope"
        return Decision(1, reason, linear(slope), error)

    def _compute(self, step: int, reason: str, error: float | None) -> Decision:
        self.keys = [*self.keys[-2:], step]
        return Decision(0, reason, None, error)

    def _allowed(self, distance: int) -> float:
        """What forecasts up to so many steps after the last key may cost, the one computed after them too:
        their share, by steps, of what is left of the tolerance."""
        left = max(0.0, self.tolerance**_ADDING - self.spent)
        share = (distance + 1) / (self.num_steps - self.keys[-1])
        return float(_SAFETY * (left * share) ** (1 / _ADDING))

    def _weight(self, step: int, signals: Signals) -> float:
        if self.weights:
            return self.weights[step]
        known = signals.sensitivity()
        return pi / 2 / self.num_steps if known is None else known

    def _times(self, distance: int, gap: int) -> float:
        """How many times the measured error a forecast makes, by its order: what is held goes wrong as the
        distance grows, a line as its product with the distance to the key before."""
        reach, before = self.reach
        held = distance / reach
        if not before:
            return held
        line = distance * (distance + gap) / (reach * (reach + before))
        return (1 - self.share) * held + self.share * line

    def _learn(self, signals: Signals) -> float | None:
        """What the last key tells; the relative error of the forecast there, None at the first key."""
        products = signals.products()
        self.measured = self.keys[-1]
        if len(products) < 2 or len(self.keys) < 2:
            return None
        size = max(products[0][0], 1e-30)
        change = products[1][1] / size
        if len(products) < 3 or len(self.keys) < 3:
            self.error, self.reach = sqrt(max(0.0, change)), (self.keys[-1] - self.keys[-2], 0)
            return self.error
        before, last, key = self.keys
        self.reach = key - last, last - before
        ahead = self.reach[0] / self.reach[1]
        along, line = ahead * products[1][2] / size, ahead**2 * products[2][2] / size
        error = _error(change, along, line, self.share)
        self._settle(error)
        # Relative to the change, so that every key counts the same, however large its step was.
        self.hits = _FADING * self.hits + along / max(change, 1e-30)
        self.total = _FADING * self.total + line / max(change, 1e-30)
        self.share = min(1.0, max(0.0, self.hits / self.total)) if self.total > 0 else 0.0
        self.error = _error(change, along, line, self.share)
        return error

    def _settle(self, error: float) -> None:
        """What the forecasts before the last key cost, now that their error is known where they ended."""
        gap = self.reach[1]
        whole = sum(cost * error * self._times(at, gap) for cost, at in self.ahead)
        self.spent += whole**_ADDING
        self.ahead, self.amplitude = [], 0.0


def _error(change: float, along: float, line: float, share: float) -> float:
    """The relative error of a share of the line, of the mean products of change and line."""
    return sqrt(max(0.0, change - 2 * share * along + share**2 * line))
