"""The best key steps under a budget, exactly: dynamic programming over pairs of key steps.

The price of a segment is the measured error of the predictor that will really run in it, never that of
single steps: what is reused between two keys depends on the key before them as well (DPCache
2602.22654, with the pair of last keys as the state, so that it is exact). Where more than two values are
combined, what a segment costs depends on keys before the pair: those of the way there that is kept, so
that it is then exact but for ways that were given up.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, sqrt

from ..calibration import Calibration
from ..cost import cost, full_cost
from ..graph import BlockGraph
from ..policies.searched import CodedSchedule
from ..schedule import Schedule
from ..step_codes import FULL, SKIP
from .fit_steps import StepFitter

_BUCKETS = 240  # into which the budget is divided
_MOST = 1.2  # what a slope may be multiplied with
_REACH = 12  # steps of a segment of fitted coefficients

# Per bucket of cost the least error, and the way there: keys, each with the code and the extrapolation of the
# steps before it.
_Front = dict[int, tuple[float, tuple[tuple[int, str, float], ...]]]


@dataclass(frozen=True)
class Prices:
    """MACs of a step of each kind as a share of an uncached one, before and behind the gate."""

    before: dict[str, float]
    gated: dict[str, float]

    @classmethod
    def of(cls, graph: BlockGraph, actions: str) -> Prices:
        """The prices on a graph; the first steps of a run, which encode text and hint, are not asked."""
        run = FULL * 3 + "".join(FULL + action for action in actions) + FULL
        full = full_cost(graph, 1).total
        found = []
        for gate in (len(run), 1):
            spent = cost(graph, CodedSchedule(run, gate, (0.0,) * len(run))(graph, len(run))).macs
            shares = [sum(step.values()) / full for step in spent]
            found.append({a: shares[4 + 2 * i] for i, a in enumerate(actions)} | {FULL: shares[3]})
        return cls(*found)


@dataclass(frozen=True)
class _Edge:
    error: float
    cost: float
    action: str
    extrapolation: float


def search_keys(
    measured: Calibration,
    graph: BlockGraph,
    budget: float,
    *,
    gate: int,
    coherent: bool = False,
    letters: str = "FTH12",
    fit: StepFitter | None = None,
) -> CodedSchedule | None:
    """The plan of least predicted error whose cost is at most `budget` (a share of the uncached run)
    for this gate; None where there is none.

    `coherent` adds up errors as if they pointed the same way, else as if they were independent. With `fit`
    what is reused is combined by fitted coefficients.
    """
    found = _Search(measured, graph, budget, gate, coherent, letters, fit).best()
    return None if found is None else found[1]


def least_error(
    measured: Calibration, graph: BlockGraph, budget: float, *, gate: int, letters: str
) -> float | None:
    """The predicted error of the plan of `search_keys`, as a share of the final latents' variance; None where
    there is no plan."""
    found = _Search(measured, graph, budget, gate, False, letters).best()
    return None if found is None else found[0]


class _Search:
    def __init__(
        self, measured: Calibration, graph: BlockGraph, budget: float, gate: int, coherent: bool,
        letters: str, fit: StepFitter | None = None,
    ) -> None:  # fmt: skip
        self.measured, self.gate, self.coherent, self.fit = measured, gate, coherent, fit
        self.steps = measured.setting.num_inference_steps
        depths = {
            (str(depth) if depth else SKIP): table for depth, table in measured.reused.items()
        }
        self.depths = {letter: table for letter, table in depths.items() if letter in letters}
        self.prices = Prices.of(graph, "".join(self.depths))
        self.bucket = budget * self.steps / _BUCKETS

    def best(self) -> tuple[float, CodedSchedule] | None:
        """The least predicted error, and the plan that has it."""
        # Of each pair of last keys: per bucket of cost the least error, and the way there.
        start: dict[tuple[int, int], _Front] = {
            (-1, 0): {self._spent(self._key(0)): (self._dropped(0), ((0, "", 0.0),))}
        }
        fronts: dict[tuple[int, int], _Front] = start
        end: _Front = {}
        for newer in range(self.steps):
            for older in range(-1, newer):
                front = fronts.pop((older, newer), None)
                if front is None:
                    continue
                for past, part in self._by_past(front).items():
                    for key, edge in self._edges(past, newer):
                        target = end if key == self.steps else fronts.setdefault((newer, key), {})
                        self._extend(part, key, edge, target)
        if not end:
            return None
        error, way = min(end.values(), key=lambda found: found[0])
        return error, self._plan(way)

    def _by_past(self, front: _Front) -> dict[tuple[int, ...], _Front]:
        """The ways to a pair of keys by the keys that a segment behind it is made of, but for the newest."""
        count = self.fit.terms if self.fit else 2
        parts: dict[tuple[int, ...], _Front] = {}
        for spent, (error, way) in front.items():
            past = tuple(key for key, _, _ in way[-count:-1])
            parts.setdefault(past, {})[spent] = error, way
        return parts

    def _extend(
        self, front: _Front, key: int, edge: _Edge, target: _Front
    ) -> None:  # fmt: skip
        for spent, (error, way) in front.items():
            now = spent + self._spent(edge.cost)
            total = error + edge.error
            if now <= _BUCKETS and total < target.get(now, (inf,))[0]:
                target[now] = (total, (*way, (key, edge.action, edge.extrapolation)))

    def _spent(self, share: float) -> int:
        return -int(-share // self.bucket)  # rounded up: a plan never costs more than it is said to

    def _edges(self, past: tuple[int, ...], newer: int) -> Iterator[tuple[int, _Edge]]:
        older = past[-1] if past else -1
        for key in range(newer + 1, self.steps + 1):
            inner = range(newer + 1, key)
            ends = self._key(key) if key < self.steps else 0.0
            dropped = self._dropped(key) if key < self.steps else 0.0
            if not inner:
                yield key, _Edge(dropped, ends, "", 0.0)
                continue
            for action, table in self.depths.items():
                rows = [table.get((older, newer, step)) for step in inner]
                measured = [row for row in rows if row is not None]
                if len(measured) < len(rows) and not self._reaches(action, inner):
                    continue
                error, extrapolation = self._error(inner[: len(measured)], measured)
                if self.fit and self.fit.covers(action):
                    error = self._fitted(self.fit, action, (*past, newer), inner, extrapolation)
                price = sum(self._price(action, step) for step in inner)
                dropping = sum(self._dropped(step) for step in inner)
                yield key, _Edge(error + dropping + dropped, price + ends, action, extrapolation)

    def _error(self, inner: range, rows: list[tuple[float, float, float]]) -> tuple[float, float]:
        """The least error of a segment and the extrapolation that gives it: least squares, clipped."""
        sensitivity = [self.measured.sensitivity[step] for step in inner]
        a, b, q = (
            sum(g * row[k] for g, row in zip(sensitivity, rows, strict=True)) for k in range(3)
        )
        extrapolation = min(max(-b / q, 0.0), _MOST) if q > 0 else 0.0
        error = max(a + 2 * b * extrapolation + q * extrapolation**2, 0.0)
        return (sqrt(error * len(inner)) if self.coherent else error), extrapolation

    def _reaches(self, action: str, inner: range) -> bool:
        """Whether a segment is priced by a fit that was not measured as one of two keys."""
        return self.fit is not None and self.fit.covers(action) and len(inner) <= _REACH

    def _fitted(
        self,
        fit: StepFitter,
        action: str,
        past: tuple[int, ...],
        inner: range,
        extrapolation: float,
    ) -> float:
        """The error of a segment by fitted coefficients, whose ridge is towards its slope, in quarters."""
        slope = round(4 * extrapolation) / 4
        error = sum(
            self.measured.sensitivity[step] * fit.of(action, past, step, slope).error
            for step in inner
        )
        return sqrt(error * len(inner)) if self.coherent else error

    def _dropped(self, step: int) -> float:
        if step < self.gate:
            return 0.0
        error = self.measured.sensitivity[step] * self.measured.cfg_drop_error[step]
        return sqrt(error) if self.coherent else error

    def _key(self, step: int) -> float:
        return self._price(FULL, step)

    def _price(self, action: str, step: int) -> float:
        return (self.prices.gated if step >= self.gate else self.prices.before)[action]

    def _plan(self, way: tuple[tuple[int, str, float], ...]) -> CodedSchedule:
        actions, extrapolation = [""] * self.steps, [0.0] * self.steps
        for (before, _, _), (key, action, share) in itertools.pairwise(way):
            for step in range(before + 1, key):
                actions[step], extrapolation[step] = action, round(share, 3)
        for key, _, _ in way:
            if key < self.steps:
                actions[key] = FULL
        plan = CodedSchedule("".join(actions), self.gate, tuple(extrapolation))
        return self.fit(plan) if self.fit else plan


def share(graph: BlockGraph, schedule: Schedule) -> float:
    """The MACs of a schedule as a share of an uncached run of the same length."""
    return cost(graph, schedule).total / full_cost(graph, len(schedule)).total
