"""What policies decide at run time, by hand: from plain numbers to the choice of a step and its reason."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from hgc_video.plan.policies.easycache import EasyCache
from hgc_video.plan.policies.hgc_online import HGCOnline
from hgc_video.plan.policies.sada import SADA
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

    def input_change(self) -> float:
        return self.change_of_input

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
