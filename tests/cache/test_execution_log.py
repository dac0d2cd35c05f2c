"""What was executed: MACs by part and step, taken back, owed, and told of a run that goes on."""

from __future__ import annotations

import json

import pytest

from hgc_video.cache.execution_log import ExecutionLog
from hgc_video.plan.schedule import Anchors, Schedule, StepPlan
from tests.plan.test_graph import ladder

NOTHING = {"unet": 0, "controlnet": 0}
HELD = StepPlan(frozenset({"unet.deep"}), label="held", reason="test")
PLAN = Schedule("test", (StepPlan(), HELD, StepPlan()), anchors=Anchors(2))


@pytest.fixture
def log():
    return ExecutionLog(PLAN, ladder())


def test_macs_are_of_the_part_that_ran_them_at_the_step_that_was_begun(log):
    log.at(0, StepPlan())
    log.add("unet.deep.attn1", 5)
    log.add("controlnet.nets.1.zero", 7)
    log.at(1, HELD)
    log.add("unet.up", 11)
    assert log.executed == [{"unet": 5, "controlnet": 7}, {"unet": 11, "controlnet": 0}]
    assert log.macs_by_part() == {"unet": 16, "controlnet": 7}


def test_macs_are_in_proportion_to_the_rows_that_ran(log):
    log.at(0, StepPlan())
    for rows, expected in ((4, 100), (2, 50), (12, 300), (1, 25)):  # the graph's frames are 4
        before = log.executed[-1]["unet"]
        log.count("unet.deep", 100, rows)
        assert log.executed[-1]["unet"] - before == expected
    log.count("controlnet.zero", 10, 3)
    assert log.executed[-1]["controlnet"] == 7, "in whole numbers"


def test_the_first_window_speaks_for_the_step(log):
    log.at(0, HELD)
    log.add("unet.up", 1)
    log.at(0, StepPlan())
    log.add("unet.up", 2)
    assert log.executed == [{"unet": 3, "controlnet": 0}] and log.record().steps == (HELD,)


def test_a_record_is_the_plan_with_the_steps_that_were_carried_out(log):
    log.at(0, HELD)
    assert log.record() == Schedule("test", (HELD,), anchors=Anchors(2))


def test_a_step_that_is_begun_anew_is_taken_back_with_what_it_took(log):
    log.at(0, StepPlan())
    log.add("unet.up", 1)
    assert log.withdraw(1) == NOTHING, "that one was not begun"
    log.at(1, HELD)
    log.add("controlnet.zero", 5)
    assert log.withdraw(1) == {"unet": 0, "controlnet": 5}
    assert log.executed == [{"unet": 1, "controlnet": 0}] and log.record().steps == (StepPlan(),)
    log.at(1, StepPlan())
    assert log.record().steps == (StepPlan(),) * 2


def test_what_was_executed_in_vain_is_the_next_steps_and_no_later_ones(log):
    wasted = {"unet": 3, "controlnet": 5}
    log.owe(wasted)
    log.at(0, StepPlan())
    log.add("unet.up", 1)
    log.at(1, StepPlan())
    assert log.executed == [{"unet": 4, "controlnet": 5}, NOTHING]
    assert wasted == {"unet": 3, "controlnet": 5}, "what was given is not counted on"


def test_a_new_run_has_executed_nothing(log):
    log.owe({"unet": 3, "controlnet": 5})
    log.at(0, HELD)
    log.owe({"unet": 3, "controlnet": 5})
    log.controlnet_branches = 1
    log.begin()
    assert (log.executed, log.controlnet_branches, log.record().steps) == ([], 2, ())
    assert log.macs_by_part() == NOTHING
    log.at(0, StepPlan())
    assert log.executed == [NOTHING], "nothing is owed"


def test_a_run_that_goes_on_counts_from_there(log):
    log.at(0, StepPlan())
    log.at(1, HELD)
    log.add("unet.up", 11)
    log.owe({"unet": 0, "controlnet": 2})
    log.controlnet_branches = 1
    other = ExecutionLog(PLAN, ladder())
    other.restore(json.loads(json.dumps(log.state())))
    assert other.record() == log.record() and other.record().steps[1].reason == "test"
    assert (other.executed, other.controlnet_branches) == (log.executed, 1)
    other.at(1, StepPlan())
    assert len(other.executed) == 2, "that step was begun before"
    other.at(2, StepPlan())
    assert other.executed == [NOTHING, {"unet": 11, "controlnet": 0}, {"unet": 0, "controlnet": 2}]


def test_what_is_told_to_go_on_from_stays_as_it_was_told(log):
    log.at(0, StepPlan())
    state = log.state()
    for other in (ExecutionLog(PLAN, ladder()) for _ in range(2)):
        other.restore(state)
        other.at(1, HELD)
        other.add("unet.up", 1)
        assert len(other.executed) == 2
    log.add("unet.up", 5)
    assert state["executed"] == [NOTHING]
