"""Several policies at once: every field of both steps is there, and contradictions are refused."""

from __future__ import annotations

from dataclasses import fields

import pytest

from hgc_video.errors import PlanError
from hgc_video.plan.coefficients import linear
from hgc_video.plan.compose import compose, compose_choices
from hgc_video.plan.policies.easycache import EasyCache
from hgc_video.plan.schedule import Anchors, Schedule, StepPlan
from hgc_video.plan.validate import check
from tests.plan.test_graph import ladder

DEEP = frozenset({"unet.deep"})
CROSS = frozenset({"unet.deep.attn2"})
ONE = StepPlan(
    reuse=frozenset("a"), deltas=frozenset("b"), average_branches=frozenset("c"), extrapolate=frozenset("a"),
    coefficients=(2.0, -1.0), latent_progress=(0, 1), inactive_controlnets=frozenset({"controlnet"}),
    always_compute=frozenset("d"), label="one", reason="first",
)  # fmt: skip
OTHER = StepPlan(
    reuse=frozenset("e"), deltas=frozenset("f"), average_branches=frozenset("g"), branches=1,
    cfg_delta=(1.1, 1.2), extrapolate=frozenset("e"), coefficients=(2.0, -1.0), latent_progress=(0, 1),
    clean=((1, 0.5),), inactive_controlnets=frozenset({"controlnet.nets.1"}), always_compute=frozenset("h"),
    label="other", reason="second",
)  # fmt: skip


def composed(*steps):
    """The step that several policies make together."""
    (both,) = compose([Schedule(str(n), (step,)) for n, step in enumerate(steps)]).steps
    return both


def test_every_field_of_both_steps_is_there():
    both = composed(ONE, OTHER)
    assert both == StepPlan(
        reuse=frozenset("ae"), deltas=frozenset("bf"), average_branches=frozenset("cg"), branches=1,
        cfg_delta=(1.1, 1.2), extrapolate=frozenset("ae"), coefficients=(2.0, -1.0), latent_progress=(0, 1),
        clean=((1, 0.5),), inactive_controlnets=frozenset({"controlnet", "controlnet.nets.1"}),
        always_compute=frozenset("dh"), label="one other",
    )  # fmt: skip
    assert both.reason == "first; second"
    default, own = StepPlan(), {f.name for f in fields(StepPlan)} - {"forecast_error"}
    unset = {name for name in own if getattr(both, name) == getattr(default, name)}
    assert not unset, "a field that no step here has is not tested"


@pytest.mark.parametrize("step", [ONE, OTHER, StepPlan()])
def test_a_step_that_computes_everything_changes_no_other(step):
    for both in (composed(step, StepPlan()), composed(StepPlan(), step), composed(step, step)):
        assert both == step
        assert both.reason == step.reason


def test_the_rule_of_extrapolation_is_that_of_the_step_that_has_one():
    alone = StepPlan(extrapolate=frozenset("a"), coefficients=(1.5, -0.5), label="line")
    unused = StepPlan(coefficients=(3.0, -2.0), latent_progress=(0, 1), label="none")
    for both in (composed(alone, unused), composed(unused, alone)):
        assert (both.coefficients, both.latent_progress) == ((1.5, -0.5), None)
    assert composed(unused, unused).coefficients == ()


def test_what_a_schedule_adjusts_is_kept():
    plain, adjusted = Schedule("a", (StepPlan(),)), Schedule("b", (StepPlan(),), adjust="timesteps")
    assert compose([plain, plain]).adjust == ""
    assert compose([plain, adjusted]).adjust == compose([adjusted, plain]).adjust == "timesteps"


def test_composition_takes_what_any_policy_spares():
    gate = Schedule("gate", (StepPlan(), StepPlan(branches=1, label="gated")), lossless=False)
    cut = Schedule("cut", (StepPlan(), StepPlan(DEEP, label="cut 1")), lossless=False)
    both = compose([cut, gate])
    assert both.name == "cut+gate" and not both.lossless
    assert both.steps[1] == StepPlan(DEEP, branches=1, label="cut 1 gated")
    assert check(both, ladder())
    assert compose([both, Schedule("lossless", (StepPlan(),) * 2)]).lossless


def test_contradictions_are_refused():
    one = Schedule("one", (StepPlan(),))
    with pytest.raises(PlanError, match="one length"):
        compose([one, Schedule("two", (StepPlan(),) * 2)])
    held = Schedule("a", (StepPlan(DEEP, extrapolate=DEEP, coefficients=linear(0.5)),))
    with pytest.raises(PlanError, match="extrapolate differently"):
        compose(
            [held, Schedule("b", (StepPlan(CROSS, extrapolate=CROSS, coefficients=linear(1.0)),))]
        )
    dropped = Schedule("a", (StepPlan(branches=1),))
    with pytest.raises(PlanError, match="treat guidance differently"):
        compose([dropped, Schedule("b", (StepPlan(branches=1, cfg_delta=(1.0, 1.0)),))])
    every, third = (Schedule(f"of {n}", (StepPlan(),), anchors=Anchors(n)) for n in (2, 3))
    with pytest.raises(PlanError, match="of 2 and of 3 and one choose different anchor frames"):
        compose([every, third, one])
    assert compose([every, one, every]).anchors == Anchors(2)
    clean = [Schedule("c", (StepPlan(clean=((1, share),)),)) for share in (0.5, 1.0)]
    with pytest.raises(PlanError, match="forecast the same step differently"):
        compose(clean)
    assert compose([clean[0], one]).steps[0].clean == ((1, 0.5),)


def test_a_plan_that_decides_at_run_time_does_what_others_do_too():
    plan = EasyCache(warm_up=1)(ladder(), 3)
    gate = Schedule(
        "gate", (StepPlan(), *(StepPlan(branches=1, label="gated"),) * 2), lossless=True
    )
    both = compose_choices(plan, [gate])
    assert both.name == "easycache+gate" and both.lossless and not plan.lossless
    for before, after, gated in zip(plan.alternatives, both.alternatives, gate.steps, strict=True):
        assert [choice.branches for choice in after] == [gated.branches] * len(before)
        assert [choice.reuse for choice in after] == [choice.reuse for choice in before]
    with pytest.raises(
        PlanError, match="easycache has 3 steps and short 1; only plans of one length"
    ):
        compose_choices(plan, [Schedule("short", (StepPlan(),))])
    anchored = Schedule("pab", (StepPlan(),) * 3, anchors=Anchors(2))
    with pytest.raises(
        PlanError, match="pab chooses anchor frames and easycache decides at run time"
    ):
        compose_choices(plan, [gate, anchored])
