"""Error-controlled reuse: whole steps are forecast while the error that this makes stays within a tolerance,
as an embedded Runge-Kutta pair chooses its step size.

What a forecast is made of, and what it is wrong by, is known from predictions that were measured once along
the noise levels (`prediction_path`). At every computed step the forecast that would have been used there is
compared with the fresh prediction: what it misses beyond that is taken for noise that the sampler adds, so
that under an ancestral sampler forecasts extrapolate less and go less far, and where steps do not resemble
one another every step is computed. The tolerance bounds the estimated error of the final latents, as a share
of their standard deviation; every interval between computed steps may make the same part of it, with which
the fewest steps are computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, pi, sqrt
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from ..adaptive import OF_PLAN, AdaptivePlan, Decision, Signals
from ..calibration import load_calibration
from ..graph import BlockGraph
from ..prediction_path import PredictionPath, RunPath, equal_turns, path_of, shipped_paths
from ..quality_map import map_name, shipped_map
from ..schedule import StepPlan
from .base import Policy
from .lossless import add_lossless_to_choices

_TERMS = 3  # computed steps that a forecast is made of
# Intervals of the measured path, from pure noise on, between which no curve tells what predictions do.
_UNKNOWN = 2
_FADING = 0.5  # of what earlier computed steps tell of the noise, at every further one
_USUAL = "v_prediction"  # where it is not known what a model predicts
_OTHER_NOISE = 0.25  # of what it was: from there on it is another
_HALVINGS = 10  # of the span in which the allowance of an interval is searched


class Guard(Policy):
    """Whole steps are forecast from the last three computed ones, as far as measured errors allow."""

    spelling: ClassVar[str] = "guard"
    source: ClassVar[str] = "this package"

    tolerance: float = Field(
        0.05, gt=0, description="error of the final latents that reuse may make, of their deviation"
    )
    psnr_db: float = Field(
        0.0, ge=0, description="PSNR to the uncached clip to aim at; 0: by the tolerance"
    )
    noisy: bool = Field(
        False, description="whether the sampler adds noise at its steps; a run knows by itself"
    )
    longest: int = Field(10, ge=1, description="the most steps from one computed step to the next")
    growth: float = Field(
        2.0, gt=1, description="the most that the distance between computed steps grows by at once"
    )
    calibration: str = Field(
        "",
        description="what hgc-video calibrate wrote of this model; none: the embedded one's, by noise level",
    )

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> AdaptivePlan:
        """The plan of a run."""
        first = self._unknown(num_inference_steps)
        if self.noisy:  # forecasts of two steps know nothing of the noise
            first = max(3, first)
        choices = tuple(self._choices(graph, i, first) for i in range(num_inference_steps))
        limits = self._limits(num_inference_steps)

        def start() -> Decider:
            return Decider(limits, self._paths)

        return AdaptivePlan(
            self.spelling,
            add_lossless_to_choices(choices, graph),
            start,
            cheapest=self._cheapest([len(some) for some in choices]),
        )

    def _unknown(self, num_inference_steps: int) -> int:
        """How many steps lie before the third measured noise level; they are computed."""
        measured = len(self._paths[_USUAL].angles)
        return max(2, ceil(_UNKNOWN * num_inference_steps / measured))

    def _choices(self, graph: BlockGraph, i: int, first: int) -> tuple[StepPlan, ...]:
        compute = StepPlan(branches=graph.branches, label="key")
        if i < first:
            return (compute.because(f"guard: one of the first {first} steps, {self._aim}"),)
        read = (1.0, *[0.0] * (min(i, _TERMS) - 1))  # as many values as it may read
        forecast = StepPlan(
            frozenset({graph.output, *graph.residuals()}), branches=graph.branches,
            extrapolate=frozenset({graph.output}), coefficients=read, label="forecast",
        )  # fmt: skip
        return compute, forecast

    @property
    def _bound(self) -> float:
        """The tolerance, given or for the PSNR that is asked for."""
        if not self.psnr_db:
            return self.tolerance
        return shipped_map(self.noisy).tolerance_of(self.psnr_db)

    @property
    def _aim(self) -> str:
        if not self.psnr_db:
            return f"tolerance {self.tolerance:g}"
        kind = map_name(self.noisy)
        return (
            f"{self.psnr_db:g} dB asked, tolerance {self._bound:g} by the map for {kind} samplers"
        )

    def _cheapest(self, choices: list[int]) -> tuple[int, ...]:
        """The choices of a run whose forecasts are exact: distances grow as fast as they may."""
        keys, gap = {i for i, some in enumerate(choices) if some == 1}, 1
        while max(keys) < len(choices):
            gap = max(1, int(min(self.longest, self.growth * gap)))
            keys.add(max(keys) + gap)
        return tuple(int(some > 1 and i not in keys) for i, some in enumerate(choices))

    @cached_property
    def _paths(self) -> Mapping[str, PredictionPath]:
        """By type of prediction; of a calibration one, whatever is predicted."""
        if not self.calibration:
            return shipped_paths()
        return {_USUAL: path_of(load_calibration(Path(self.calibration)))}

    def _limits(self, num_inference_steps: int) -> Limits:
        limits = Limits(self._bound, 0.0, self.longest, self.growth, num_inference_steps)
        path = RunPath(self._paths[_USUAL])
        for angle in equal_turns(num_inference_steps):
            path.add(angle)
        return limits.solved(path, list(range(self._unknown(num_inference_steps))), {})


@dataclass(frozen=True)
class Limits:
    """What reuse may cost, errors of the final latents as a share of their deviation: all of it, and that of
    an interval between computed steps. How long that may be, and how many times as long as the one before;
    and the steps of the run."""

    tolerance: float
    allowance: float
    longest: int
    growth: float
    num_steps: int

    def solved(self, path: RunPath, keys: Sequence[int], before: Sum) -> Limits:
        """With the allowance by which all together cost the tolerance, if predictions follow the path after
        these keys."""
        low, high = 0.0, self.tolerance
        for _ in range(_HALVINGS):
            middle = (low + high) / 2 if low else high / 4
            cost = foreseen(replace(self, allowance=middle), path, keys, before)
            low, high = (middle, high) if cost <= self.tolerance else (low, middle)
        return replace(self, allowance=low or high)

    def too_far(self, keys: Sequence[int], step: int) -> bool:
        """Whether the interval ends here, whatever it costs."""
        distance, gap = step - keys[-1], keys[-1] - keys[-2]
        return distance + 1 > min(self.longest, self.growth * gap)

    def allowed(self, step: int, cost: Cost) -> bool:
        """Whether a step may be forecast: within the tolerance, by the interval's allowance or by what the
        run so far has left of its share of the tolerance."""
        share = self.tolerance * (step + 1) / self.num_steps
        return cost.whole <= self.tolerance and (
            cost.interval <= self.allowance or cost.whole <= share
        )


@dataclass(frozen=True)
class Cost:
    """What the forecasts of an interval, and all so far, cost."""

    interval: float
    whole: float


Sum = Mapping[int, float]  # of predictions: steps and factors


def cost_of(path: RunPath, ahead: Sum, before: Sum) -> Cost:
    """The cost of the errors of an interval, with those of the intervals before."""
    return Cost(sqrt(path.squared(ahead)), sqrt(path.squared(added(before, ahead))))


def missed(keys: Sequence[int], step: int, coefficients: Sequence[float]) -> dict[int, float]:
    """What a forecast misses, as a sum of predictions: the step's less the combination of the keys'."""
    return {step: 1.0} | {key: -a for key, a in zip(reversed(keys), coefficients, strict=False)}


def added(one: Sum, other: Sum, times: float = 1.0) -> dict[int, float]:
    """One sum and so many times another."""
    return {at: one.get(at, 0.0) + times * other.get(at, 0.0) for at in {*one, *other}}


def with_forecast(
    path: RunPath, keys: Sequence[int], step: int, ahead: Sum, *, last: bool
) -> tuple[tuple[float, ...], dict[int, float]]:
    """The coefficients of a step's forecast, and the errors of the interval with what it makes of the final
    latents."""
    coefficients = path.coefficients(keys, step, _TERMS)
    return coefficients, added(ahead, missed(keys, step, coefficients), path.price(step, last))


def foreseen(limits: Limits, path: RunPath, keys: Sequence[int], before: Sum) -> float:
    """What all forecasts of a run together cost after these keys and what was missed before the last, if
    predictions follow the path and intervals take their allowance."""
    keys, ahead, before = list(keys), dict[int, float](), dict(before)
    for step in range(keys[-1] + 1, limits.num_steps):
        last = step == limits.num_steps - 1
        _, longer = with_forecast(path, keys, step, ahead, last=last)
        if not limits.too_far(keys, step) and sqrt(path.squared(longer)) <= limits.allowance:
            ahead = longer
            continue
        keys.append(step)
        before, ahead = added(before, ahead), {}
    return sqrt(path.squared(added(before, ahead)))


@dataclass
class Decider:
    """What one window of frames goes by. Steps are counted as the window has them.

    angles: the noise angle of every step so far. steps: which step of the run each was. keys: those that were
    computed last, oldest first. ahead: what the forecasts since then miss, a sum of predictions, each times
    its price; before: and those before the last key. allowance: of an interval, for as much noise as
    `expected`. measured: the key that was measured last. error: of its forecast, of its size. excess: what
    forecasts missed beyond the path; walked: what they would by noise of mean square 1.
    """

    limits: Limits = field(metadata=OF_PLAN)
    paths: Mapping[str, PredictionPath] = field(metadata=OF_PLAN)
    path: RunPath | None = field(default=None, metadata=OF_PLAN)
    angles: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    ahead: list[tuple[int, float]] = field(default_factory=list)
    before: list[tuple[int, float]] = field(default_factory=list)
    allowance: float | None = None
    expected: float = 0.0
    measured: int = -1
    error: float = 0.0
    excess: float = 0.0
    walked: float = 0.0

    def __call__(self, choices: int, signals: Signals) -> Decision:
        path = self._path(signals)
        error = None
        if self.keys and self.measured < self.keys[-1]:
            error = self._learn(signals, path)
        here = len(self.angles) - 1
        if choices == 1 or len(self.keys) < 2:
            return self._compute(here, "", error)
        told = f"guard: error {self.error:.3g} at step {self.steps[self.keys[-1]]}, "
        if self.limits.too_far(self.keys, here):
            since = here - self.keys[-1]
            return self._compute(here, f"{told}{since} steps since, and no more at once", error)
        coefficients, ahead = with_forecast(
            path, self.keys, here, dict(self.ahead), last=here == self.limits.num_steps - 1
        )
        cost, limits = cost_of(path, ahead, dict(self.before)), self._limits(path)
        told += f"{cost.interval:.3g} of {limits.allowance:.3g} and in all {cost.whole:.3g} of "
        told += f"{limits.tolerance:.3g} allowed"
        if not limits.allowed(here, cost):
            return self._compute(here, told, error)
        self.ahead = list(ahead.items())
        return Decision(1, told, tuple(round(value, 6) for value in coefficients), error)

    def _compute(self, here: int, reason: str, error: float | None) -> Decision:
        self.keys = [*self.keys[-_TERMS:], here]
        self.before, self.ahead = list(added(dict(self.before), dict(self.ahead)).items()), []
        return Decision(0, reason, None, error)

    def _limits(self, path: RunPath) -> Limits:
        """With the allowance for the noise that there is."""
        if self.allowance is None:
            self.allowance = self.limits.allowance
        most = max(path.noise, self.expected)
        if most > 0 and abs(path.noise - self.expected) > _OTHER_NOISE * most:
            left = RunPath(path.path, path.noise)
            steps, here = self.limits.num_steps, len(self.angles)
            ahead = (
                self.angles[-1] * (steps - at - 1) / (steps - here) for at in range(here, steps)
            )
            for angle in [*self.angles, *ahead]:
                left.add(angle)
            self.expected = path.noise
            self.allowance = self.limits.solved(left, self.keys, dict(self.before)).allowance
        return replace(self.limits, allowance=self.allowance)

    def _path(self, signals: Signals) -> RunPath:
        """The path up to this step."""
        angle = signals.noise_angle()
        steps = self.limits.num_steps
        self.angles.append(pi / 2 * (1 - signals.step / steps) if angle is None else angle)
        self.steps.append(signals.step)
        if self.path is None:
            known = self.paths.get(signals.prediction_type(), self.paths[_USUAL])
            self.path = RunPath(known, max(0.0, self.excess / self.walked) if self.walked else 0.0)
        for at in self.angles[len(self.path.angles) :]:
            self.path.add(at)
        return self.path

    def _learn(self, signals: Signals, path: RunPath) -> float | None:
        """What the last key tells; the error of its forecast, relative to its size, None at the first."""
        *before, key = self.keys
        self.measured = key
        products = signals.products()
        if not before or len(products) <= len(before):
            return None
        combination = missed(before, key, path.coefficients(before, key, _TERMS))
        size = path.smooth({key: 1.0})
        missing = _mean_square(products, [combination[at] for at in reversed(self.keys)])
        told = missing / max(products[0][0], 1e-30)
        self.error = sqrt(told)
        if len(before) > 1:  # what is held says too little
            self.excess = _FADING * self.excess + told * size - path.smooth(combination)
            self.walked = _FADING * self.walked + path.walked(combination)
            path.noise = max(0.0, self.excess / self.walked)
        return self.error


def _mean_square(products: Sequence[Sequence[float]], factors: Sequence[float]) -> float:
    """Of a sum of predictions, the newest first, of the mean products of the newest and the changes between
    successive ones."""
    rest = [sum(factors)] + [-sum(factors[at:]) for at in range(1, len(factors))]
    whole = sum(a * b * products[i][j] for i, a in enumerate(rest) for j, b in enumerate(rest))
    return max(0.0, whole)
