"""What the methods share that skip whole steps by a plan: which steps are computed, and every other one's
output as a linear combination of those, the key steps'.

A forecast of a forecast is a combination of key steps too, so that every such rule is written as one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from math import floor
from typing import Literal

from pydantic import Field

from ..graph import BlockGraph
from ..schedule import Schedule, StepPlan
from .base import SchedulePolicy

Rule = Mapping[int, float]  # the coefficients of key steps, by step


class WholeSteps(SchedulePolicy):
    """Key steps are computed; of the others the prediction, or the features that the last convolution
    reads, are forecast, and neither UNet nor ControlNet runs."""

    of: Literal["prediction", "features"] = Field(
        "prediction",
        description="what is forecast: the prediction, or the features before the last convolution",
    )

    @abstractmethod
    def key_steps(self, num_inference_steps: int) -> list[int]:
        """The steps that are computed, step 0 among them."""

    @abstractmethod
    def rule(self, keys: Sequence[int], index: int, num_inference_steps: int) -> Rule:
        """What a step's output is made of, from the key steps before it (one at least), oldest first."""

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        keys = self.key_steps(num_inference_steps)
        key = StepPlan(
            branches=graph.branches, label="key", reason=f"{self.spelling}: a key step, computed"
        )
        steps = tuple(
            key if i in keys else self._forecast(graph, keys, i, num_inference_steps)
            for i in range(num_inference_steps)
        )
        return Schedule(self.spelling, steps, lossless=False)

    def _forecast(
        self, graph: BlockGraph, keys: list[int], index: int, num_inference_steps: int
    ) -> StepPlan:
        past = [key for key in keys if key < index]
        rule = self.rule(past, index, num_inference_steps)
        coefficients = newest_first(rule, past)
        name = graph.output if self.of == "prediction" else graph.layers[-2].name
        terms = " ".join(
            f"{value:+.3g} of {key}" for key, value in zip(past[::-1], coefficients, strict=False)
        )
        return StepPlan(
            frozenset({name, *graph.residuals()}), branches=graph.branches,
            extrapolate=frozenset({name}), coefficients=coefficients, label="forecast",
            reason=f"{self.spelling}: forecast from the key steps, {terms or f'+1 of {past[-1]}'}",
        )  # fmt: skip


def newest_first(rule: Rule, keys: Sequence[int]) -> tuple[float, ...]:
    """A rule as the coefficients of a step plan: for the newest key step first, none that is not read."""
    values = [round(rule.get(key, 0.0), 9) for key in reversed(keys)]
    while values and not values[-1]:
        values.pop()
    return () if values == [1.0] else tuple(values)


def total(*terms: tuple[float, Rule]) -> dict[int, float]:
    """The sum of rules, each times its weight."""
    summed: dict[int, float] = {}
    for weight, rule in terms:
        for key, value in rule.items():
            summed[key] = summed.get(key, 0.0) + weight * value
    return summed


def evenly(num_inference_steps: int, warm_up: int, interval: int) -> list[int]:
    """The first `warm_up` steps, and from the last of them on every `interval`-th."""
    return [*range(warm_up - 1), *range(warm_up - 1, num_inference_steps, interval)]


def growing(
    num_inference_steps: int, warm_up: int, window: int, flex: float, last: int | None = None
) -> list[int]:
    """The first `warm_up` steps, then one after every gap, which begins at `window` and grows by `flex` with
    each (Spectrum 2603.01623); from step `last` on all."""
    keys, gap, skipped = [], float(window), 0
    last = num_inference_steps if last is None else last
    for i in range(num_inference_steps):
        if warm_up <= i < last and (skipped + 1) % floor(gap):
            skipped += 1
            continue
        keys.append(i)
        skipped, gap = 0, gap + flex * (i >= warm_up)
    return keys


def lagrange(nodes: Iterable[tuple[int, float]], at: float) -> dict[int, float]:
    """The rule of the polynomial through the values at nodes, given as key step and abscissa."""
    points = list(nodes)
    rule = {}
    for key, x in points:
        rule[key] = 1.0
        for other, y in points:
            if other != key:
                rule[key] *= (at - y) / (x - y)
    return rule
