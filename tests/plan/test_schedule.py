"""Validation, cost and the text forms of schedules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgc_video.errors import PlanError
from hgc_video.plan.chart import chart
from hgc_video.plan.cost import cost, full_cost, kept
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.plan.test_graph import ladder

DEEP = frozenset({"unet.deep"})


def test_reuse_before_anything_was_computed_is_refused():
    with pytest.raises(PlanError, match=r"step 0 reuses unet\.deep"):
        Schedule("x", (StepPlan(DEEP),)).check(ladder())


def test_unknown_names_name_the_nearest():
    with pytest.raises(PlanError, match=r'unet\.dep.*did you mean "unet\.deep"'):
        Schedule("x", (StepPlan(frozenset({"unet.dep"})),)).check(ladder())


def test_two_branch_tensors_are_gone_after_the_gate_and_branches_do_not_come_back():
    with pytest.raises(PlanError, match="step 1 reuses"):
        Schedule("x", (StepPlan(), StepPlan(DEEP, branches=1))).check(ladder())
    with pytest.raises(PlanError, match="after the gate"):
        Schedule("x", (StepPlan(branches=1), StepPlan())).check(ladder())


def test_fused_before_fuse_is_refused():
    with pytest.raises(PlanError, match="fused"):
        Schedule("x", (StepPlan(cross="fused"),)).check(ladder())


def test_cost_by_hand():
    graph = ladder()
    steps = (
        StepPlan(),
        StepPlan(DEEP),
        StepPlan(cross="fuse"),
        StepPlan(branches=1, cross="fused"),
    )
    plain = cost(graph, Schedule("x", steps, share_text=False))
    assert [m["unet"] for m in plain.macs] == [222, 22, 222, 81]
    assert [m["controlnet"] for m in plain.macs] == [24, 24, 24, 12]
    assert plain.nbytes == (32, 0, 0, 0)
    shared = cost(graph, Schedule("x", steps))
    assert [m["unet"] for m in shared.macs] == [222 - 2 * 9, 22, 222 - 2 * 12, 81]
    assert full_cost(graph, 2).by_part() == {"unet": 444, "controlnet": 48}


def test_the_text_forms():
    graph = ladder()
    schedule = Schedule("x", (StepPlan(), StepPlan(DEEP, label="cut 1")))
    assert Schedule.from_yaml(schedule.to_yaml()) == schedule
    lines = chart(graph, schedule)
    assert len(lines) == 2
    assert "cut 1" in lines[1] and "controlnet  1/1" in lines[1]


@pytest.mark.parametrize("text", ["", "name: x", "steps: 3\nname: x", "- 1", "{"])
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(PlanError, match="no schedule"):
        Schedule.from_yaml(text)


reuses = st.sets(
    st.sampled_from(["unet.deep", "unet.skip", "controlnet.hint", "controlnet.zero", "unet.in"])
)


@given(st.lists(reuses, min_size=1, max_size=8))
def test_kept_is_exactly_what_makes_every_read_possible(all_reuses):
    """Plays the schedule with a set as the store; every read is there, and nothing is kept in vain."""
    graph = ladder()
    schedule = Schedule("x", (StepPlan(), *(StepPlan(frozenset(r)) for r in all_reuses))).check(
        graph
    )
    stored: set[str] = set()
    for i, (step, keep) in enumerate(zip(schedule.steps, kept(graph, schedule), strict=True)):
        assert graph.read(step.reuse) <= stored
        stored = (stored | graph.alive(step.reuse)) & keep
        assert stored == keep
        later = [graph.read(s.reuse) for s in schedule.steps[i + 1 :]]
        assert all(any(name in read for read in later) for name in keep)
