"""Validation, cost, composition and the text forms of schedules."""

from __future__ import annotations

import pytest

from hgc_video.errors import PlanError
from hgc_video.plan.coefficients import linear, slope_of
from hgc_video.plan.compose import compose
from hgc_video.plan.cost import cost, full_cost
from hgc_video.plan.explain import explain, summaries
from hgc_video.plan.policies.lossless import add_lossless
from hgc_video.plan.schedule import Anchors, Schedule, StepPlan
from tests.plan.test_graph import ladder

DEEP = frozenset({"unet.deep"})
CROSS = frozenset({"unet.deep.attn2"})


def test_cost_by_hand():
    graph = ladder()
    steps = (
        StepPlan(),
        StepPlan(DEEP),
        StepPlan(average_branches=CROSS),
        StepPlan(CROSS, branches=1),
    )
    plain = cost(graph, Schedule("x", steps, lossless=False))
    assert [m["unet"] for m in plain.macs] == [222, 22, 222, 81]
    assert [m["controlnet"] for m in plain.macs] == [24, 24, 24, 12]
    assert plain.nbytes == (32, 0, 6, 0)
    shared = cost(graph, Schedule("x", steps))
    assert [m["unet"] for m in shared.macs] == [222 - 2 * 9, 22, 222 - 2 * 12, 81]
    assert [m["controlnet"] for m in shared.macs] == [19, 19, 19, 12]
    assert full_cost(graph, 2).by_part() == {"unet": 444, "controlnet": 48}


def test_exact_savings_reuse_the_hint_once_it_is_made():
    graph = ladder()
    plain = Schedule("x", (StepPlan(),) * 3, lossless=False)
    exact = add_lossless(plain, graph)
    assert [m["controlnet"] for m in cost(graph, exact).macs] == [19, 14, 14]
    late = add_lossless(plain.with_inactive({0: ["controlnet"]}), graph)
    assert [m["controlnet"] for m in cost(graph, late).macs] == [0, 19, 14]
    assert cost(graph, plain.with_inactive({0: ["controlnet"]})).total == cost(graph, plain).total


def test_anchors_pay_for_their_frames_only():
    graph = ladder()
    plain = Schedule("x", (StepPlan(),), lossless=False)
    anchored = Schedule("x", (StepPlan(),), lossless=False, anchors=Anchors(3))
    assert Anchors(3).frames(4) == (0, 3)
    assert cost(graph, plain).total - cost(graph, anchored).total == 30  # half of 2 x 30


def test_reasons_are_kept_by_composition_and_by_the_lossless_pass():
    graph = ladder()
    cut = Schedule("cut", (StepPlan(reason="key"), StepPlan(DEEP, reason="deep part reused")))
    gate = Schedule("gate", (StepPlan(), StepPlan(branches=1, reason="after the gate")))
    both = add_lossless(compose([cut, gate]), graph)
    assert both.steps[0].reason == "key; lossless: the hint is encoded here"
    assert both.steps[1].reason == (
        "deep part reused; after the gate; lossless: the hint was encoded at step 0"
    )
    assert Schedule.from_yaml(both.to_yaml()).steps[1].reason == both.steps[1].reason


def test_a_step_is_explained():
    """By hand, on the ladder: what runs, what is read, what neither runs nor is read, what is stored."""
    graph = ladder()
    schedule = Schedule(
        "x", (StepPlan(), StepPlan(DEEP, label="depth 1", reason="deep part reused"))
    )
    first, second = (explain(graph, schedule, i) for i in range(2))
    layers = {la.name for la in graph.layers if la.kind != "join"}
    assert set(first.computed) == layers and not first.reused and not first.skipped
    assert set(first.stored) == set(second.reused) == set(DEEP)
    assert set(second.computed) | set(second.reused) | set(second.skipped) == layers
    assert not set(second.computed) & set(second.skipped)
    assert "deep part reused" in str(second) and "depth 1" in str(second)
    assert second.summary == summaries(graph, schedule)[1]
    with pytest.raises(PlanError, match="it has steps 0 to 1"):
        explain(graph, schedule, 2)


def test_the_text_forms():
    graph = ladder()
    schedule = Schedule("x", (StepPlan(), StepPlan(DEEP, label="cut 1")))
    assert Schedule.from_yaml(schedule.to_yaml()) == schedule
    rich = StepPlan(
        DEEP,
        DEEP,
        CROSS,
        1,
        (1.0, 1.2),
        DEEP,
        (1.1, 0.2, -0.3),
        (3, 5),
        ((1, 0.5), (2, -0.25)),
        frozenset({"controlnet"}),
        DEEP,
        "x",
    )
    full = Schedule("y", (rich, StepPlan()), lossless=False, anchors=Anchors(2))
    assert Schedule.from_yaml(full.to_yaml()) == full
    assert Schedule.from_yaml(full.to_json()) == full
    rows = summaries(graph, schedule)
    lines = [str(row) for row in rows]
    assert len(lines) == 2
    assert "cut 1" in lines[1] and "controlnet  1/1" in lines[1]


@pytest.mark.parametrize(
    "text",
    ["", "name: x", "steps: 3\nname: x", "- 1", "{", "{name: x, lossless: 1, steps: [{wat: 1}]}"],
)
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(PlanError, match="no schedule"):
        Schedule.from_yaml(text)


def test_a_slope_is_two_coefficients_and_read_from_older_files():
    assert linear(0.0) == () and slope_of(()) is None
    for slope in (0.5, -0.25, 1 / 3, 0.123457, 1.2):
        assert slope_of(linear(slope)) == slope  # to the bit, so that what was planned before stays
    assert slope_of((1.0, 0.5)) is None and slope_of((1.5, -0.5, 0.0)) is None
    old = {"reuse": list(DEEP), "extrapolate": list(DEEP), "slope": 0.5}
    (step,) = Schedule.from_dict({"name": "x", "steps": [old]}).steps
    assert step == StepPlan(DEEP, extrapolate=DEEP, coefficients=(1.5, -0.5))
    with pytest.raises(PlanError, match="this is no schedule"):
        Schedule.from_dict({"name": "x", "steps": [{"slope": 0.5, "coefficients": [1.0]}]})


def test_the_text_of_a_schedule_by_hand():
    """The name first, of each step the label, and of a step nothing that is as usual."""
    schedule = Schedule(
        "x", (StepPlan(), StepPlan(frozenset({"b", "a"}), branches=1, label="depth 1"))
    )
    told = {
        "name": "x",
        "lossless": True,
        "steps": [{"label": "full"}, {"label": "depth 1", "reuse": ["a", "b"], "branches": 1}],
    }
    assert schedule.to_dict() == told
    assert schedule.to_yaml().splitlines()[:4] == [
        "name: x",
        "lossless: true",
        "steps:",
        "- label: full",
    ]
    assert schedule.to_json().startswith('{\n "name": "x",\n "lossless": true,\n "steps": [\n  {\n')
    assert Schedule("x", ()).to_dict() == {"name": "x", "lossless": True, "steps": []}


def test_what_was_executed_is_another_row_of_steps():
    schedule = Schedule("x", (StepPlan(), StepPlan(DEEP)))
    assert schedule.executed((StepPlan(), StepPlan())).steps == (StepPlan(), StepPlan())


def test_a_reason_has_every_clause_once():
    step = StepPlan().because("a key step").because("step").because("a key step").because("")
    assert step.reason == "a key step; step"
