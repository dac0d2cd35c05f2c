"""Schedules that could not be carried out are refused, each for its own reason; those that can be are not."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import pytest

from hgc_video.errors import PlanError
from hgc_video.plan.coefficients import linear
from hgc_video.plan.graph import PREDICTION
from hgc_video.plan.policies.easycache import EasyCache
from hgc_video.plan.schedule import Schedule, StepPlan
from hgc_video.plan.validate import check
from tests.plan.test_graph import ladder

DEEP = frozenset({"unet.deep"})
CROSS = frozenset({"unet.deep.attn2"})
HINT = frozenset({"controlnet.hint"})
LINE = {"extrapolate": DEEP, "coefficients": linear(0.5)}


def refused(*steps, says, lossless=True):
    with pytest.raises(PlanError, match=says):
        check(Schedule("x", steps, lossless), ladder())


def test_reuse_before_anything_was_computed_is_refused():
    refused(StepPlan(DEEP), says=r"step 0 reuses unet\.deep")
    refused(StepPlan(deltas=frozenset({PREDICTION})), says="step 0 reuses")
    refused(StepPlan(branches=1, cfg_delta=(1, 1)), says="guidance_difference")


def test_unknown_names_name_the_nearest():
    refused(StepPlan(frozenset({"unet.dep"})), says=r'unet\.dep.*did you mean "unet\.deep"')


def test_what_was_made_for_one_branch_does_not_do_for_both():
    check(Schedule("x", (StepPlan(), StepPlan(DEEP, branches=1))), ladder())
    refused(StepPlan(branches=1), StepPlan(DEEP), says="made for one")
    refused(StepPlan(average_branches=CROSS), StepPlan(CROSS), says="made for one")
    refused(StepPlan(branches=3), says="this run has 2")


def test_extrapolation_needs_two_values():
    sloped = StepPlan(DEEP, extrapolate=DEEP, coefficients=linear(0.5))
    refused(StepPlan(), sloped, says="from 2 values, but only 1 was computed")
    check(Schedule("x", (StepPlan(), StepPlan(), sloped)), ladder())


def test_what_does_not_add_to_its_input_has_no_contribution():
    refused(StepPlan(), StepPlan(deltas=frozenset({"unet.up"})), says="only attention and motion")


def test_merging_and_differences_have_their_steps():
    refused(StepPlan(average_branches=CROSS, branches=1), says="only attentions of two branches")
    refused(StepPlan(), StepPlan(cfg_delta=(1, 1)), says="computes both branches")


def allowed(*steps, lossless=True):
    plan = Schedule("x", steps, lossless)
    assert check(plan, ladder()) is plan


@pytest.mark.parametrize(
    "field", ["reuse", "deltas", "average_branches", "always_compute", "extrapolate"]
)
def test_an_unknown_name_is_refused_in_every_field(field):
    step = StepPlan(**{field: frozenset({"unet.dep"})})
    refused(
        StepPlan(),
        step,
        says=r'step 1 names unet\.dep, which the model has not; did you mean "u[^(]*$',
    )


def test_the_encoded_control_clip_is_one_for_both_branches():
    allowed(StepPlan(), StepPlan(HINT))
    allowed(StepPlan(branches=1), StepPlan(HINT))


def test_the_encoded_control_clip_is_not_extrapolated():
    step = StepPlan(HINT, extrapolate=HINT, coefficients=(0.5, 0.25))
    refused(StepPlan(), StepPlan(), step, says="the same at every step; only reuse it")


def test_a_published_method_computes_residuals_that_nobody_reads():
    """And so has two of them to extrapolate, where the lossless savings leave one out."""
    zero, up = frozenset({"controlnet.zero"}), frozenset({"unet.up"})
    line = StepPlan(zero, extrapolate=zero, coefficients=linear(0.5))
    allowed(StepPlan(), StepPlan(up), line, lossless=False)
    refused(StepPlan(), StepPlan(up), line, says="only 1 was computed")


def test_what_adds_to_its_input_has_a_contribution():
    allowed(StepPlan(), StepPlan(deltas=DEEP))
    allowed(StepPlan(), StepPlan(deltas=frozenset({PREDICTION})))


def test_a_guidance_difference_is_one_for_both_branches():
    allowed(StepPlan(), StepPlan(branches=1, cfg_delta=(1.0, 1.0)))


def test_more_values_than_were_computed_are_refused():
    three = StepPlan(DEEP, extrapolate=DEEP, coefficients=(1.0, 1.0, -1.0))
    refused(
        StepPlan(), StepPlan(), three, says="from 3 values, but only 2 were computed; give no more"
    )
    allowed(StepPlan(), StepPlan(), StepPlan(), three)


@pytest.mark.parametrize("earlier", [-1, 1, 2])
def test_a_forecast_is_made_of_steps_before_it(earlier):
    step = StepPlan(clean=((earlier, 0.5),))
    refused(
        StepPlan(),
        step,
        says=f"step 1 is forecast from step {earlier} times 0.5; name steps before",
    )


@pytest.mark.parametrize("weight", [math.inf, -math.inf, math.nan, 10**400])
def test_weights_and_coefficients_are_finite(weight):
    refused(StepPlan(), StepPlan(clean=((0, weight),)), says="finite weights")
    step = StepPlan(DEEP, extrapolate=DEEP, coefficients=(weight,))
    refused(StepPlan(), step, says="only finite numbers can be")


def test_the_largest_weights_and_the_first_step_are_allowed():
    allowed(StepPlan(), StepPlan(clean=((0, sys.float_info.max),)))
    allowed(StepPlan(), StepPlan(DEEP, extrapolate=DEEP, coefficients=(-sys.float_info.max,)))


@pytest.mark.parametrize(("older", "newer"), [(1, 0), (1, 1), (-1, 1), (0, 2), (0, 3)])
def test_latents_are_followed_from_an_older_to_a_newer_step_before(older, newer):
    step = StepPlan(DEEP, **LINE, latent_progress=(older, newer))
    refused(
        StepPlan(), StepPlan(), step,
        says=f"step 2 follows the latents of steps {older} and {newer}; name an older and a newer",
    )  # fmt: skip


def test_layers_follow_the_latents_and_attentions_do_not():
    allowed(StepPlan(), StepPlan(), StepPlan(DEEP, **LINE, latent_progress=(0, 1)))
    step = StepPlan(CROSS, extrapolate=CROSS, coefficients=linear(0.5), latent_progress=(0, 1))
    refused(StepPlan(), StepPlan(), step, says="step 2 follows the latents; only whole layers can")


def test_every_choice_of_a_plan_that_decides_at_run_time_must_be_possible():
    plan = EasyCache(warm_up=1)(ladder(), 3)
    assert check(plan, ladder()) is plan
    for at in range(3):
        others = list(plan.alternatives)
        others[at] = (*others[at], StepPlan(frozenset({"unet.dep"})))
        with pytest.raises(PlanError, match=rf"step {at} names unet\.dep"):
            check(replace(plan, alternatives=tuple(others)), ladder())
