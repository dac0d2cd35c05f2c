"""A step's access to the store: by run and window, as many values as are read, extrapolated as planned."""

from __future__ import annotations

from threading import get_ident

import pytest
import torch

from hgc_video.cache.current_step import CurrentStep
from hgc_video.cache.drift import Observer
from hgc_video.cache.overflow import OverflowGuard
from hgc_video.cache.prepared import PreparedSchedule
from hgc_video.cache.store import Store
from hgc_video.errors import CacheStateError
from hgc_video.plan.liveness import delta
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.plan.test_graph import ladder

DEEP = frozenset({"unet.deep"})
FAR = StepPlan(DEEP, extrapolate=DEEP, coefficients=(1.5, -0.5))
ADDED = StepPlan(deltas=DEEP, extrapolate=DEEP, coefficients=(1.5, -0.5))


class Run:
    """Steps of a schedule on the ladder, or on another graph, over one store."""

    def __init__(self, *steps, store=None, number=1, graph=None):
        self.store, self.number = store or Store(), number
        schedule = Schedule("test", steps)
        self.prepared = PreparedSchedule(schedule, graph or ladder())
        self.overflow = OverflowGuard(schedule)

    def at(self, index, window=0, frames=1):
        step = CurrentStep(self.store, self.number, index, window, self.overflow)
        step.prepared, step.frames = self.prepared.at(index, window, Observer()), frames
        return step


def rows(*numbers):
    return torch.tensor(numbers)[:, None]


def test_before_its_first_model_is_called_nothing_is_known_of_a_step():
    step = CurrentStep(Store(), 1, 3, 5, OverflowGuard(Schedule("test", (StepPlan(),))))
    assert (step.index, step.window, step.thread) == (3, 5, get_ident())
    assert (step.prepared, step.calls, step.frames, step.progress) == (None, {}, 0, None)
    assert [step.whole_stand_ins, step.guess_mode, step.inputs_changed] == [False] * 3
    assert step.zero.numel() == 0
    for ask in (lambda: step.work, lambda: step.branches, lambda: step.read("unet.deep")):
        with pytest.raises(CacheStateError, match="no model was called yet at step 3"):
            ask()


def test_values_are_those_of_the_run_and_the_window():
    run = Run(StepPlan(), StepPlan(DEEP))
    step = run.at(0)
    assert not step.holds("unet.deep") and step.values("unet.deep") == ()
    step.put("unet.deep", rows(1.0, 2.0))
    ((tensor, branches, frames),) = run.at(1).values("unet.deep")
    assert (tensor.flatten().tolist(), branches, frames) == ([1, 2], 2, 1)
    assert run.at(1).holds("unet.deep") and not run.at(1).holds("unet.in")
    assert not run.at(1, window=1).holds("unet.deep")
    assert not Run(StepPlan(), store=run.store, number=2).at(0).holds("unet.deep")


def test_what_is_read_is_extrapolated_where_the_plan_says_so_of_the_layer():
    deep = Run(StepPlan(), StepPlan(), FAR)
    for index, number in enumerate((2.0, 4.0)):
        deep.at(index).put("unet.deep", rows(number, 2 * number))
    assert len(deep.at(2).values("unet.deep")) == 2
    assert deep.at(2).read("unet.deep").flatten().tolist() == [5, 10]  # 4 + 0.5 * (4 - 2)
    assert deep.at(2).read("unet.deep", "unet.in").flatten().tolist() == [4, 8], "the last value"
    added = Run(StepPlan(), StepPlan(), ADDED)
    for index, number in enumerate((2.0, 4.0)):
        added.at(index).put(delta("unet.deep"), rows(number, 2 * number))
    assert added.at(2).read(delta("unet.deep"), "unet.deep").flatten().tolist() == [5, 10]
    assert added.at(2).read(delta("unet.deep")).flatten().tolist() == [4, 8]


def test_what_is_extrapolated_goes_as_far_as_the_latents_have():
    run = Run(StepPlan(), StepPlan(), FAR)
    for index, number in enumerate((2.0, 4.0)):
        run.at(index).put("unet.deep", rows(number, 2 * number))
    step = run.at(2)
    step.progress = torch.tensor([3.0])
    assert step.read("unet.deep").flatten().tolist() == [7, 14]  # 4 + 3 * 0.5 * (4 - 2)


def test_after_a_gate_the_prompts_branch_alone_is_read():
    run = Run(StepPlan(), StepPlan(DEEP, branches=1))
    run.at(0).put("unet.deep", rows(1.0, 2.0))
    assert (run.at(0).branches, run.at(1).branches) == (2, 1)
    assert run.at(1).read("unet.deep").flatten().tolist() == [2]


def test_what_is_the_same_for_all_branches_is_put_and_read_as_one():
    run = Run(StepPlan(), StepPlan(DEEP))
    run.at(0).put("unet.deep", rows(3.0), 1)
    assert run.at(1).values("unet.deep")[0].branches == 1
    assert run.at(1).read_one_branch("unet.deep").flatten().tolist() == [3]
    with pytest.raises(CacheStateError, match="made for 1 branch is read for 2"):
        run.at(1).read("unet.deep")
    for read in ("read", "read_one_branch"):
        with pytest.raises(CacheStateError, match="stored for 1 rows and is read for 3"):
            getattr(run.at(1, frames=3), read)("unet.deep")


def test_stand_ins_have_rows_only_where_a_block_joins_them_with_what_is_computed():
    run = Run(StepPlan(), StepPlan(DEEP, branches=1))
    assert run.at(0, frames=4).stand_in_rows == 0
    for index, expected in ((0, 8), (1, 4)):  # both branches, and the prompt's
        step = run.at(index, frames=4)
        step.whole_stand_ins = True
        assert step.stand_in_rows == expected


def test_what_is_kept_in_half_precision_is_watched_by_window():
    run = Run(StepPlan(), StepPlan(), FAR)
    for index in range(2):
        run.at(index, window=7).put("unet.deep", rows(6e4, -6e4).half())
        run.overflow.sent()
    assert run.overflow.exceeded_by({7}, FAR, DEEP, 2) == "unet.deep"
    assert run.overflow.exceeded_by({0}, FAR, DEEP, 2) == ""
