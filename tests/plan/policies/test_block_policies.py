"""The policies that reuse blocks, attentions or guidance at fixed steps: their whole schedules, step by step.

Two steps are equal where they do the same; the reasons are compared apart.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from hgc_video.plan.coefficients import linear
from hgc_video.plan.graph import Layer
from hgc_video.plan.policies.block_caching import BlockCaching
from hgc_video.plan.policies.clockwork import Clockwork
from hgc_video.plan.policies.faster_diffusion import FasterDiffusion
from hgc_video.plan.policies.fastercache import FasterCache
from hgc_video.plan.policies.fewer_steps import FewerSteps
from hgc_video.plan.policies.guidance_gate import GuidanceGate
from hgc_video.plan.policies.pab import PAB
from hgc_video.plan.policies.registry import POLICIES, make_policy
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.plan.policies.test_policies import (  # noqa: F401
    calibration,
    needs_file,
    tower,
    write_changes,
)
from tests.plan.test_graph import ladder

FULL = StepPlan()
ATTENTIONS = tower().attention_names("spatial", "temporal")


def reasons(schedule):
    return [step.reason for step in schedule.steps]


@pytest.mark.parametrize("branches", [1, 3])
@pytest.mark.parametrize("name", [name for name in POLICIES if name != "tgate"])
def test_every_step_has_the_branches_of_the_run(name, branches, calibration):  # noqa: F811
    """Without guidance there is one; the third is that of perturbed attention, which no gate spares."""
    plan = make_policy(needs_file(name, calibration))(replace(tower(), branches=branches), 25)
    assert {step.branches for choices in plan.choices for step in choices} == {branches}


@pytest.mark.parametrize("name", POLICIES)
def test_what_a_policy_makes_can_be_written_and_read(name, calibration):  # noqa: F811
    plan = make_policy(needs_file(name, calibration))(tower(), 25)
    for schedule in (plan.upper_bound(), plan.lower_bound()):
        assert Schedule.from_yaml(schedule.to_yaml()) == schedule


def test_clockwork_runs_what_is_inside_the_outermost_block_at_every_clocked_step():
    key, adaptor = StepPlan(label="key"), StepPlan(frozenset({tower().depths[1]}), label="adaptor")
    schedule = Clockwork(clock=3)(tower(), 7)
    assert list(schedule.steps) == [key, adaptor, adaptor, key, adaptor, adaptor, key]
    assert reasons(schedule)[:2] == [
        "clockwork: every 3 steps", "clockwork: identity adaptor between key steps",
    ]  # fmt: skip


@pytest.mark.parametrize(("blocks", "inside"), [((1, 3), 0), ((3, 1), 2), ((), 0)])
def test_clockworks_outermost_block_may_have_any_number_of_layers(blocks, inside):
    """`depths` are counted from the output on; a graph that does not tell its blocks keeps one layer."""
    graph = replace(tower(), blocks=blocks)
    assert Clockwork(clock=2)(graph, 2).steps[1].reuse == {graph.depths[inside]}


def test_faster_diffusion_reuses_all_that_comes_before_the_up_path():
    """But for the time embedding, which every decoder gets anew."""
    units = ("resnets", "attentions", "motion_modules")
    blocks = ("down_blocks.0", "down_blocks.1", "mid_block")
    encoder = {"controlnet.hint", "controlnet.conv_in", "unet.conv_in"}
    encoder |= {f"controlnet.zero.{k}" for k in range(4)}
    encoder |= {f"unet.{block}.{unit}.0" for block in blocks for unit in units}
    key, decoder = StepPlan(label="key"), StepPlan(frozenset(encoder), label="decoder")
    schedule = FasterDiffusion(mod=2)(tower(), 3)
    assert schedule.steps == (key, decoder, key)
    assert reasons(schedule)[:2] == [
        "faster-diffusion: key step",
        "faster-diffusion: between key steps, the encoder's outputs are reused",
    ]


def test_the_encoder_ends_with_the_deepest_layer():
    """A sum of a skip and a residual is no part of it, wherever it stands."""
    graph = ladder()
    graph = replace(graph, layers=(*graph.layers, Layer("unet.out", "conv_out", ("unet.up",))))
    held = FasterDiffusion(mod=2)(graph, 2).steps[1].reuse
    assert held == {"controlnet.hint", "controlnet.zero", "unet.in", "unet.deep"}


def test_faster_diffusions_key_steps_of_50_are_scaled_to_another_length():
    assert FasterDiffusion().key_steps(100) == {0, 2, 4, 6, 10, 20, 30, 50, 70}
    assert FasterDiffusion().key_steps(25) == {
        0,
        1,
        2,
        5,
        8,
        12,
        18,
    }  # 0.5, 2.5, 12.5: to the even one


def test_fastercache_step_by_step():
    """Attention from step 3 on, one branch between steps 6 and 10, late after step 9 of 12."""
    policy = FasterCache(
        first=0.25, slope=0.9, guidance_first=0.5, guidance_interval=4, boost=0.5, turn=0.75
    )
    early, late = (1.0, 1.5), (1.5, 1.0)

    def step(slope=0.0, weights=None):
        names = ATTENTIONS if slope else frozenset()
        words = ["attention"] * bool(slope) + ["guidance"] * bool(weights)
        return StepPlan(
            names, branches=1 if weights else 2, cfg_delta=weights, extrapolate=names,
            coefficients=linear(slope), label=" ".join([*words, "held"]) if words else "full",
        )  # fmt: skip

    schedule = policy(tower(), 12)
    # The extrapolation grows from 0 at step 3 to 0.9 at the end, by 0.1 a step.
    expected = [
        *[step()] * 4, step(0.1), step(), step(),
        step(0.0, early), step(0.5, early), step(0.0, early), step(), step(0.0, late),
    ]  # fmt: skip
    for i, (found, wanted) in enumerate(zip(schedule.steps, expected, strict=True)):
        rounded = tuple(round(value, 9) for value in found.coefficients)
        assert replace(found, coefficients=rounded) == wanted, i
    attention = "every second step reuses attention"
    guidance = "between the steps of both branches the guidance difference is added again"
    assert reasons(schedule)[3:8] == [
        "fastercache: computes everything", f"fastercache: {attention}", "fastercache: computes everything",
        "fastercache: computes everything", f"fastercache: {guidance}",
    ]  # fmt: skip
    assert reasons(schedule)[8] == f"fastercache: {attention}, {guidance}"


def test_fastercache_has_what_it_reuses_however_early_it_begins():
    """Two values of attention, and one guidance difference."""
    steps = FasterCache(first=0, guidance_first=0, guidance_interval=5)(tower(), 8).steps
    assert [step.branches for step in steps] == [2, 2, 1, 1, 1, 1, 2, 1]
    assert [bool(step.reuse) for step in steps] == [False] * 3 + [True, False, True, False, True]


def test_without_guidance_fastercache_reuses_attention_at_every_second_step():
    schedule = FasterCache(first=0.25)(replace(tower(), branches=1), 8)
    assert [step.label == "attention held" for step in schedule.steps] == [False] * 3 + [
        True, False, True, False, True,
    ]  # fmt: skip
    assert all(step.cfg_delta is None for step in schedule.steps)
    assert "guidance" not in " ".join(reasons(schedule))


def test_pab_step_by_step():
    """Spatial attention every 2nd step, temporal every 4th, cross every 6th, from step 3 to 16 of 20."""
    schedule = PAB()(tower(), 20)

    def held(*kinds):
        return StepPlan(tower().attention_names(*kinds), label=f"held {len(kinds)}/3")

    all_three = held("spatial", "temporal", "cross")
    later, cross, temporal = held("temporal", "cross"), held("cross"), held("temporal")
    assert list(schedule.steps) == [
        *[FULL] * 3, all_three, cross, all_three, temporal, all_three, cross, all_three, later, all_three,
        FULL, all_three, later, all_three, cross, *[FULL] * 3,
    ]  # fmt: skip
    assert schedule.steps[12].reason == "pab: every attention is computed here"
    assert schedule.steps[10].reason == "pab: within the ranges of temporal, cross attention"


def test_pab_computes_the_first_step_whatever_is_skipped():
    steps = PAB(skip_first=0, skip_last=0)(tower(), 4).steps
    assert [step.label for step in steps] == ["full", "held 3/3", "held 2/3", "held 3/3"]


def test_fewer_steps_runs_the_stock_models():
    policy = FewerSteps(steps=3)
    schedule = policy(tower(), 3)
    step = StepPlan(label="stock")
    assert schedule == Schedule("fewer-steps", (step,) * 3, lossless=False, stock=True)
    assert reasons(schedule) == ["fewer-steps: 3 steps in all"] * 3
    assert policy.num_steps(25) == 3


def test_the_gate_step_by_step():
    schedule = GuidanceGate(at=0.4)(tower(), 5)
    assert list(schedule.steps) == [*[FULL] * 2, *[StepPlan(branches=1, label="gated")] * 3]
    assert reasons(schedule) == [
        *["before the gate at step 2"] * 2, *["after the gate at step 2: one branch"] * 3,
    ]  # fmt: skip
    unguided = GuidanceGate(at=0.4)(replace(tower(), branches=1), 5)
    assert reasons(unguided) == ["before the gate at step 5"] * 5, "the run ends before its gate"


def test_block_caching_holds_each_layer_until_its_own_changes_add_up(tmp_path):
    """Attention layers change by 0.2 a step, motion modules by 0.4, and 0.5 is what is borne."""
    unet = [*tower().names("attention"), *tower().names("motion")]
    rates = {name: 0.4 if "motion" in name else 0.2 for name in unet}
    path = write_changes(
        tmp_path / "rates.yaml", "tower", {n: (0.0, *[r] * 24) for n, r in rates.items()}
    )
    transformers, motions = (frozenset(tower().names(kind)) for kind in ("attention", "motion"))
    policy = BlockCaching(calibration=str(path), threshold=0.5)
    schedule = policy(tower(), 25)
    held = StepPlan(deltas=transformers, label="held 7/7")
    assert list(schedule.steps[:7]) == [FULL, held, held, FULL, held, held, FULL]
    said = "block-caching: {} of 7 layers changed less than 0.5 since they were computed"
    assert reasons(schedule)[:2] == [said.format(0), said.format(7)]
    both = policy.model_copy(update={"temporal": True})(tower(), 25)
    everything = StepPlan(deltas=transformers | motions, label="held 14/14")
    half = StepPlan(deltas=transformers, label="held 7/14")
    others = StepPlan(deltas=motions, label="held 7/14")
    assert list(both.steps[:5]) == [FULL, everything, half, others, half]


def test_block_caching_leaves_the_controlnet_alone(tmp_path):
    """Its transformers are no part of what is measured, so that no change of theirs is asked for."""
    first, *others = tower().layers
    other = replace(
        tower().by_name["unet.mid_block.attentions.0"], name="controlnet.attentions.0", inputs=()
    )
    graph = replace(tower(), layers=(first, other, *others))
    names = tower().names("attention")
    path = write_changes(tmp_path / "own.yaml", "tower", {n: (0.0, *[0.1] * 24) for n in names})
    steps = BlockCaching(calibration=str(path))(graph, 25).steps
    assert steps[1].deltas == set(names)


@pytest.mark.parametrize(
    ("name", "label", "reason", "stock"),
    [
        ("full", "full", "full: every step computes everything", False),
        ("off", "stock", "off: no cache", True),
    ],
)
def test_what_caches_nothing_computes_every_step_and_says_so(name, label, reason, stock):
    for branches in (1, 2):
        graph = replace(tower(), branches=branches)
        made = make_policy(name)(graph, 3)
        step = StepPlan(branches=branches, label=label)
        assert made == Schedule(name, (step,) * 3, lossless=False, stock=stock)
        assert reasons(made) == [reason] * 3
