"""Plans that decide at run time: what a decision makes of a step, what a decider goes by, a plan's bounds."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from hgc_video.errors import PlanError
from hgc_video.plan.adaptive import (
    OF_PLAN,
    AdaptivePlan,
    Decision,
    decider_state,
    restored_decider,
)
from hgc_video.plan.schedule import Anchors, Schedule, StepPlan

FULL, HALF = StepPlan(reason="planned"), StepPlan(frozenset("a"), label="half")
LINE = StepPlan(frozenset("a"), extrapolate=frozenset("a"), coefficients=(2.0, -1.0), label="line")


@dataclass
class Counts:
    """A decider that takes the last choice of every second step."""

    every: int = field(default=2, metadata=OF_PLAN)
    seen: int = 0
    list_of_steps: list[int] = field(default_factory=list)

    def __call__(self, choices, signals):
        self.seen += 1
        self.list_of_steps.append(self.seen)
        return Decision(0 if self.seen % self.every else choices - 1, "counted")


def plan(**more):
    """Of four steps with one, two, three and one choices."""
    return AdaptivePlan("own", ((FULL,), (FULL, HALF), (FULL, HALF, LINE), (LINE,)), Counts, **more)


def test_a_decision_is_carried_out_with_its_reason_and_what_was_measured():
    made = Decision(0, "chosen", forecast_error=0.25).of((FULL, HALF))
    assert made == FULL and made.reason == "planned; chosen" and made.forecast_error == 0.25
    line = Decision(1, "chosen", coefficients=(1.5,)).of((FULL, LINE))
    assert line.coefficients == (1.5,) and line.extrapolate == LINE.extrapolate
    assert Decision(1, "").of((FULL, LINE)) == LINE, "its own coefficients, where none are chosen"


def test_no_more_values_are_read_than_were_planned():
    """They would not have been kept."""
    with pytest.raises(PlanError, match=r"3 coefficients .* planned to read 2 values"):
        Decision(0, "", coefficients=(3.0, -3.0, 1.0)).of((LINE,))


def test_a_decider_goes_on_from_what_it_was():
    """Fields that the plan gives are no part of it, and what is kept does not change with the run."""
    decide = Counts(every=3)
    decide(2, None)
    state = decider_state(decide)
    assert state == {"seen": 1, "list_of_steps": [1]}
    decide(2, None)
    assert state["list_of_steps"] == [1]
    assert restored_decider(Counts(every=5), state) == Counts(5, 1, [1])


def test_a_decider_that_cannot_be_told_is_refused():
    """A function has no fields, and the class of a decider is none."""
    for decide in (lambda choices, signals: Decision(0, ""), Counts):
        with pytest.raises(PlanError, match="no dataclass, so that a run cannot be kept"):
            decider_state(decide)


def test_what_was_chosen_is_a_schedule():
    steps = (FULL, HALF, LINE, LINE)
    assert plan(lossless=False).executed(steps) == Schedule("own", steps, lossless=False)
    assert plan().executed(list(steps)) == Schedule("own", steps, lossless=True)
    fixed = Schedule("fixed", (FULL,) * 4, False, Anchors(2), "adjusted")
    done = plan(fixed=fixed).executed(list(steps))
    assert done == Schedule("own", steps, False, Anchors(2), "adjusted"), (
        "the rest is the fixed one's"
    )


def test_the_cheapest_run_takes_every_last_choice_or_those_that_the_plan_names():
    assert plan().lower_bound().steps == (FULL, HALF, LINE, LINE)
    assert plan().num_computed() == (2, 4)
    named = plan(cheapest=(0, 0, 1, 0))  # a choice may rule out others after it
    assert named.lower_bound().steps == (FULL, FULL, HALF, LINE)
    assert named.num_computed() == (3, 4)
    assert named.upper_bound().steps == (FULL, FULL, FULL, LINE)


def test_a_controlnet_that_adds_nothing_is_noted_in_every_choice_of_its_step():
    off = {2: {"controlnet"}}
    fixed = Schedule("fixed", (FULL,) * 4)
    found = plan(fixed=fixed).with_inactive(off)
    inactive = [[step.inactive_controlnets for step in some] for some in found.choices]
    assert inactive == [[set()], [set(), set()], [{"controlnet"}] * 3, [set()]]
    assert found.fixed == fixed.with_inactive(off) != fixed
    assert plan().with_inactive({}) == plan()
