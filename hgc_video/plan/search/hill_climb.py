"""Hill-climbing on the step codes of a schedule: repair to the budget, and the climb itself.

Pure: what a plan's error is, the caller says. The same seed gives the same climb.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...errors import PlanError
from ..policies.searched import CodedSchedule
from ..step_codes import FULL, NO_CONTROLNET, SKIP, is_key
from .fit_steps import StepFitter
from .moves import moves, partial, put

Price = Callable[[CodedSchedule], float]
Objective = Callable[[list[CodedSchedule]], list[float]]  # one error a plan, the smaller the better


@dataclass(frozen=True)
class Space:
    """What a search may use: letters, slopes, a gate; whether slopes are measured online. With F and H alone
    it searches the timesteps of a solver: held noise takes DDIM's larger step, extrapolated noise that of
    a linear multistep method; where the model predicts velocity, both hold but for a turn by the angle
    between the steps.

    Raises:
        PlanError: a letter that is none, or no F, which the first step is.
    """

    letters: str = "FTH12"
    damped: bool = True
    gated: bool = True
    online: bool = False

    def __post_init__(self) -> None:
        allowed = FULL, NO_CONTROLNET, SKIP, "1", "2"
        if FULL not in self.letters or not set(self.letters) <= set(allowed):
            raise PlanError(
                f'letters="{self.letters}" is not possible; give F, which the first step is, and of '
                f"{', '.join(allowed[1:])} those that others may be"
            )

    def clipped(self, plan: CodedSchedule) -> CodedSchedule:
        """The plan without the slopes and the gate that are not allowed, online where that is asked."""
        count, free = len(plan.actions), self.damped and not self.online
        return replace(
            plan, extrapolation=plan.extrapolation if self.damped else (0.0,) * count,
            gate=plan.gate if self.gated else count, online=self.online,
            coefficients=plan.coefficients if free else (),
        )  # fmt: skip

    def holds(self, plan: CodedSchedule) -> bool:
        """Whether a plan has no other letters."""
        return set(plan.actions) <= set(self.letters)

    @property
    def partial(self) -> str:
        """The letter of a step that is no key step."""
        return "1" if "1" in self.letters else SKIP


@dataclass(frozen=True)
class Step:
    """What the climb has come to: how many plans were judged, the best and its error."""

    judged: int
    plan: CodedSchedule
    error: float


def climb(
    seeds: Sequence[CodedSchedule], price: Price, budget: float, objective: Objective,
    *, judgements: int, at_once: int = 1, seed: int = 0, space: Space | None = None,
    fit: StepFitter | None = None,
) -> Iterator[Step]:  # fmt: skip
    """From the best of `seeds`, moves that lower the error and cost at most `budget`. With `fit` the
    coefficients of plans that have some follow the moves, and segments change between them and slopes."""
    draw, space = random.Random(seed), space or Space()
    started = [_settled(plan, plan, price, budget, space, fit) for plan in seeds]
    started = [plan for plan in started if space.holds(plan)]
    fitting = list({_word(p): p for p in started if price(p) <= budget}.values())
    if not fitting:
        return
    errors = objective(fitting)
    best_error, _, best = min(
        (e, i, p) for i, (e, p) in enumerate(zip(errors, fitting, strict=True))
    )
    seen = {_word(plan) for plan in fitting}
    judged = len(fitting)
    yield Step(judged, best, best_error)
    while judged < judgements:
        count = min(at_once, judgements - judged)
        tried = _neighbours(best, price, budget, draw, seen, space, count, fit)
        if not tried:
            return
        judged += len(tried)
        for plan, error in zip(tried, objective(tried), strict=True):
            if error < best_error:
                best, best_error = plan, error
        yield Step(judged, best, best_error)


def _settled(
    plan: CodedSchedule, before: CodedSchedule, price: Price, budget: float, space: Space,
    fit: StepFitter | None,
) -> CodedSchedule:  # fmt: skip
    """The plan within space and budget, with coefficients for the steps that it then has."""
    made = repaired(space.clipped(plan), price, budget, space)
    if fit is None or space.online:
        return replace(made, coefficients=())  # they would be those of other kept values
    return fit(made, before)


def _word(plan: CodedSchedule) -> tuple[object, ...]:
    used = tuple(d if plan.slope(i) else 0.0 for i, d in enumerate(plan.extrapolation))
    return plan.actions, plan.gate, used, plan.coefficients


def _neighbours(
    plan: CodedSchedule, price: Price, budget: float, draw: random.Random, seen: set[Any], space: Space,
    count: int, fit: StepFitter | None,
) -> list[CodedSchedule]:  # fmt: skip
    """Up to `count` plans not seen before, each one or two moves away."""
    found: list[CodedSchedule] = []
    drawn, weights = moves(fit)
    for _ in range(400):
        moved = plan
        for _ in range(draw.choice((1, 1, 2))):
            moved = draw.choices(drawn, weights)[0](moved, draw)
        moved = _settled(moved, plan, price, budget, space, fit)
        if space.holds(moved) and _word(moved) not in seen and price(moved) <= budget:
            seen.add(_word(moved))
            found.append(moved)
        if len(found) == count:
            break
    return found


def repaired(plan: CodedSchedule, price: Price, budget: float, space: Space) -> CodedSchedule:
    """The plan brought under the budget by holding more, and then up to it by computing more: a key in
    the middle of the longest stretch without one."""
    while price(plan) > budget:
        keys = [i for i, a in enumerate(plan.actions) if is_key(a) and i > 0]
        if len(keys) < 2:
            return plan
        gaps = {key: _gap_without(keys, key, len(plan.actions)) for key in keys}
        dearest = min(gaps, key=lambda key: (gaps[key], -key))
        plan = put(plan, dearest, partial(plan, space.partial))
    while True:
        longer = _with_key_in_longest_gap(plan)
        if longer is None or price(longer) > budget:
            return plan
        plan = longer


def _gap_without(keys: list[int], key: int, count: int) -> int:
    at = keys.index(key)
    before = keys[at - 1] if at else 0
    after = keys[at + 1] if at + 1 < len(keys) else count
    return after - before


def _with_key_in_longest_gap(plan: CodedSchedule) -> CodedSchedule | None:
    keys = [i for i, a in enumerate(plan.actions) if is_key(a)] + [len(plan.actions)]
    gap, start = max(
        ((after - before, -before) for before, after in itertools.pairwise(keys)),
        default=(1, 0),
    )
    return None if gap < 2 else put(plan, -start + gap // 2, FULL)
