"""Checkpoints are planned where least is kept, often enough, against trying every row of steps."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgc_video.forecast import forecast
from hgc_video.plan.checkpoints import (
    CheckpointPlan,
    checkpoint_steps,
    macs_by_step,
    nbytes_by_step,
    plan_checkpoints,
)

FIXED = 5_000_000


def allowed(steps, seconds, every_s, since_s):
    """Whether no two of a row of checkpoints are further apart than they must be."""
    last, passed = 0, since_s
    for i, step_s in enumerate(seconds):
        passed += step_s
        if passed > every_s and last < i:
            return False
        if i in steps:
            last, passed = i + 1, 0.0
    return True


@given(
    st.lists(
        st.tuples(st.integers(0, 10**8), st.sampled_from([1.0, 2.0, 5.0])), min_size=1, max_size=7
    ),
    st.sampled_from([2.0, 4.0, 7.0, 100.0]),
    st.sampled_from([0.0, 3.0]),
)
def test_what_is_chosen_writes_least_of_all_that_is_allowed(told, every_s, since_s):
    nbytes, seconds = zip(*told, strict=True)
    n = len(nbytes)
    rows = [
        (*some, n - 1)
        for k in range(n)
        for some in combinations(range(n - 1), k)
        if allowed((*some, n - 1), seconds, every_s, since_s)
    ]
    written = {row: sum(nbytes[i] + FIXED for i in row) for row in rows}
    found = checkpoint_steps(nbytes, seconds, every_s, since_s)
    assert found in written and written[found] == min(written.values())


def test_key_steps_of_a_schedule_are_avoided():
    """Where a later step reads what a key step leaves, the checkpoint waits until it is read."""
    plan = forecast(preset="deepcache:interval=5", num_inference_steps=25)
    nbytes = nbytes_by_step(plan)
    chosen = plan_checkpoints(plan, sum(plan.macs_by_part.values()) / 100, 30)
    assert chosen.run_s == pytest.approx(100) and chosen.steps[-1] == 24
    assert 4 <= len(chosen.steps) <= 5, "three of 30 s are too few for 100 s"
    assert all(nbytes[i] == min(nbytes[i - 2 : i + 3]) for i in chosen.steps[:-1])
    assert "after steps" in str(chosen) and "MiB in all" in str(chosen)


def test_bytes_and_macs_of_every_step_are_those_of_all_windows():
    """40 frames in 3 windows of 16, which move at steps 2 and 3 and are 4 then."""
    plan = forecast(preset="deepcache:interval=2", num_inference_steps=6, num_frames=40)
    assert plan.moves == (False, False, True, True, False, False)
    cache = nbytes_by_step(plan, 0)
    # What a step keeps for the next one that reads it: nothing where the next one computes all.
    per_window = cache[0] // 3
    assert cache == [3 * per_window, 0, 4 * per_window, 0, 3 * per_window, 0] and per_window > 0
    told = nbytes_by_step(plan, 1000)
    assert [t - c for t, c in zip(told, cache, strict=True)] == [3000] * 5 + [1000]
    one = plan.graph.by_name[plan.graph.output].nbytes  # of the 16 frames of a window
    assert nbytes_by_step(plan) == nbytes_by_step(plan, one * 40 // 16)
    assert all(isinstance(n, int) for n in nbytes_by_step(plan))
    macs = macs_by_step(plan)
    assert sum(macs) == sum(plan.macs_by_part.values())
    assert macs[0] == macs[4] < macs[2] and macs[1] == macs[5] < macs[3]


def test_latents_of_another_size_are_told():
    plan = forecast(preset="deepcache:interval=2", num_inference_steps=4)
    (of_file,) = {plan_checkpoints(plan, 1e12, 1e9, 1000).nbytes}
    assert of_file == (1000,)


def test_a_plan_of_checkpoints_says_what_it_costs():
    several = CheckpointPlan((1, 4), (2 << 20, 5 << 20), every_s=2.5, run_s=12.34)
    assert str(several) == (
        "after steps 1, 4 (at least every 2.5 s of 12.3 s): 5.0 MiB at most, 7.0 MiB in all, written beside "
        "the run in 0.035 s at most, at 0.5 GB/s, assumed"
    )
    assert several.to_dict() == {
        "steps": (1, 4), "nbytes": (2 << 20, 5 << 20), "every_s": 2.5, "run_s": 12.34,
        "write_s": pytest.approx(((7 << 20) + 2 * FIXED) / 5e8),
    }  # fmt: skip
    assert str(CheckpointPlan((4,), (3 << 19,), 2.5, 12.34)).startswith("after step 4 (at least")
