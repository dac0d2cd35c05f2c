"""Long clips in windows: exact where they must be, cheap where they can be, no seam."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

import hgc_video
from hgc_video.cache.engine import Engine, attach
from hgc_video.cache.store import Key
from hgc_video.errors import CacheStateError, InputError, PromptError
from hgc_video.measure.macs import MacCounter
from hgc_video.models.graph_builder import build_graph
from hgc_video.plan.adaptive import AdaptivePlan, Decision
from hgc_video.plan.clip_shape import ClipShape
from hgc_video.plan.cost import cost, full_cost
from hgc_video.plan.memory.placement import (
    DEVICE,
    HOST,
    RECOMPUTE,
    carried_out,
    kept_nbytes,
    macs_of,
    moves_of,
    places,
    work_of,
)
from hgc_video.plan.memory.windows import Windows, shifts, windowed
from hgc_video.plan.presets import resolve
from hgc_video.plan.schedule import Plan, StepPlan
from hgc_video.puppet.evaluation import held_out
from hgc_video.sampling.conditioning import TextConditioning
from hgc_video.sampling.loop import ControlledUNet, denoise
from hgc_video.sampling.prompts import travelling
from hgc_video.sampling.run import Run
from tests.tiny_models import SIZE, TEXT_WIDTH, TOKENS, controlnet, motion_unet
from tests.tiny_pipelines import assert_near

LENGTH, STEPS = 6, 5


class LongClip:
    """A tiny long clip; `same` gives every frame the same text."""

    def __init__(self, num_frames, *, same=True, branches=2):
        generator = torch.Generator().manual_seed(11)
        self.unet, self.controlnet = motion_unet(), controlnet()
        self.noise = torch.randn(1, 4, num_frames, SIZE, SIZE, generator=generator)
        text = torch.randn(
            branches, 1 if same else num_frames, TOKENS, TEXT_WIDTH, generator=generator
        )
        self.text = text.expand(-1, num_frames, -1, -1).flatten(0, 1)
        self.cond = torch.rand(num_frames, 3, 2 * SIZE, 2 * SIZE, generator=generator)
        self.scale = 2.0 if branches == 2 else 1.0
        self.graph = build_graph(
            self.unet, self.controlnet,
            ClipShape(min(LENGTH, num_frames), SIZE, SIZE, TOKENS, branches),
        )  # fmt: skip

    def run(self, windows=None, policy=None, moves=(), idle=DEVICE):
        scheduler = DDIMScheduler()
        scheduler.set_timesteps(STEPS)
        guidance = TextConditioning(self.text, (self.cond,), self.scale, (0.7,))

        def loop(*listeners):
            models = ControlledUNet(
                self.unet,
                self.controlnet,
                guidance,
                STEPS,
                windows=windows,
                moves=moves,
                listeners=listeners,
            )
            return denoise(models, scheduler, self.noise, scheduler.timesteps)

        if policy is None:
            return loop(), None
        plan = policy if isinstance(policy, Plan) else resolve(policy).schedule(self.graph, STEPS)
        schedule = carried_out(plan, idle)
        with attach(
            schedule, graph=self.graph, unet=self.unet, controlnet=self.controlnet,
            spill=idle == HOST,
        ) as engine:  # fmt: skip
            return loop(engine), engine


def test_one_window_is_the_whole_clip_to_the_bit():
    clip = LongClip(LENGTH)
    for policy in (None, "lossless", "hgc:interval=2,cut=1,gate=0.6"):
        assert torch.equal(clip.run(policy=policy)[0], clip.run(Windows(LENGTH, LENGTH), policy)[0])


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("branches", [1, 2])
def test_shared_controlnet_frames_are_those_of_each_window_alone(same, branches):
    """Against the plain way: every window with a ControlNet run of its own, predictions blended."""
    clip = LongClip(11, same=same, branches=branches)
    windows = Windows(11, LENGTH, 2)
    found = clip.run(windows)[0]
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(STEPS)
    text = clip.text.unflatten(0, (branches, -1))
    latents = clip.noise
    for i, t in enumerate(scheduler.timesteps):
        blended = torch.zeros_like(latents)
        for window, weights in zip(windows.plain, windows.weights(windows.plain), strict=True):
            part = TextConditioning(
                text[:, window.frames].flatten(0, 1),
                (clip.cond[window.frames],),
                clip.scale,
                (0.7,),
            )
            alone = ControlledUNet(clip.unet, clip.controlnet, part, STEPS)
            with torch.no_grad():
                out = alone(latents[:, :, window.frames], t, i)
            blended[:, :, window.frames] += out * torch.tensor(weights)[:, None, None]
        latents = scheduler.step(blended, t, latents).prev_sample
    torch.testing.assert_close(found, latents, rtol=1e-4, atol=1e-4)


@dataclass
class Turns:
    """Computes every second step where it may choose, beginning with the window's own turn."""

    turn: int

    def __call__(self, choices, signals):
        return Decision((signals.step + self.turn) % 2 if choices > 1 else 0, "its turn")


def in_turns(graph):
    """Neighbouring windows never do the same after the first step: one computes, the next one reuses."""
    full = StepPlan(branches=graph.branches)
    held = StepPlan(frozenset({graph.output, *graph.residuals()}), branches=graph.branches)
    turns = itertools.count()
    choices = ((full,), *[(full, held)] * (STEPS - 1))
    return AdaptivePlan("turns", choices, lambda: Turns(next(turns)), lossless=False)


def one_by_one(clip, windows, chosen):
    """The latents of a loop whose windows run one by one, with all of their frames; where `chosen` says so a
    window's prediction is that of the step before."""
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(STEPS)
    text, latents, held = clip.text.unflatten(0, (2, -1)), clip.noise, {}
    for i, t in enumerate(scheduler.timesteps):
        blended = torch.zeros_like(latents)
        weights = windows.weights(windows.plain)
        for k, window in enumerate(windows.plain):
            if not (i and chosen(i, k)):
                part = TextConditioning(
                    text[:, window.frames].flatten(0, 1), (clip.cond[window.frames],), clip.scale,
                    (0.7,),
                )  # fmt: skip
                alone = ControlledUNet(clip.unet, clip.controlnet, part, STEPS)
                with torch.no_grad():
                    held[k] = alone(latents[:, :, window.frames], t, i)
            blended[:, :, window.frames] += held[k] * torch.tensor(weights[k])[:, None, None]
        latents = scheduler.step(blended, t, latents).prev_sample
    return latents


def test_windows_that_decide_differently_compute_what_they_share_themselves():
    """The window before left out the ControlNet's residuals of the frames that both have."""
    clip, windows = LongClip(14, same=False), Windows(14, LENGTH, 2)
    plan = in_turns(clip.graph)
    with pytest.raises(CacheStateError, match="residuals that the window before it"):
        clip.run(windows, plan)
    with MacCounter() as counter:
        found, engine = clip.run(windows.under(plan), in_turns(clip.graph))
    expected = one_by_one(clip, windows, lambda i, k: (i + k) % 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    executed = engine.log.macs_by_part()
    assert counter.macs == pytest.approx(sum(executed.values()), rel=1e-3)
    # Three windows: all of them at the first step, then one or two by turns.
    each = full_cost(clip.graph, 1).macs[0]
    assert executed["controlnet"] == pytest.approx(
        each["controlnet"] * (3 + 2 + 1 + 2 + 1), rel=1e-3
    )


def test_under_a_net_windows_act_together_and_share_residuals():
    """Each by itself would be computed at other steps: one has the noise that the others have not."""
    clip = LongClip(14, same=False)
    clip.noise[:, :, 10:] *= 3
    for bound in (0.02, 0.05, 0.1, 0.2, 0.3):
        plan = resolve(f"taylorseer:interval=2,warm_up=2+net:bound={bound}").schedule(
            clip.graph, STEPS
        )
        windows = Windows(14, LENGTH, 2).under(plan)
        assert not windows.apart
        found, engine = clip.run(windows, plan)
        each = full_cost(clip.graph, 1).macs[0]["controlnet"]
        executed = engine.log.macs_by_part()["controlnet"]
        frames = executed / (each / LENGTH)
        assert found.isfinite().all() and frames == pytest.approx(14 * round(frames / 14), rel=1e-3)


def test_where_all_is_computed_windows_that_decide_cost_what_was_planned():
    clip = LongClip(14)
    plan = resolve("guard:tolerance=1e-9").schedule(clip.graph, STEPS)
    windows = Windows(14, LENGTH, 2).under(plan)
    _, engine = clip.run(windows, plan)
    assert windows.controlnet_frames() == 18
    spent = cost(clip.graph, plan)
    assert engine.log.macs_by_part() == macs_of(plan, spent, clip.graph, windows, ())


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("moves", [(), (False, True, False, True, False)])
def test_lossless_in_windows_is_exact(same, moves):
    clip, windows = LongClip(11, same=same), Windows(11, LENGTH, 2)
    stock, _ = clip.run(windows, moves=moves)
    found, engine = clip.run(windows, "lossless", moves)
    torch.testing.assert_close(found, stock, rtol=1e-4, atol=1e-4)
    assert sum(engine.log.macs_by_part().values()) < sum(
        windowed(full_cost(clip.graph, STEPS), windows, moves).values()
    )


@pytest.mark.parametrize(
    "policy",
    [
        "full",
        "deepcache:interval=2",
        "hgc:interval=3,cut=1,gate=0.6",
        "tgate:gate=3,warm_up=0,sp_interval=2",
    ],
)
def test_caches_of_windows_are_kept_apart_and_counted(policy):
    clip, windows = LongClip(10), Windows(10, LENGTH, 2)
    with MacCounter() as counter:
        found, engine = clip.run(windows, policy)
    stock, _ = clip.run(windows)
    if policy == "full":
        torch.testing.assert_close(found, stock, rtol=1e-4, atol=1e-4)
    else:
        # Random weights over five steps: reuse of every second step changes much, another noise more.
        assert_near(found, stock, within=1.0)
    planned = windowed(cost(clip.graph, engine.schedule), windows)
    executed = engine.log.macs_by_part()
    assert counter.macs == pytest.approx(sum(executed.values()), rel=1e-3)
    assert sum(executed.values()) == pytest.approx(sum(planned.values()), rel=1e-3)
    assert engine.nbytes == 0
    twice = LongClip(10)
    twice.noise = torch.cat([clip.noise[:, :, :5]] * 2, 2)
    assert not torch.equal(twice.run(windows, policy)[0], found)


def test_windows_do_not_see_each_others_features():
    """With caches mixed up, the window of one content would show the other's."""
    windows, policy = Windows(2 * LENGTH, LENGTH, 0), "deepcache:interval=9"
    clip = LongClip(2 * LENGTH)
    whole, _ = clip.run(windows, policy)
    halves = []
    for k in range(2):
        alone, frames = LongClip(LENGTH), slice(k * LENGTH, (k + 1) * LENGTH)
        alone.noise, alone.cond = clip.noise[:, :, frames], clip.cond[frames]
        alone.text = clip.text.unflatten(0, (2, -1))[:, frames].flatten(0, 1)
        halves.append(alone.run(policy=policy)[0])
    torch.testing.assert_close(whole, torch.cat(halves, 2), rtol=1e-4, atol=1e-4)


def test_moved_windows_leave_nothing_behind(monkeypatch):
    """After every step the store has values of the windows of that step alone, but encoded hints; and a run
    whose store is emptied by hand wherever the windows move gives the same."""
    clip, windows, policy = (
        LongClip(11),
        Windows(11, LENGTH, 2),
        "hgc:dense=0.2,interval=2,cut=1,gate=1",
    )
    moves = shifts(resolve(policy).schedule(clip.graph, STEPS), clip.graph)
    assert True in moves and False in moves
    only_windows, seen, emptied = Engine.only_windows, [], False

    def looked_at(engine, wanted, following):
        others = {w.window_id for w in (*windows.plain, *windows.shifted)} - set(wanted)
        only_windows(engine, wanted, following)
        if emptied:
            if seen and set(wanted) != seen[-1]:
                engine.store.clear()
        else:
            names = set(clip.graph.by_name) - set(clip.graph.names("hint"))
            kept = {(w, n) for w in others for n in names if Key(engine._run, w, n) in engine.store}
            assert not kept
        seen.append(set(wanted))

    monkeypatch.setattr(Engine, "only_windows", looked_at)
    found, engine = clip.run(windows, policy, moves)
    assert [step == {w.window_id for w in windows.shifted} for step in seen] == list(moves)
    assert engine.nbytes == 0
    seen, emptied = [], True
    assert torch.equal(clip.run(windows, policy, moves)[0], found)
    monkeypatch.undo()
    assert not torch.equal(found, clip.run(windows, policy)[0])


GRAINS = [
    "lossless",
    "deepcache:interval=2",
    "hgc:interval=3,cut=1,gate=0.6,slope=0.5,dense=0.4",
    "hgc:dense=0.2,interval=2,cut=1,gate=1",  # its windows move
    "fastercache:first=0.2,guidance_first=0.4",
]


def planned(clip, policy, windows, place):
    """What the planner says of a run, with its moves."""
    plan = resolve(policy).schedule(clip.graph, STEPS)
    work = work_of(plan, clip.graph, windows, place)
    moves = moves_of(carried_out(plan, place), clip.graph, windows)
    return work, moves, kept_nbytes(plan, clip.graph, windows)


@pytest.mark.parametrize("policy", GRAINS)
def test_caches_that_wait_beside_the_device_change_nothing_and_are_counted(policy):
    clip, windows = LongClip(18), Windows(18, LENGTH, 2)
    work, moves, kept = planned(clip, policy, windows, HOST)
    here, stayed = clip.run(windows, policy, moves)
    found, engine = clip.run(windows, policy, moves, HOST)
    store = engine.store
    assert torch.equal(found, here)
    assert (store.to_host, store.to_device) == (work.to_host, work.to_device)
    assert store.host.peak <= kept and stayed.store.to_host == stayed.store.host.peak == 0
    assert sum(engine.log.macs_by_part().values()) == pytest.approx(work.macs, rel=1e-3)
    assert store.device.peak < stayed.store.device.peak
    assert engine.nbytes == store.host.now == 0


@pytest.mark.parametrize(
    "policy", ["deepcache:interval=2", "hgc:dense=0.2,interval=2,cut=1,gate=1"]
)
def test_caches_that_are_dropped_cost_what_the_plan_says_and_reuse_nothing(policy):
    clip, windows = LongClip(18), Windows(18, LENGTH, 2)
    work, moves, _ = planned(clip, policy, windows, RECOMPUTE)
    found, engine = clip.run(windows, policy, moves, RECOMPUTE)
    stock, _ = clip.run(windows, moves=moves)
    torch.testing.assert_close(found, stock, rtol=1e-4, atol=1e-4)
    assert sum(engine.log.macs_by_part().values()) == pytest.approx(work.macs, rel=1e-3)
    assert work.macs > planned(clip, policy, windows, DEVICE)[0].macs
    assert engine.store.device.peak == 0


def test_up_to_two_windows_nothing_idles_long_enough_to_be_sent_away():
    clip, windows, policy = LongClip(10), Windows(10, LENGTH, 2), "deepcache:interval=2"
    _, engine = clip.run(windows, policy, idle=HOST)
    assert engine.store.to_host == 0
    assert places(engine.schedule, windows) == (DEVICE,)


def test_generate_makes_long_clips_of_any_odd_length():
    pose = held_out(5, 19).truth.pose
    options = {
        "num_frames": 19,
        "height": 64,
        "width": 64,
        "num_inference_steps": 2,
        "progress": False,
        "context_length": 8,
    }
    clip = hgc_video.generate(pose, "a dancer in a red shirt on a beach", **options)
    assert clip.frames.shape == (19, 64, 64, 3)
    assert clip.report.macs < clip.report.macs_baseline
    again = hgc_video.generate(pose, "a dancer in a red shirt on a beach", **options)
    assert np.array_equal(clip.frames, again.frames)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"context_length": 17}, "1 to 16"), ({"context_length": 0}, "give 1 or more"),
        ({"context_length": 8, "context_overlap": 8}, "0 to 7"), ({"context_overlap": -1}, "give 0 or more"),
    ],
)  # fmt: skip
def test_impossible_contexts_are_refused(options, says):
    pose = held_out(5, 4).truth.pose
    with pytest.raises(InputError, match=says):
        hgc_video.generate(pose, "a dancer", progress=False, **options)


def test_a_prompt_travels_along_the_frames():
    pose, first, last = (
        held_out(5, 6).truth.pose,
        "a dancer in a red shirt",
        "a dancer in a blue shirt",
    )
    options = {
        "num_inference_steps": 3,
        "height": 64,
        "width": 64,
        "progress": False,
        "preset": "lossless",
    }
    plain = hgc_video.generate(pose, first, **options)
    travelled = hgc_video.generate(pose, {0: first, 4: last}, **options)
    same = hgc_video.generate(pose, {0: first, 4: first}, **options)
    assert np.abs(same.frames.astype(int) - plain.frames).max() <= 1
    change = np.abs(travelled.frames.astype(int) - plain.frames).mean((1, 2, 3))
    assert change[-1] > change[0]
    assert travelled.report.prompt == f"0: {first} | 4: {last}"
    for bad in ({}, {1: first}, {0: ""}, {-1: first, 0: first}):
        with pytest.raises(PromptError):
            hgc_video.generate(pose, bad, **options)


def test_travelling_by_hand():
    encode = {"a": torch.zeros(1, 2, 3), "b": torch.ones(1, 2, 3)}.__getitem__
    rows = travelling({0: "a", 4: "b"}, 6, encode)
    assert rows[:, 0, 0].tolist() == [0, 0.25, 0.5, 0.75, 1, 1]
    assert travelling({0: "a", 9: "b"}, 2, encode).max() == 0


@pytest.mark.parametrize("preset", ["lossless", "deepcache:interval=2+lossless", "balanced+net"])
@pytest.mark.parametrize("overlap", [0, 2])
def test_macs_of_windows_are_planned_as_they_are_counted(monkeypatch, preset, overlap):
    """One text is projected for all windows; those that are shifted encode their hints anew."""
    report, runs = Run.report, []
    monkeypatch.setattr(Run, "report", lambda run: runs.append(run) or report(run))
    clip = hgc_video.generate(
        np.zeros((8, 64, 64, 3), np.uint8), "a dancer", preset=preset, num_inference_steps=6,
        height=64, width=64, context_length=4, context_overlap=overlap, progress=False, force=True,
    )  # fmt: skip
    planned = runs[0].planned
    assert any(planned.moves) and len(planned.windows.plain) > 1
    counted = {part: clip.report.macs_by_part[part] for part in ("unet", "controlnet")}
    if preset == "balanced+net":
        assert planned.macs_least <= sum(counted.values()) <= sum(planned.macs_by_part.values())
    else:
        assert counted == planned.macs_by_part
