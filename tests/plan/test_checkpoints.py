"""Checkpoints are planned where least is kept, often enough, against trying every row of steps."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgc_video.forecast import forecast
from hgc_video.plan.checkpoints import (
    checkpoint_steps,
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
