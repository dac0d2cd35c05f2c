"""Where idle windows' caches live: what a plan without them keeps and costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hgc_video.plan.cost import cost, full_cost, kept_for_any
from hgc_video.plan.graph import Attention
from hgc_video.plan.liveness import kept
from hgc_video.plan.memory.placement import (
    DEVICE,
    HOST,
    RECOMPUTE,
    RunCost,
    carried_out,
    kept_nbytes,
    macs_of,
    moved_nbytes,
    moves_of,
    places,
    recomputed,
    work_of,
)
from hgc_video.plan.memory.throughput import Throughput
from hgc_video.plan.memory.windows import Windows, windowed
from hgc_video.plan.policies.searched import CodedSchedule
from hgc_video.plan.presets import resolve
from hgc_video.plan.schedule import Schedule, StepPlan
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


def totals(steps):
    return [sum(step.values()) for step in steps]


def test_the_work_of_all_windows_by_hand():
    """16 frames in windows of 4: four of them, or five where they are shifted by half a window. What the
    ControlNet makes is made once per frame."""
    graph, windows = tower(), Windows(16, 4, 0)
    plan = resolve("deepcache:interval=2+lossless").schedule(graph, 10)
    spent, moves = cost(graph, plan), moves_of(plan, graph, windows)
    assert moves == (False, False, True, True, False, False, True, True, False, False)
    counts = [5 if moved else 4 for moved in moves]

    def at_each(steps):
        return [
            n * step["unet"] + 4 * step["controlnet"] for n, step in zip(counts, steps, strict=True)
        ]

    def over_all(steps):
        return sum(at_each(steps))

    # The shifted windows encode their hints when they come first; what they cost for 16 frames.
    hint = graph.by_name["controlnet.hint"]
    hint_macs, hint_nbytes = 4 * hint.macs, 4 * hint.nbytes
    macs = over_all(spent.macs) + hint_macs
    on_device = work_of(plan, graph, windows, DEVICE)
    assert on_device == RunCost(macs, macs - 4 * spent.total)
    to_host, to_device = over_all(spent.made) + hint_nbytes, over_all(spent.read) - hint_nbytes
    assert work_of(plan, graph, windows, HOST) == RunCost(
        macs, macs - 4 * spent.total, to_host, to_device
    )
    assert kept_nbytes(plan, graph, windows) == hint_nbytes + max(at_each(spent.kept))
    assert moved_nbytes(plan, graph) == max(totals(spent.read))
    again = work_of(plan, graph, windows, RECOMPUTE)
    assert again.macs > macs and (again.to_host, again.to_device) == (0, 0)
    assert carried_out(plan, RECOMPUTE) == recomputed(plan) and carried_out(plan, HOST) is plan
    rates = Throughput(100.0, 10.0, "by hand")
    assert RunCost(200, 50, 30, 20).seconds(rates) == 2 + 5
    one = Windows(4, 4, 0)
    assert moves_of(plan, graph, one) == () and kept_nbytes(plan, graph, one) == max(
        totals(spent.kept)
    )
    assert work_of(plan, graph, one, DEVICE) == RunCost(spent.total, 0)


def test_where_idle_caches_may_live():
    graph, fixed = tower(), resolve("deepcache:interval=2").schedule(tower(), 10)
    online = resolve("easycache").schedule(graph, 10)
    for windows, of_fixed, of_online in (
        (Windows(4, 4, 0), (DEVICE,), (DEVICE,)),
        (Windows(8, 4, 0), (DEVICE,), (DEVICE,)),
        (Windows(12, 4, 0), (DEVICE, HOST, RECOMPUTE), (DEVICE, HOST)),
    ):
        assert places(fixed, windows) == of_fixed and places(online, windows) == of_online
    assert places(resolve("off").schedule(graph, 10), Windows(12, 4, 0)) == (DEVICE,)
    assert moves_of(online, graph, Windows(12, 4, 0)) == (), "what is held is not known before"
    assert moved_nbytes(online, graph) == max(
        sum(kept_for_any(graph, names).values()) for names in kept(graph, online)
    )


@pytest.mark.parametrize(
    ("step", "computed"),
    [
        (
            StepPlan(
                reuse=frozenset("ab"), average_branches=frozenset("c"), extrapolate=frozenset("a"),
                coefficients=(1.5, -0.5), latent_progress=(0, 1), label="depth 1", reason="so",
            ),
            StepPlan(label="recomputed"),
        ),
        (StepPlan(deltas=frozenset("a"), label="own"), StepPlan(label="recomputed")),
        (StepPlan(clean=((0, 1.0),), label="own"), StepPlan(label="recomputed")),
        (StepPlan(branches=1, cfg_delta=(1.1, 1.2), label="own"), StepPlan(branches=2, label="own")),
        (
            StepPlan(branches=1, always_compute=frozenset("d"), label="own"),
            StepPlan(branches=1, always_compute=frozenset("d"), label="own"),
        ),
    ],
)  # fmt: skip
def test_a_step_that_is_computed_again_reuses_nothing_and_says_why(step, computed):
    (again,) = recomputed(Schedule("x", (step,))).steps
    assert again == computed
    assert again.reason.split("; ")[-1] == "idle caches are recomputed"


def test_windows_that_do_not_divide_the_clip():
    """13 frames in windows of 3: five of them, shifted ones too, and the ControlNet once per frame."""
    graph, windows = tower(), Windows(13, 3, 0)
    plan = resolve("deepcache:interval=2+lossless").schedule(graph, 10)
    spent, hint = cost(graph, plan), graph.by_name["controlnet.hint"]
    assert (len(windows.plain), len(windows.shifted), hint.macs, hint.nbytes) == (5, 5, 5, 4)
    over_all = sum(5 * step["unet"] + step["controlnet"] * 13 // 3 for step in spent.macs)
    macs = over_all + 21  # 13 / 3 times 5, the hints of the shifted windows
    assert work_of(plan, graph, windows, DEVICE) == RunCost(macs, macs - spent.total * 13 // 3)
    read, made = (
        sum(5 * step["unet"] + step["controlnet"] * 13 // 3 for step in steps)
        for steps in (spent.read, spent.made)
    )
    assert work_of(plan, graph, windows, HOST) == RunCost(
        macs, macs - spent.total * 13 // 3, made + 17, read - 17
    )


@pytest.mark.parametrize("lossless", [True, False])
def test_a_controlnet_that_adds_nothing_needs_no_hint_where_the_savings_are_made(lossless):
    """Step 2 is the first of the shifted windows; without the savings its ControlNet runs all the same."""
    graph, windows = tower(), Windows(16, 4, 0)
    plan = resolve("deepcache:interval=2+lossless").schedule(graph, 10)
    silent = replace(plan.with_inactive({2: ["controlnet"]}), lossless=lossless)
    values, hint = 5 * 16, 4 * 4  # of five windows, and of four times four frames
    more = 0 if lossless else hint
    assert kept_nbytes(silent, graph, windows) == values + hint + more


def test_what_is_kept_and_what_one_step_brings_back():
    """Two depths are kept after step 0, and each later step reads one of them, and the hint."""
    graph = tower()
    plan = CodedSchedule("F12", 99, (0.0,) * 3)(graph, 3)
    value, hint = 2 * 8, 4
    assert totals(cost(graph, plan).kept) == [2 * value + hint, value + hint, 0]
    assert moved_nbytes(plan, graph) == value + hint
    online = resolve("easycache").schedule(graph, 10)
    assert moved_nbytes(online, graph) == value
    assert kept_nbytes(online, graph, Windows(16, 4, 0)) == 4 * value, "its windows do not move"


def wordy(graph):
    """The graph with cross-attentions of 8 MACs per frame for the text."""
    layers = []
    for layer in graph.layers:
        more = [
            replace(a, macs=a.macs + 100, text_macs=8 * graph.num_frames)
            if a.kind == "cross"
            else a
            for a in layer.attentions
        ]
        added = sum(a.macs for a in more) - sum(a.macs for a in layer.attentions)
        layers.append(replace(layer, attentions=tuple(more), macs=layer.macs + added))
    return replace(graph, layers=tuple(layers))


@pytest.mark.parametrize("policy", ["lossless", "deepcache:interval=2+lossless"])
def test_a_text_is_projected_once_for_all_windows(policy):
    """16 frames in windows of 4: three of the four windows find it there, whose alone it is as well."""
    graph, windows = wordy(tower()), Windows(16, 4, 0)
    plan = resolve(policy).schedule(graph, 10)
    spent, moves = cost(graph, plan), moves_of(plan, graph, windows)
    texts = spent.text
    for part in ("unet", "controlnet"):
        names = [n for n, a in graph.attentions.items() if a.kind == "cross" and n.startswith(part)]
        assert texts[part] == 8 * 2 * len(names), "at the first step, for both branches"
    assert texts["unet"] > 0
    hint = 4 * graph.by_name["controlnet.hint"].macs * (True in moves)
    macs = macs_of(plan, spent, graph, windows, moves)
    plain = windowed(spent, windows, moves)
    assert macs["unet"] == plain["unet"] - 3 * texts["unet"]
    assert macs["controlnet"] == plain["controlnet"] - 3 * texts["controlnet"] + hint
    total, alone = sum(macs.values()), 4 * spent.total - 3 * sum(texts.values())
    assert work_of(plan, graph, windows, DEVICE) == RunCost(total, total - alone)


def test_the_text_of_a_controlnet_is_projected_once_for_the_whole_clip():
    """It runs on each frame once: 16 frames in windows of 4 that overlap by one are five calls of the UNet
    and four of the ControlNet."""
    cross = Attention("controlnet.conv_in.attn2", "cross", 300, 8, text_macs=8 * 4)
    graph = wordy(tower())
    layers = [
        replace(layer, attentions=(cross,), macs=layer.macs + cross.macs)
        if layer.name == "controlnet.conv_in"
        else layer
        for layer in graph.layers
    ]
    graph = replace(graph, layers=tuple(layers))
    windows = Windows(16, 4, 1)
    plan = resolve("lossless").schedule(graph, 10)
    spent, moves = cost(graph, plan), moves_of(plan, graph, windows)
    assert spent.text["controlnet"] == 2 * 8 * 4 // graph.num_frames
    macs, plain = macs_of(plan, spent, graph, windows, moves), windowed(spent, windows, moves)
    hint = 4 * graph.by_name["controlnet.hint"].macs * (True in moves)
    assert macs["controlnet"] == plain["controlnet"] - 3 * spent.text["controlnet"] + hint
    assert macs["unet"] == plain["unet"] - (len(windows.plain) - 1) * spent.text["unet"]
    assert len(windows.plain) > 4


def test_a_text_that_every_step_projects_is_each_windows():
    graph, windows = wordy(tower()), Windows(16, 4, 0)
    plan = resolve("deepcache:interval=2").schedule(graph, 10)
    plan = replace(plan, lossless=False)
    assert cost(graph, plan).text == {"unet": 0, "controlnet": 0}
    spent = cost(graph, plan)
    assert macs_of(plan, spent, graph, windows, ()) == windowed(spent, windows)


def test_a_text_is_counted_at_the_first_step_that_reads_it():
    """For the branches of that step."""
    graph = wordy(tower())
    names = tuple(n for n, a in graph.attentions.items() if a.kind == "cross" and "unet" in n)
    both, one = StepPlan(), StepPlan(branches=1, cfg_delta="reuse")
    for steps, branches in (((both, one), 2), ((one, both), 1)):
        texts = cost(graph, Schedule("x", steps, lossless=True)).text
        assert texts["unet"] == 8 * branches * len(names)
