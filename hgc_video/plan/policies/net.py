"""A net under a fixed schedule: while measured forecast errors are beyond a bound, steps that it reuses are
computed.

A fixed schedule takes steps to resemble one another as they did where it was searched. Whether they do is
measured at every step that computes the prediction: how far the best line through the two before it is from
it. Where steps differ by fresh noise (ancestral samplers, LCM) no line is near. While the net holds nothing
back, the schedule is carried out as it is, to the bit. Windows of frames act together: where forecasts fail
in one of them, all are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from ..adaptive import AdaptivePlan, Decision, Signals
from ..calibration import load_products
from ..coefficients import Coefficients, carried
from ..graph import BlockGraph
from ..liveness import live, made
from ..schedule import Schedule, StepPlan
from .base import SchedulePolicy
from .lossless import once_per_run

NET = "net"  # the label of a step that was computed because of a measured error
_MARGIN = 2.0  # times the error that was calibrated


class Net(SchedulePolicy):
    """Under the policies that it is joined to: what they reuse is computed while forecasts fail."""

    spelling: ClassVar[str] = NET
    source: ClassVar[str] = "this package"

    bound: float = Field(
        0.3, gt=0, description="relative error of the forecast of the next step that is still good"
    )
    closed: bool = Field(
        False, description="whether everything is computed until forecasts are seen to be good"
    )
    calibration: str = Field(
        "", description="what hgc-video calibrate wrote: twice its errors is the bound"
    )

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """Alone: everything is computed, so that there is nothing to hold back."""
        step = StepPlan(branches=graph.branches, reason="net: nothing is reused")
        return Schedule(NET, (step,) * num_inference_steps, lossless=False)

    def under(self, schedule: Schedule, graph: BlockGraph) -> AdaptivePlan:
        """The schedule with the net under it."""
        full = [_computed(step, graph) for step in schedule.steps]
        pairs = [
            (one,) if one == step else (one, step)
            for one, step in zip(full, schedule.steps, strict=True)
        ]
        makers = _makers(schedule, graph)
        products = self._products if len(self._products) == len(schedule) else ()
        predicts = tuple(
            graph.output in live(graph, step, lossless=schedule.lossless).computed
            for step in schedule.steps
        )
        lines = tuple(step.coefficients for step in schedule.steps)

        def start() -> _Decider:
            return _Decider(self.bound, products, predicts, makers, lines, self.closed)

        return AdaptivePlan(
            f"{schedule.name}+{NET}", tuple(pairs), start, schedule.lossless,
            cheapest=tuple(len(pair) - 1 for pair in pairs), fixed=schedule, together=True,
        )  # fmt: skip

    @cached_property
    def _products(self) -> tuple[tuple[float, ...], ...]:
        return load_products(Path(self.calibration)) if self.calibration else ()


def _computed(step: StepPlan, graph: BlockGraph) -> StepPlan:
    """The step with nothing of what changes from step to step reused; branches that it drops stay dropped."""
    nothing: frozenset[str] = frozenset()
    one = replace(
        step, reuse=step.reuse & once_per_run(graph), deltas=nothing, extrapolate=nothing, coefficients=(),
        latent_progress=None, clean=(),
    )  # fmt: skip
    return one if one == step else replace(one, label=NET)


def _makers(schedule: Schedule, graph: BlockGraph) -> tuple[tuple[int, ...], ...]:
    """Per step the steps that made what it reads and extrapolates, the newest first; none where it does not
    extrapolate."""
    by_name: dict[str, list[int]] = {}
    found = []
    for index, step in enumerate(schedule.steps):
        alive = live(graph, step, lossless=schedule.lossless)
        read = sorted(step.extrapolate & (alive.held | alive.added))
        found.append(tuple(by_name.get(read[0], ())[: step.depth]) if read else ())
        for name in made(graph, step, alive, index):
            by_name.setdefault(name, []).insert(0, index)
    return tuple(found)


@dataclass
class _Decider:
    """What one window of frames goes by.

    products: mean products of predictions that were calibrated for a run of this length, or none. predicts:
    per step whether the schedule computes the prediction. makers, lines: per step what it reads was made at,
    and its coefficients. closed: whether what it reuses is computed. computed: steps at which it was. seen:
    steps that computed the prediction, the newest last.
    """

    bound: float
    products: tuple[tuple[float, ...], ...]
    predicts: tuple[bool, ...]
    makers: tuple[tuple[int, ...], ...]
    lines: tuple[Coefficients, ...]
    closed: bool
    computed: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    measured: int = -1
    told: str = "no error is measured yet"

    def __call__(self, choices: int, signals: Signals) -> Decision:
        step = signals.step
        error = self._measure(signals) if self.seen and self.measured < self.seen[-1] else None
        closed = signals.agreed(self.closed)
        if choices == 1 or closed:
            self.seen = [*self.seen[-2:], step] if choices > 1 or self.predicts[step] else self.seen
            if choices > 1:
                self.computed.append(step)
            told = self.told if self.closed else "as forecasts fail in another window"
            return Decision(0, f"net: computed, {told}" if choices > 1 else "", None, error)
        if self.predicts[step]:
            self.seen = [*self.seen[-2:], step]
        return Decision(1, "", self._line(step), error)

    def _measure(self, signals: Signals) -> float | None:
        """The relative error of the best line there is, at the last computed prediction; None without two
        before it."""
        rows, self.measured = signals.products(), self.seen[-1]
        if len(rows) < 3 or len(self.seen) < 3:
            return None
        error = best_line_error(rows)
        bound = self._bound()
        self.closed = error > bound
        sign = ">" if self.closed else "<="
        self.told = f"error {error:.3g} {sign} {bound:.3g} at step {self.measured}"
        return error

    def _bound(self) -> float:
        """What a forecast as far as the last one may be wrong by."""
        before, last, key = self.seen
        if self.products:
            return _MARGIN * best_line_error(successive(self.products, (key, last, before)))
        # An error grows as the distance, and as its square where it is extrapolated over.
        return self.bound * max(1.0, key - last)

    def _line(self, step: int) -> Coefficients | None:
        """The coefficients for what is kept where more was computed than was planned; None as planned."""
        planned = self.makers[step]
        since = [at for at in reversed(self.computed) if planned and at > planned[-1]]
        if not since:
            return None
        kept = sorted({*planned, *since}, reverse=True)[: len(planned)]
        return carried(self.lines[step], (planned, step), (kept, step))


def best_line_error(rows: Sequence[Sequence[float]]) -> float:
    """How far F1 is from the nearest F2 + c (F2 - F3) with c of at least 0, relative to F1; of the mean
    products of F1, F1 - F2 and F2 - F3."""
    size, change, along, line = rows[0][0], rows[1][1], rows[1][2], rows[2][2]
    missed = change - max(0.0, along) ** 2 / line if line > 0 else change
    return sqrt(max(0.0, missed) / max(size, 1e-30))


def successive(products: Sequence[Sequence[float]], steps: Sequence[int]) -> list[list[float]]:
    """The mean products of the newest value and the changes between successive ones, from those of all."""
    newest, *_ = steps
    terms = [{newest: 1.0}, *({a: 1.0, b: -1.0} for a, b in pairwise(steps))]
    return [
        [
            sum(u * v * products[i][j] for i, u in one.items() for j, v in two.items())
            for two in terms
        ]
        for one in terms
    ]
