"""A plan made ready: what runs, is read and is kept at a step, and how a run's choices go on."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch

from hgc_video.cache.drift import Observer
from hgc_video.cache.prepared import PreparedSchedule, PreparedStep
from hgc_video.errors import PlanError
from hgc_video.plan.adaptive import AdaptivePlan, Decision
from hgc_video.plan.graph import PREDICTION, BlockGraph, Layer
from hgc_video.plan.liveness import Live, clean_at, delta, latents_at, live
from hgc_video.plan.schedule import Anchors, Schedule, StepPlan
from tests.plan.test_graph import ladder

DEEP, HINT = frozenset({"unet.deep"}), "controlnet.hint"
FAR = StepPlan(DEEP, extrapolate=DEEP, coefficients=(1.5, -0.5), label="far")


def works(plan, graph=None, windows=(0,)):
    """What is done at each step of a fresh run."""
    prepared = PreparedSchedule(plan, graph or ladder())
    return [prepared.at(i, w, Observer()) for i in range(len(plan)) for w in windows]


def schedule(*steps, **options):
    return Schedule("test", steps, **options)


def test_a_step_runs_what_is_live_and_keeps_what_a_later_one_reads():
    plan = schedule(StepPlan(), StepPlan(), FAR)
    first, second, third = works(plan)
    assert (first.index, second.index, third.index) == (0, 1, 2) and third.step == FAR
    assert third.live == live(ladder(), FAR)
    assert [dict(work.keep) for work in (first, second, third)] == [
        {"unet.deep": 1}, {"unet.deep": 2}, {},
    ]  # fmt: skip
    assert all(work.keep == work.after and work.fullest for work in (first, second, third))


def test_macs_are_of_all_branches_and_without_a_text_that_is_shared():
    prepared = PreparedSchedule(schedule(*[StepPlan()] * 2, StepPlan(branches=1)), ladder())
    macs = [prepared.at(i, 0, Observer()).macs for i in range(3)]
    # 30 - 12 of the text, whose projection is counted where it runs.
    assert [m["unet.deep.attn2"] for m in macs] == [2 * 18, 2 * 18, 18]
    assert [m["unet.up"] for m in macs] == [20, 20, 10]
    assert [m[HINT] for m in macs] == [5] * 3
    (released,) = works(schedule(StepPlan(), lossless=False, anchors=Anchors(3)))
    assert released.macs["unet.deep.attn2"] == 2 * (18 + 12) * 2 // 4, "of two of four frames"


def test_without_the_lossless_savings_a_dead_net_runs():
    step = StepPlan(inactive_controlnets=frozenset({"controlnet"}))
    (saved,), (released,) = works(schedule(step)), works(schedule(step, lossless=False))
    assert saved.idle("controlnet") and not released.idle("controlnet")


def test_what_a_fixed_plan_reads_is_known_before_it_runs():
    prepared = PreparedSchedule(schedule(StepPlan(), StepPlan(), FAR), ladder())
    assert len(prepared) == 3 and not prepared.adaptive and not prepared.reads_clean
    assert [prepared.reads(i) for i in range(3)] == [{}, {}, {"unet.deep": 2}]
    clean = schedule(StepPlan(), StepPlan(clean=((0, 1.0),)))
    prepared = PreparedSchedule(clean, ladder())
    assert prepared.reads_clean and prepared.reads(1) == {clean_at(0): 1}
    dead = StepPlan(frozenset({"controlnet.zero"}), deltas=frozenset({PREDICTION}))
    for lossless, read in ((True, {}), (False, {"controlnet.zero": 1})):
        steps = (StepPlan(), StepPlan(dead.reuse, always_compute=dead.reuse, deltas=dead.deltas))
        prepared = PreparedSchedule(schedule(*steps, lossless=lossless), ladder())
        assert prepared.reads(1) == {delta(PREDICTION): 1, **read}


def test_a_plan_that_does_not_fit_the_graph_is_refused():
    with pytest.raises(PlanError, match=r"unet\.nowhere"):
        PreparedSchedule(schedule(StepPlan(), StepPlan(frozenset({"unet.nowhere"}))), ladder())


def step_of(computed=(), added=(), held=()):
    alive = Live(frozenset(computed), frozenset(added), frozenset(held), frozenset())
    return PreparedStep(0, StepPlan(), alive, {}, {}, {}, False, True)


def test_a_model_is_idle_where_nothing_of_it_is_computed_or_read():
    assert step_of().idle("unet")
    first = step_of(computed=["controlnet.nets.1.zero"])
    assert not first.idle("controlnet.nets.1") and first.idle("controlnet.nets.10")
    assert step_of(computed=["controlnet.nets.10.zero"]).idle("controlnet.nets.1")
    assert not step_of(held=["unet.up"]).idle("unet")
    assert not step_of(added=["unet.up"]).idle("unet")


def fork(*read, joined=("unet.a", "unet.b")):
    """in -> a and b, and c of what it joins; the last layer reads some of them."""
    layers = (
        Layer("controlnet.hint", "hint", ()),
        Layer("unet.time", "time", ()),
        Layer("unet.in", "conv_in", ("unet.time",)),
        Layer("unet.a", "attention", ("unet.in",)),
        Layer("unet.b", "resnet", ("unet.in", "unet.time")),
        Layer("unet.c", "attention", joined),
        Layer("unet.out", "conv_out", tuple(f"unet.{name}" for name in read)),
    )
    return BlockGraph(layers, (), 2, 4)


@pytest.mark.parametrize(
    ("read", "reuse", "deltas", "mixed"),
    [
        ("cba", "", "", False),  # all of it is computed
        ("cb", "c", "", True),  # the layer that is held is handed a dead a and a live b
        ("c", "c", "", False),  # nothing that it joins is live
        ("b", "", "", True),  # c is dead itself
        ("cba", "c", "", False),
        ("cba", "ca", "", False),  # a is held, so that both have all rows
        ("cba", "c", "a", False),  # or added to its input
        ("cba", "", "c", False),  # c gets its own input
    ],
)
def test_stand_ins_need_rows_where_a_dead_layer_joins_them_with_what_is_live(
    read, reuse, deltas, mixed
):
    step = StepPlan(names(reuse), deltas=names(deltas))
    assert works(schedule(StepPlan(), step), fork(*read))[1].mixed == mixed


def names(letters):
    return frozenset(f"unet.{letter}" for letter in letters)


@pytest.mark.parametrize("read", ["cb", "ca"])
def test_the_time_and_the_hint_are_joined_with_nothing(read):
    """Of c, which is held, they are inputs beside a: the time is live, and the hint is not."""
    graph = fork(*read, joined=("unet.a", "unet.time", "controlnet.hint"))
    assert not works(schedule(StepPlan(), StepPlan(names("c"))), graph)[1].mixed


def test_what_is_computed_is_joined_without_a_net_that_adds_nothing():
    step = StepPlan(inactive_controlnets=frozenset({"controlnet"}))
    (work,) = works(schedule(step))
    assert "unet.skip" in work.live.computed and not work.mixed


def test_a_step_that_must_not_extrapolate_keeps_the_latents_that_a_later_one_follows():
    follows = StepPlan(DEEP, extrapolate=DEEP, coefficients=(1.5, -0.5), latent_progress=(1, 2))
    prepared = PreparedSchedule(schedule(StepPlan(), StepPlan(), FAR, follows), ladder())
    work = [prepared.at(i, 0, Observer()) for i in range(3)][2]
    assert dict(prepared.computed(work, "why").keep) == {latents_at(2): 1}


def test_a_step_that_must_not_extrapolate_computes_and_keeps_as_planned():
    held = StepPlan(DEEP | {HINT}, extrapolate=DEEP, coefficients=(1.5, -0.5), label="far",
                    latent_progress=(0, 1), reason="test")  # fmt: skip
    plan = schedule(StepPlan(), StepPlan(), held, StepPlan(DEEP | {"unet.in", "controlnet.zero"}))
    prepared = PreparedSchedule(plan, ladder())
    work = [prepared.at(i, 0, Observer()) for i in range(3)][2]
    instead = prepared.computed(work, "why")
    step = instead.step
    assert step == StepPlan(frozenset({HINT})) and step.reason == "test; why"
    assert (instead.index, instead.fullest, instead.after) == (2, True, work.after)
    assert instead.live == live(ladder(), StepPlan(frozenset({HINT})))
    # Step 3 reads `deep` as step 1 left it, and what step 2 was to make of the rest.
    assert set(work.keep) == {"unet.deep", "unet.in", "controlnet.zero"}
    assert dict(instead.keep) == {"unet.in": 1, "controlnet.zero": 1}
    assert instead.macs["unet.deep"] == 2 * (100 - 20 - 30)


@pytest.mark.parametrize("whole", [{"deltas": frozenset({PREDICTION})}, {"clean": ((0, 1.0),)}])
def test_a_whole_step_that_must_not_extrapolate_computes_its_prediction(whole):
    step = StepPlan(frozenset({HINT}), branches=1, **whole)
    prepared = PreparedSchedule(schedule(StepPlan(), step), ladder())
    work = [prepared.at(i, 0, Observer()) for i in range(2)][1]
    assert work.live.computed == frozenset()
    instead = prepared.computed(work, "why")
    assert instead.step == StepPlan(frozenset({HINT}), branches=1)
    assert instead.live.computed == live(ladder(), instead.step).computed > {"unet.up"}


@dataclass
class Alternating:
    """Takes the last choice at every third step that it is asked about, and says how often it was."""

    asked: int = 0

    def __call__(self, count, signals):
        self.asked += 1
        taken = count - 1 if self.asked % 3 == 0 else 0
        return Decision(taken, f"asked {self.asked} of {count}", None, signals.output_size())


def adaptive():
    return AdaptivePlan("test", (*[(StepPlan(),)] * 2, *[(StepPlan(), FAR)] * 2), Alternating)


def test_a_plan_that_decides_does_so_by_window_and_says_why():
    prepared = PreparedSchedule(adaptive(), ladder())
    assert prepared.adaptive and prepared.reads(1) is None and len(prepared) == 4
    seen = Observer()
    seen.see_output(torch.tensor([-3.0, 5.0]))
    for index in (0, 1):
        assert all(prepared.at(index, window, seen).fullest for window in (0, 3))
    for window in (0, 3):
        work = prepared.at(2, window, seen)
        assert work.step == FAR and not work.fullest
        assert (work.step.reason, work.step.forecast_error) == ("asked 3 of 2", 4)
        assert work.keep["unet.deep"] == 2, "any later choice may read as many"
    assert prepared.at(3, 0, seen).fullest
    prepared.begin()
    assert prepared.at(0, 0, seen).step.reason == "asked 1 of 1"


def test_what_an_adaptive_plan_may_forecast_is_known():
    some = (StepPlan(), StepPlan(clean=((0, 1.0),)))
    plan = AdaptivePlan("test", ((StepPlan(),), some), Alternating)
    assert PreparedSchedule(plan, ladder()).reads_clean


def test_a_run_that_goes_on_decides_as_it_would_have():
    first, other = (PreparedSchedule(adaptive(), ladder()) for _ in range(2))
    for window in (0, 3):
        first.at(0, window, Observer())
    first.at(1, 3, Observer())  # so that this window takes another choice at the next step
    state = json.loads(json.dumps(first.state()))
    other.restore(state)
    for window, expected in ((0, "asked 2 of 2"), (3, "asked 3 of 2")):
        work = other.at(2, window, Observer())
        assert work.step.reason == expected
        assert work == first.at(2, window, Observer())


def test_a_fixed_plan_goes_on_too():
    first = PreparedSchedule(schedule(StepPlan(), StepPlan()), ladder())
    first.at(0, 0, Observer())
    assert first.state()["deciders"] == []
    other = PreparedSchedule(first.plan, ladder())
    other.restore(first.state())
    assert other.at(1, 0, Observer()) == first.at(1, 0, Observer())
