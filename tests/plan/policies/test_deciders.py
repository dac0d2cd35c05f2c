"""What policies decide at run time, by hand: from plain numbers to the choice of a step and its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from hgc_video.errors import PresetError
from hgc_video.plan.policies.easycache import EasyCache
from hgc_video.plan.policies.hgc_online import HGCOnline
from hgc_video.plan.policies.sada import SADA
from hgc_video.plan.policies.ucache import UCache
from hgc_video.plan.schedule import StepPlan
from tests.plan.policies.test_policies import tower


@dataclass
class Measured:
    """What is measured at a step, as numbers."""

    change_of_input: float = 0.0
    change_of_output: float = 0.0
    size: float = 1.0
    criterion: float = 0.0
    drifted: float = 0.0
    computed_last: bool = True
    since_computed: float = 0.0

    def input_change(self) -> float:
        return self.change_of_input

    def input_change_since_computed(self) -> float:
        return self.since_computed

    def output_change(self) -> float:
        return self.change_of_output

    def output_size(self) -> float:
        return self.size

    def stability(self) -> float:
        return self.criterion

    def drift(self) -> float:
        return self.drifted


def decided(plan, *measured):
    """The choice of every step, and the reasons; what is measured where a step has none is nothing."""
    decide, choices, reasons = plan.start(), [], []
    for i, of_step in enumerate(plan.choices):
        found = measured[i] if i < len(measured) else Measured()
        found.computed_last = not choices or choices[-1] == 0
        decision = decide(len(of_step), found)
        assert decision.choice < len(of_step)
        choices.append(decision.choice)
        reasons.append(decision.reason)
    return choices, reasons


FULL, RESIDUALS = StepPlan(), frozenset(tower().residuals())
SKIPPED = StepPlan(RESIDUALS, frozenset({"unet"}), label="skipped")


def carried_out(plan, *measured):
    """The reasons of the steps of a run, the plan's own and the decider's."""
    choices, reasons = decided(plan, *measured)
    return [
        of_step[choice].because(reason).reason
        for of_step, choice, reason in zip(plan.choices, choices, reasons, strict=True)
    ]


def test_easycaches_steps_are_computed_or_what_the_last_one_added_is_added():
    """A skipped step runs neither the UNet nor the ControlNet; the first ones and the last have no choice."""
    plan = EasyCache(warm_up=2)(tower(), 5)
    assert plan.choices == ((FULL,), (FULL,), (FULL, SKIPPED), (FULL, SKIPPED), (FULL,))
    first, unknown = (
        "easycache: one of the first 2 steps",
        "easycache: no rate of change is known yet",
    )
    assert carried_out(plan) == [first, first, unknown, unknown, "easycache: the last step"]
    assert (plan.name, plan.lossless) == ("easycache", False)


def test_easycache_computes_when_the_changes_since_add_up_to_the_threshold():
    plan = EasyCache(threshold=0.1, warm_up=2)(tower(), 7)
    assert [len(choices) for choices in plan.choices] == [1, 1, 2, 2, 2, 2, 1]
    steps = [
        Measured(0.0),
        *(Measured(0.2, 0.4, 10.0) for _ in range(5)),
    ]  # the output changes 2 for 1
    choices, reasons = decided(plan, *steps)
    assert choices == [0, 0, 1, 1, 0, 1, 0]
    assert reasons[2:5] == [
        "easycache: change 0.04 < 0.1", "easycache: change 0.08 < 0.1", "easycache: change 0.12 >= 0.1",
    ]  # fmt: skip
    assert reasons[5] == "easycache: change 0.04 < 0.1", "what was added up begins anew"
    exactly = [
        Measured(0.0),
        *(Measured(0.25, 0.25, 2.5) for _ in range(5)),
    ]  # to 0.1, which is enough
    assert decided(plan, *exactly)[0] == [0, 0, 0, 0, 0, 0, 0]


def test_easycache_computes_until_it_knows_how_the_output_follows_the_input():
    plan = EasyCache(threshold=100.0, warm_up=1)(tower(), 5)
    choices, reasons = decided(plan, Measured(0.0), Measured(0.2), Measured(0.2, 0.4))
    assert choices == [0, 0, 1, 1, 0] and "no rate of change is known yet" in reasons[1]
    still = [Measured(0.0), *(Measured(0.2, 0.0) for _ in range(4))]
    assert decided(plan, *still)[0] == [0] * 5, "an output that does not move tells no rate"


def test_hgc_online_computes_a_key_step_when_the_outermost_block_has_drifted():
    plan = HGCOnline(dense=0.2, gate=0.6, threshold=0.3, max_consecutive=3)(tower(), 10)
    assert [len(choices) for choices in plan.choices] == [1, 1, 2, 2, 2, 1, 1, 2, 2, 2]
    assert [choices[0].branches for choices in plan.choices] == [2] * 6 + [1] * 4
    drifts = [9.0, 9.0, 9.0, 0.3, 0.31, 0.0, 0.0, 0.1, 0.2, 0.0]
    choices, reasons = decided(plan, *(Measured(drifted=drift) for drift in drifts))
    # The first partial step is beside its key step; 0.3 is not above the threshold, 0.31 is.
    assert choices == [0, 0, 1, 1, 0, 0, 0, 1, 1, 1]
    assert reasons[3:5] == ["hgc-online: drift 0.3 <= 0.3", "hgc-online: drift 0.31 > 0.3"]
    few = HGCOnline(dense=0.1, gate=1, max_consecutive=2)(tower(), 8)
    choices, reasons = decided(few)
    assert choices == [0, 1, 1, 0, 1, 1, 0, 1]
    assert reasons[3] == "hgc-online: key step after 2 partial steps"


def test_hgc_onlines_steps_are_key_or_partial_ones_with_one_branch_after_the_gate():
    """The hint is encoded once, and the step before the gate keeps what is read after it."""
    plan = HGCOnline(depth=2, dense=0.2, gate=0.5)(tower(), 6)
    cross, hint = tower().attention_names("cross"), frozenset({"controlnet.hint"})
    block = frozenset({tower().depths[1]})
    key, partial = StepPlan(hint, label="key"), StepPlan(hint | block, label="depth 2")
    gated = StepPlan(hint | cross, branches=1, label="key gated")
    small = StepPlan(hint | cross | block, branches=1, label="depth 2 gated")
    assert plan.choices == (
        (StepPlan(label="key"),), (key, partial), (replace(key, average_branches=cross),), (gated,),
        (gated, small), (gated, small),
    )  # fmt: skip
    assert (plan.name, plan.lossless) == ("hgc-online", True)
    gate, once = "after the gate at step 3: one branch", "lossless: the hint was encoded at step 0"
    assert carried_out(plan) == [
        "hgc-online: one of the first 1 steps; lossless: the hint is encoded here",
        f"{once}; hgc-online: drift 0 <= 0.1",
        f"hgc-online: the gate; {once}",
        f"{gate}; hgc-online: the gate; {once}",
        *[f"{gate}; {once}; hgc-online: drift 0 <= 0.1"] * 2,
    ]


def test_hgc_online_counts_partial_steps_anew_after_a_drift():
    plan = HGCOnline(dense=0.1, gate=1, threshold=0.1, max_consecutive=2)(tower(), 8)
    choices, reasons = decided(plan, *(Measured(drifted=0.2 if i == 2 else 0.0) for i in range(8)))
    assert choices == [0, 1, 0, 1, 1, 0, 1, 1]
    assert reasons[2] == "hgc-online: drift 0.2 > 0.1"
    assert reasons[0] == "", "the plan says it already"


def test_hgc_onlines_gate_leaves_guidance_to_one_step_or_more():
    plan = HGCOnline(gate=0.01)(tower(), 8)
    assert [choices[0].branches for choices in plan.choices] == [2] + [1] * 7


def test_hgc_online_computes_as_many_of_the_last_layers_as_the_up_path_has():
    deepest = HGCOnline(depth=4)(tower(), 8).choices[1][1]
    assert deepest.reuse == {"controlnet.hint", tower().depths[3]}
    with pytest.raises(PresetError, match="depth=5 is not possible; this model has depths 1 to 4"):
        HGCOnline(depth=5)(tower(), 8)


def test_sada_skips_by_its_criterion_first_and_by_a_polynomial_later():
    plan = SADA(start=0.2, fixed=0.5, end=0.9, max_consecutive=2, interval=4)(tower(), 20)
    lengths = [len(choices) for choices in plan.choices]
    assert lengths == [1] * 5 + [2] * 8 + [1] + [2] * 3 + [1] + [2] + [1]
    measured = [Measured(criterion=0.1 if i == 6 else 0.0) for i in range(20)]
    choices, reasons = decided(plan, *measured)
    assert choices[:11] == [0, 0, 0, 0, 0, 1, 0, 1, 1, 0, 1]
    assert reasons[6] == "sada: criterion 0.1 > 0" and reasons[7] == "sada: criterion 0 <= 0"
    assert reasons[9] == "sada: computed after 2 skipped steps"
    assert all("polynomial" in reasons[i] for i in range(11, 20) if choices[i])
    through = plan.choices[12][1]
    assert through.label == "lagrange" and [node % 4 for node, _ in through.clean] == [1, 1, 1]
    assert sum(value for _, value in through.clean) == pytest.approx(1)
    assert plan.choices[8][1].clean == ((7, 1.0),)


def test_sadas_steps_hold_the_step_before_and_then_lie_on_a_polynomial():
    """What is decided is decided after a step, so that every share of the run ends one step later."""
    plan = SADA(start=0.2, fixed=0.5, end=0.8, interval=3, terms=3)(tower(), 15)
    outside = "sada: not among the steps 4 to 12"
    assert [choices[0].reason for choices in plan.choices] == [
        *[outside] * 4, *[""] * 6, "sada: one step in 3 is computed", "", "", *[outside] * 2,
    ]  # fmt: skip
    assert {choices[0] for choices in plan.choices} == {FULL}
    for i in range(4, 9):
        held = StepPlan(RESIDUALS, clean=((i - 1, 1.0),), label="held")
        assert plan.choices[i] == (FULL, held)
    # Through steps 1, 4 and 7, at 9: 5*2/(3*6), -8*2/(3*3) and 8*5/(6*3).
    clean = ((1, 0.555555556), (4, -1.777777778), (7, 2.222222222))
    assert plan.choices[9] == (FULL, StepPlan(RESIDUALS, clean=clean, label="lagrange"))
    assert [node for node, _ in plan.choices[12][1].clean] == [4, 7, 10]
    assert (plan.name, plan.lossless) == ("sada", False)
    assert decided(plan)[1][:4] == [""] * 4, "the plan says it already"


def test_sada_looks_back_over_the_latents_of_four_steps():
    """However early it is asked to begin; with the polynomial too."""
    plan = SADA(start=0, fixed=0, end=1)(tower(), 8)
    assert [len(choices) for choices in plan.choices] == [1] * 4 + [2, 1, 2, 2]
    assert plan.choices[4][1].label == "lagrange"


def test_sada_skips_no_more_in_a_row_than_is_asked_for():
    """With one of six computed for the polynomial, and another one after every two of the five between."""
    plan = SADA(start=0, fixed=0, end=1, interval=6, max_consecutive=2)(tower(), 14)
    choices, reasons = decided(plan)
    assert choices[7:14] == [0, 1, 1, 0, 1, 1, 0]
    assert reasons[8:11] == [
        *["sada: the polynomial through earlier steps"] * 2,
        "sada: computed after 2 skipped steps",
    ]


def test_ucaches_steps_are_computed_or_what_the_last_one_added_is_added():
    """From 15 % to 95 % of 20 steps; of these the first two tell how the output follows the input."""
    plan = UCache()(tower(), 20)
    assert plan.choices == ((FULL,),) * 5 + ((FULL, SKIPPED),) * 14 + ((FULL,),)
    assert (plan.name, plan.lossless) == ("ucache", False)
    outside, unknown = (
        "ucache: not among the steps 3 to 18",
        "ucache: no rate of change is known yet",
    )
    said = carried_out(plan)
    assert said == [outside] * 3 + [unknown] * 16 + [outside]


def test_ucache_adds_up_errors_that_count_more_the_longer_nothing_was_computed():
    """A rate of 0.25 / 0.5 = 1/2 and a scale of sqrt(1/4 * 1/4): twice the input's change since then, times
    1, 1.5 and 2, adds up to 2.5."""
    plan = UCache(threshold=2.5, start=0.2, end=0.9, gain=1)(tower(), 10)
    before_the_range = Measured(change_of_output=9.0, size=0.25, since_computed=0.5)
    still = Measured(change_of_output=0.0, size=0.25, since_computed=0.125)
    steps = [Measured()] * 3 + [
        before_the_range,  # the first step of the range is not compared with one outside of it
        *(Measured(change_of_output=0.25, size=0.25, since_computed=k / 8) for k in (1, 2, 3)),
        still,  # tells no other rate
        Measured(change_of_output=0.25, size=0.25, since_computed=0.25),
    ]
    choices, reasons = decided(plan, *steps)
    assert choices == [0, 0, 0, 0, 1, 1, 0, 1, 1, 0]
    assert reasons[4:] == [
        "ucache: error 0.25 < 2.5", "ucache: error 1 < 2.5", "ucache: error 2.5 >= 2.5",
        "ucache: error 0.25 < 2.5", "ucache: error 1 < 2.5", "",
    ]  # fmt: skip


def test_ucache_computes_where_the_latents_have_not_moved():
    """And takes no rate from there, as nothing can be divided by it."""
    plan = UCache(threshold=2.5, start=0.2, end=0.9, gain=1)(tower(), 10)
    moves = [0.5, 0.0, 0.125]
    steps = [Measured()] * 3 + [Measured(0, 0.25, 0.25, since_computed=moved) for moved in moves]
    choices, reasons = decided(plan, *steps)
    assert choices[3:6] == [0, 0, 1] and reasons[5] == "ucache: error 0.25 < 2.5"


def test_ucaches_threshold_is_tighter_early_and_looser_late():
    """By the share of the steps that were computed: under a fifth, and over four fifths."""
    plan = UCache(threshold=1, start=0, end=1)(tower(), 20)
    found = decided(plan, *(Measured(0, 1e3, 1.0, since_computed=1.0) for _ in range(20)))[1]
    said = [reason.partition(" >= ")[2] for reason in found]
    assert said == ["", ""] + ["0.5"] * 2 + ["1"] * 13 + ["1.5"] * 3
