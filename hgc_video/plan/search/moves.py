"""The moves of a climb: what may change at once in the step codes of a schedule.

As BudCache's (2606.13496): keys are relocated, mostly by little.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from ..coefficients import Coefficients
from ..policies.searched import CodedSchedule
from ..step_codes import FULL, NO_CONTROLNET, SKIP, is_key
from .fit_steps import StepFitter

Move = Callable[[CodedSchedule, random.Random], CodedSchedule]


def partial(plan: CodedSchedule, otherwise: str = "1") -> str:
    """The partial step that the plan uses most."""
    inner = [a for a in plan.actions if a not in (FULL, NO_CONTROLNET, SKIP)]
    return max(sorted(set(inner)), key=inner.count) if inner else otherwise


def put(plan: CodedSchedule, at: int, action: str) -> CodedSchedule:
    own = plan.coefficients
    return replace(
        plan,
        actions=plan.actions[:at] + action + plan.actions[at + 1 :],
        coefficients=(*own[:at], (), *own[at + 1 :]) if own else (),  # they were another code's
    )


def _relocate(plan: CodedSchedule, draw: random.Random) -> CodedSchedule:
    """A key step changes places, mostly by little."""
    keys = [i for i, a in enumerate(plan.actions) if is_key(a) and i > 0]
    if not keys:
        return plan
    key = draw.choice(keys)
    near = [i for i in range(key - 3, key + 4) if 0 < i < len(plan.actions)]
    places = near if draw.random() < 0.8 else range(1, len(plan.actions))
    free = [i for i in places if not is_key(plan.actions[i])]
    if not free:
        return plan
    target = draw.choice(free)
    action = plan.actions[key]
    return put(put(plan, key, plan.actions[target]), target, action)


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
    own = [
        _stretched(c, 1 + by / 2) if c and i in inside else c
        for i, c in enumerate(plan.coefficients)
    ]
    return replace(plan, extrapolation=tuple(extrapolation), coefficients=tuple(own))


def _stretched(coefficients: Coefficients, by: float) -> Coefficients:
    """Coefficients that go so many times as far from the newest value."""
    made = [by * value for value in coefficients]
    return tuple(round(value, 5) for value in (made[0] + 1 - by, *made[1:]))


def _segment(plan: CodedSchedule, at: int) -> range:
    start = at
    while start > 0 and not is_key(plan.actions[start]):
        start -= 1
    end = start + 1
    while end < len(plan.actions) and not is_key(plan.actions[end]):
        end += 1
    return range(start, end)


def _hold(plan: CodedSchedule, draw: random.Random) -> CodedSchedule:
    """A partial step is held, or a held one computed in part."""
    inner = [i for i, a in enumerate(plan.actions) if not is_key(a)]
    if not inner:
        return plan
    at = draw.choice(inner)
    return put(plan, at, partial(plan) if plan.actions[at] == SKIP else SKIP)


def _rest_controlnet(plan: CodedSchedule, draw: random.Random) -> CodedSchedule:
    """At a key step the ControlNet's residuals are held, or computed again."""
    keys = [i for i, a in enumerate(plan.actions) if is_key(a) and i > 1]
    if not keys:
        return plan
    at = draw.choice(keys)
    return put(plan, at, FULL if plan.actions[at] == NO_CONTROLNET else NO_CONTROLNET)


def _deepen(plan: CodedSchedule, draw: random.Random) -> CodedSchedule:
    """A partial step computes a layer more or less of the up path."""
    inner = [i for i, a in enumerate(plan.actions) if a.isdecimal()]
    if not inner:
        return plan
    at = draw.choice(inner)
    return put(plan, at, "2" if plan.actions[at] == "1" else "1")


_MOVES: tuple[Move, ...] = (_relocate, _move_gate, _damp, _hold, _rest_controlnet, _deepen)
_WEIGHTS = (8, 3, 5, 2, 1, 1)


def moves(fit: StepFitter | None) -> tuple[tuple[Move, ...], tuple[int, ...]]:
    """The moves, and how often each is drawn."""
    if fit is None:
        return _MOVES, _WEIGHTS

    def change_rule(plan: CodedSchedule, draw: random.Random) -> CodedSchedule:
        """One segment is reused by slope instead of by coefficients, or by coefficients again."""
        inside = _segment(plan, draw.randrange(len(plan.actions)))
        own = plan.coefficients
        if own and any(own[i] for i in inside):
            return replace(
                plan, coefficients=tuple(() if i in inside else c for i, c in enumerate(own))
            )
        return fit.fitted_at(plan, inside)

    return (*_MOVES, change_rule), (*_WEIGHTS, 2)
