"""HGC's schedules by hand: key steps and why, what the others reuse, before and after the gate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hgc_video.errors import PresetError
from hgc_video.plan.policies.hgc import HGC
from hgc_video.plan.schedule import Anchors
from tests.plan.policies.test_policies import tower, write_changes

CROSS = tower().attention_names("cross")
DEEP = frozenset({tower().depths[1]})  # the input of the last two up layers
HINT = frozenset({"controlnet.hint"})


def told(step):
    """What a step does, without what the lossless savings add to it."""
    reason = step.reason.partition("; lossless")[0]
    return step.reuse - HINT, step.branches, step.average_branches, step.label, reason


def test_key_steps_and_what_lies_between_them_before_and_after_the_gate():
    """10 steps: the first 2, every 3rd, and both at the gate (step 6) are key steps."""
    steps = HGC(dense=0.2, interval=3, depth=2, gate=0.6)(tower(), 10).steps
    none, after = frozenset(), "; after the gate at step 6: one branch"
    between = "hgc: the last 2 up layers, the rest is reused from step "
    assert [told(step) for step in steps] == [
        (none, 2, none, "key", "hgc: key step, one of the first 2 steps"),
        (none, 2, none, "key", "hgc: key step, one of the first 2 steps"),
        (DEEP, 2, none, "depth 2", f"{between}1"),
        (DEEP, 2, none, "depth 2", f"{between}1"),
        (none, 2, none, "key", "hgc: key step, every 3 steps"),
        (none, 2, CROSS, "key", "hgc: key step, the last step before the gate at step 6"),
        (CROSS, 1, none, "key gated", f"hgc: key step, the gate: step 6{after}"),
        (DEEP | CROSS, 1, none, "depth 2 gated", f"{between}6{after}"),
        (DEEP | CROSS, 1, none, "depth 2 gated", f"{between}6{after}"),
        (CROSS, 1, none, "key gated", f"hgc: key step, every 3 steps{after}"),
    ]
    assert {step.cfg_delta for step in steps} == {None}


def test_the_guidance_difference_is_kept_between_steps_of_both_branches():
    """8 steps, the gate at step 4: both branches at 4 and 6, the difference in between, cross-attention
    computed for the branch that is left."""
    steps = HGC(dense=0, interval=4, depth=2, gate=0.5, difference_interval=2)(tower(), 8).steps
    none, after = frozenset(), "; after the gate at step 4: one branch"
    between = "hgc: the last 2 up layers, the rest is reused from step "
    assert [told(step) for step in steps] == [
        (none, 2, none, "key", "hgc: key step, one of the first 1 steps"),
        (DEEP, 2, none, "depth 2", f"{between}0"),
        (DEEP, 2, none, "depth 2", f"{between}0"),
        (none, 2, none, "key", "hgc: key step, the last step before the gate at step 4"),
        (none, 2, none, "key guided", "hgc: key step, the gate: step 4"),
        (DEEP, 1, none, "depth 2 gated", f"{between}4{after}"),
        (none, 2, none, "key guided", "hgc: key step, every 2 steps after the gate"),
        (DEEP, 1, none, "depth 2 gated", f"{between}6{after}"),
    ]
    assert [step.cfg_delta for step in steps] == [None] * 5 + [(1.0, 1.0), None, (1.0, 1.0)]


def test_cross_attention_rests_beside_what_a_partial_step_reuses():
    steps = HGC(dense=0, interval=4, depth=1, gate=1, cross_interval=2)(tower(), 4).steps
    last = frozenset({tower().depths[0]})
    assert [step.reuse - HINT for step in steps] == [frozenset(), last | CROSS, last, last | CROSS]
    assert steps[1].reason.startswith("hgc: the last up layer, the rest is reused from step 0")
    assert {step.branches for step in steps} == {2}


def test_a_gate_needs_guidance_and_leaves_it_one_step():
    gated = HGC(dense=0, interval=3, gate=0.01)(tower(), 6).steps
    assert [step.branches for step in gated] == [2, 1, 1, 1, 1, 1]
    assert gated[0].average_branches == CROSS
    alone = HGC(dense=0, interval=3, gate=0.5)(replace(tower(), branches=1), 6).steps
    assert {step.branches for step in alone} == {1}
    assert [step.label for step in alone] == ["key", "depth 2", "depth 2"] * 2


@pytest.mark.parametrize(
    ("online", "slopes", "follows"),
    [
        (False, {4: 0.166667, 5: 0.333333, 7: 0.166667}, {}),
        (True, {4: 0.5, 5: 0.5, 7: 0.5}, {4: (0, 3), 5: (0, 3), 7: (3, 6)}),
    ],
)
def test_slopes_between_key_steps_that_have_two_behind_them(online, slopes, follows):
    """Key steps 0, 3 and 6: half of the step's share of what changed from one to the next is added."""
    steps = HGC(dense=0, interval=3, depth=2, gate=1, slope=0.5, online=online)(tower(), 8).steps
    for i, step in enumerate(steps):
        slope = slopes.get(i)
        assert step.extrapolate == (frozenset() if slope is None else DEEP)
        assert step.coefficients == (() if slope is None else (1 + slope, -slope))
        assert step.latent_progress == follows.get(i)
    assert "; extrapolated from steps 0 and 3 with weight " + f"{slopes[5]:g}" in steps[5].reason


def test_a_share_of_the_layers_that_are_computed_adds_what_it_added_before():
    """The last three up layers hold six attentions and motion modules; the earlier half of them rests."""
    steps = HGC(dense=0, interval=2, depth=3, gate=1, lambda_intra=0.5, slope=1)(tower(), 4).steps
    resting = {
        "unet.up_blocks.0.attentions.1", "unet.up_blocks.0.motion_modules.1",
        "unet.up_blocks.1.attentions.0",
    }  # fmt: skip
    assert [step.deltas for step in steps] == [frozenset(), resting, frozenset(), resting]
    assert steps[3].extrapolate == resting | {tower().depths[2]}
    sparse = {"dense": 0, "interval": 2, "depth": 3, "lambda_intra": 0.5}
    # None rests where cross-attention is averaged or both branches are computed again.
    averaged = HGC(**sparse, gate=0.5)(tower(), 4).steps
    assert averaged[1].average_branches == CROSS and averaged[1].deltas == frozenset()
    gated = HGC(**sparse, gate=0.5, difference_interval=3)(tower(), 8).steps
    assert [bool(step.deltas) for step in gated] == [0, 1, 0, 0, 0, 1, 0, 0]
    assert gated[5].deltas == resting and gated[5].branches == 1


@pytest.mark.parametrize(
    ("difference", "own"), [(0, [0, 3, 4, 8]), (3, [0, 3, 4, 7]), (2, [0, 3, 4, 6, 8])]
)
def test_the_controlnet_runs_at_every_other_key_step_anew_after_the_gate(difference, own):
    """Key steps 0, 2, 3 before the gate at step 4; after it 4, 6 and 8, or with the difference kept 4, 6 and
    7, of which 4 and 7 compute both branches and need residuals for both; or 4, 6 and 8, which all do."""
    fields = {"dense": 0, "interval": 2, "gate": 0.5, "controlnet_interval": 2}
    steps = HGC(**fields, difference_interval=difference)(tower(), 9).steps
    why = "; the ControlNet runs at one key step in 2"
    resting = [i for i, step in enumerate(steps) if step.reuse.issuperset(tower().residuals())]
    assert resting == [i for i in range(9) if i not in own]
    assert [why in step.reason for step in steps] == [i not in own for i in range(9)]


def test_key_steps_where_the_calibrated_change_is_above_the_threshold(tmp_path):
    """Changes of 0.2 a step are above 0.9 at every fifth step after the last one that was computed."""
    changes = {layer.name: (0.0, *[0.2] * 24) for layer in tower().layers}
    path = write_changes(tmp_path / "changes.yaml", "tower", changes)
    policy = HGC(dense=0.08, threshold=0.9, calibration=str(path), depth=2, gate=1)
    steps = policy(tower(), 25).steps
    assert [i for i, step in enumerate(steps) if step.label == "key"] == [0, 1, 6, 11, 16, 21]
    assert "hgc: key step, calibrated change above 0.9" in steps[6].reason


@pytest.mark.parametrize(("stride", "anchors"), [(1, None), (2, Anchors(2)), (4, Anchors(4))])
def test_anchor_frames(stride, anchors):
    assert HGC(anchor_stride=stride)(tower(), 4).anchors == anchors


def test_depths_that_the_model_has():
    HGC(depth=4)(tower(), 4)
    with pytest.raises(PresetError, match="depth=5 is not possible; this model has depths 1 to 4"):
        HGC(depth=5)(tower(), 4)
    whole_blocks = HGC(lambda_inter=1.0, gate=1, dense=0, interval=2)(tower(), 2).steps[1]
    assert tower().depths[3] in whole_blocks.reuse
