"""Hill-climbing on the step codes of a schedule: moves, repair to the budget, and the climb itself.

Pure: what a plan's error is, the caller says. The same seed gives the same climb (moves and polish as
BudCache, 2606.13496: keys are relocated, mostly by little).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..policies.searched import CodedSchedule
from ..step_codes import FULL, NO_CONTROLNET, SKIP

Price = Callable[[CodedSchedule], float]
Objective = Callable[[list[CodedSchedule]], list[float]]  # one error a plan, the smaller the better


@dataclass(frozen=True)
class Space:
    """What a search may use: letters, slopes, a gate; whether slopes are measured online. With F and H alone
    it searches the timesteps of a solver: held noise takes DDIM's larger step, extrapolated noise that of
    a linear multistep method; where the model predicts velocity, both hold but for a turn by the angle
    between the steps."""

    letters: str = "FTH12"
    damped: bool = True
    gated: bool = True
    online: bool = False

    def clipped(self, plan: CodedSchedule) -> CodedSchedule:
        """The plan without the slopes and the gate that are not allowed, online where that is asked."""
        count = len(plan.actions)
        return replace(
            plan, extrapolation=plan.extrapolation if self.damped else (0.0,) * count,
            gate=plan.gate if self.gated else count, online=self.online,
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
) -> Iterator[Step]:  # fmt: skip
    """From the best of `seeds`, moves that lower the error and cost at most `budget`."""
    draw, space = random.Random(seed), space or Space()
    started = [repaired(space.clipped(plan), price, budget, space) for plan in seeds]
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
        tried = _neighbours(best, price, budget, draw, seen, space, count)
        if not tried:
            return
        judged += len(tried)
        for plan, error in zip(tried, objective(tried), strict=True):
            if error < best_error:
                best, best_error = plan, error
        yield Step(judged, best, best_error)


def _word(plan: CodedSchedule) -> tuple[str, int, tuple[float, ...]]:
    used = tuple(d if plan.slope(i) else 0.0 for i, d in enumerate(plan.extrapolation))
    return plan.actions, plan.gate, used


def _neighbours(
    plan: CodedSchedule, price: Price, budget: float, draw: random.Random, seen: set[Any], space: Space,
    count: int,
) -> list[CodedSchedule]:  # fmt: skip
    """Up to `count` plans not seen before, each one or two moves away."""
    found: list[CodedSchedule] = []
    for _ in range(400):
        moved = plan
        for _ in range(draw.choice((1, 1, 2))):
            moved = draw.choices(_MOVES, _WEIGHTS)[0](moved, draw)
        moved = repaired(space.clipped(moved), price, budget, space)
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
        keys = [i for i, a in enumerate(plan.actions) if a in (FULL, NO_CONTROLNET) and i > 0]
        if len(keys) < 2:
            return plan
        gaps = {key: _gap_without(keys, key, len(plan.actions)) for key in keys}
        dearest = min(gaps, key=lambda key: (gaps[key], -key))
        plan = _put(plan, dearest, _partial(plan, space.partial))
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
    keys = [i for i, a in enumerate(plan.actions) if a in (FULL, NO_CONTROLNET)] + [
        len(plan.actions)
    ]
    gap, start = max(
        ((after - before, -before) for before, after in itertools.pairwise(keys)),
        default=(1, 0),
    )
    return None if gap < 2 else _put(plan, -start + gap // 2, FULL)


def _partial(plan: CodedSchedule, otherwise: str = "1") -> str:
    """The partial step that the plan uses most."""
    inner = [a for a in plan.actions if a not in (FULL, NO_CONTROLNET, SKIP)]
    return max(sorted(set(inner)), key=inner.count) if inner else otherwise


def _put(plan: CodedSchedule, at: int, action: str) -> CodedSchedule:
    return replace(plan, actions=plan.actions[:at] + action + plan.actions[at + 1 :])


def _relocate(plan: CodedSchedule, draw: random.Random) -> CodedSchedule:
    """A key step changes places, mostly by little."""
    keys = [i for i, a in enumerate(plan.actions) if a in (FULL, NO_CONTROLNET) and i > 0]
    if not keys:
        return plan
    key = draw.choice(keys)
    near = [i for i in range(key - 3, key + 4) if 0 < i < len(plan.actions)]
    places = near if draw.random() < 0.8 else range(1, len(plan.actions))
    free = [i for i in places if plan.actions[i] not in (FULL, NO_CONTROLNET)]
    if not free:
        return plan
    target = draw.choice(free)
    action = plan.actions[key]
    return _put(_put(plan, key, plan.actions[target]), target, action)


def _move_gate(plan: CodedSchedule, draw: random.Random) -> CodedSchedule:
    """The gate comes a little earlier or later."""
    gate = min(plan.gate, len(plan.actions)) + draw.choice((-3, -2, -1, 1, 2, 3))
    return replace(plan, gate=max(2, min(gate, len(plan.actions))))


def _damp(plan: CodedSchedule, draw: random.Random) -> CodedSchedule:
    """One segment, or everything, is extrapolated by more or less."""
    by = draw.choice((-0.3, -0.15, 0.15, 0.3))
    whole = draw.random() < 0.3
    key = draw.randrange(len(plan.actions))
    inside = range(len(plan.actions)) if whole else _segment(plan, key)
    extrapolation = [
        round(min(max(d + by, 0.0), 1.3), 3) if i in inside else d
        for i, d in enumerate(plan.extrapolation)
    ]
    return replace(plan, extrapolation=tuple(extrapolation))


def _segment(plan: CodedSchedule, at: int) -> range:
    start = at
    while start > 0 and plan.actions[start] not in (FULL, NO_CONTROLNET):
        start -= 1
    end = start + 1
    while end < len(plan.actions) and plan.actions[end] not in (FULL, NO_CONTROLNET):
        end += 1
    return range(start, end)


def _hold(plan: CodedSchedule, draw: random.Random) -> CodedSchedule:
    """A partial step is held, or a held one computed in part."""
    inner = [i for i, a in enumerate(plan.actions) if a not in (FULL, NO_CONTROLNET)]
    if not inner:
        return plan
    at = draw.choice(inner)
    return _put(plan, at, _partial(plan) if plan.actions[at] == SKIP else SKIP)


def _rest_controlnet(plan: CodedSchedule, draw: random.Random) -> CodedSchedule:
    """At a key step the ControlNet's residuals are held, or computed again."""
    keys = [i for i, a in enumerate(plan.actions) if a in (FULL, NO_CONTROLNET) and i > 1]
    if not keys:
        return plan
    at = draw.choice(keys)
    return _put(plan, at, FULL if plan.actions[at] == NO_CONTROLNET else NO_CONTROLNET)


def _deepen(plan: CodedSchedule, draw: random.Random) -> CodedSchedule:
    """A partial step computes a layer more or less of the up path."""
    inner = [i for i, a in enumerate(plan.actions) if a.isdigit()]
    if not inner:
        return plan
    at = draw.choice(inner)
    return _put(plan, at, "2" if plan.actions[at] == "1" else "1")


_MOVES = (_relocate, _move_gate, _damp, _hold, _rest_controlnet, _deepen)
_WEIGHTS = (8, 3, 5, 2, 1, 1)
