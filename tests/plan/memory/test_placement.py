"""Where idle windows' caches live: what a plan without them keeps and costs."""

from __future__ import annotations

import pytest

from hgc_video.plan.cost import cost, full_cost
from hgc_video.plan.memory.placement import recomputed
from hgc_video.plan.presets import resolve
from hgc_video.plan.validate import check
from tests.plan.policies.test_policies import tower

STEPS = 25


@pytest.mark.parametrize(
    "policy",
    [
        "balanced", "turbo", "tgate:gate=10", "fastercache",
        "hgc:interval=3,cut=1,gate=0.6,slope=0.5,online=true",
    ],
)  # fmt: skip
def test_a_plan_that_computes_again_keeps_nothing_and_drops_the_same_branches(policy):
    graph = tower()
    schedule = resolve(policy).schedule(graph, STEPS)
    again = check(recomputed(schedule), graph)
    assert set(cost(graph, again).nbytes) == {0}
    assert full_cost(graph, STEPS).total >= cost(graph, again).total > cost(graph, schedule).total
    guided = [step.branches == 2 or step.cfg_delta is not None for step in schedule.steps]
    assert [step.branches == 2 for step in again.steps] == guided
