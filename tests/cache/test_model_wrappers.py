"""What runs in place of a UNet's and a ControlNet's forward: gates, guess mode, predictions, residuals."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from diffusers import DDIMScheduler

from hgc_video.cache.engine import attach
from hgc_video.cache.noise_levels import NoiseLevels
from hgc_video.errors import HGCVideoWarning
from hgc_video.plan.adaptive import AdaptivePlan, Decision
from hgc_video.plan.coefficients import linear
from hgc_video.plan.graph import PREDICTION
from hgc_video.plan.liveness import delta
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.cache.engine_parts import cut, graph, handed, put, reuse
from tests.tiny_models import FRAMES, Clip, graph_of


def guessing(clip):
    """A step as pipelines make it in guess mode, the ControlNet on the prompt's branch alone: it gives its
    mid residual and the UNet's prediction."""
    flat = clip.latents.transpose(1, 2).flatten(0, 1)

    @torch.no_grad()
    def step(t, text=None):
        down, mid = clip.controlnet(
            flat, t, encoder_hidden_states=clip.text.chunk(2)[1], controlnet_cond=clip.hint.chunk(2)[1],
            guess_mode=True, return_dict=False,
        )  # fmt: skip
        down, whole = [torch.cat([torch.zeros_like(one), one]) for one in (*down, mid)], mid
        sample = clip.latents.repeat(2, 1, 1, 1, 1)
        out = clip.unet(
            sample, t, encoder_hidden_states=clip.text if text is None else text,
            down_block_additional_residuals=down[:-1], mid_block_additional_residual=down[-1],
        )  # fmt: skip
        return whole, out.sample

    return step


def test_in_guess_mode_the_controlnet_runs_whole_on_the_prompts_branch(clip):
    step = guessing(clip)
    mid, stock = step(900)
    with put(reuse()) as engine:
        engine.at(0)
        ours = step(900)
        assert torch.equal(ours[0], mid)
        torch.testing.assert_close(ours[1], stock, rtol=1e-5, atol=1e-5)
        assert engine.log.controlnet_branches == 1
        engine.at(1)
        assert torch.equal(step(900)[0], mid), "at a partial step too"
        one = sum(la.macs for la in graph().layers if la.part == "controlnet")
        assert [step["controlnet"] for step in engine.log.executed] == [one, one]


def test_a_prompt_that_the_unet_alone_gets_leaves_the_controlnet_in_guess_mode(clip):
    """It ran whole, and is not run again."""
    step, calls, other = guessing(clip), [], clip.text.flip(1)
    _, stock = step(700, other)
    with put(reuse()) as engine:

        def begin_anew(tokens):
            engine.take(reuse(steps=1))
            engine.at(0)
            return engine

        engine.on_change = begin_anew
        engine.at(0)
        step(900)
        hook = clip.controlnet.conv_in.register_forward_hook(lambda *told: calls.append(1))
        engine.at(1)
        _, out = step(700, other)
        hook.remove()
        assert engine._step.guess_mode and engine.log.controlnet_branches == 1 and calls == [1]
    torch.testing.assert_close(out, stock, rtol=1e-5, atol=1e-5)


def test_without_guidance_a_controlnet_in_guess_mode_follows_the_plan(clip):
    alone = Clip(clip.unet, clip.controlnet, guided=False)
    small = graph_of(alone)
    plan = Schedule("test", tuple(StepPlan(frozenset(held), branches=1) for held in ((), {cut()})))
    hook = handed(clip.controlnet, guess_mode=True)
    with attach(plan, graph=small, unet=clip.unet, controlnet=clip.controlnet) as engine:
        for index, t in enumerate((900, 700)):
            engine.at(index)
            alone.step(t)
        whole, partial = (step["controlnet"] for step in engine.log.executed)
    hook.remove()
    assert 0 < partial < 0.5 * whole


def test_a_controlnet_that_nobody_reads_hands_on_nothing(clip):
    names = frozenset({PREDICTION})
    plan = Schedule("test", (StepPlan(), StepPlan(deltas=names)))
    flat = clip.latents.repeat(2, 1, 1, 1, 1).transpose(1, 2).flatten(0, 1)
    given = {
        "encoder_hidden_states": clip.text, "controlnet_cond": clip.hint, "return_dict": False
    }  # fmt: skip
    with put(plan) as engine, torch.no_grad():
        engine.at(0)
        first = clip.step(900)
        engine.at(1)
        assert torch.equal(
            engine.kept(delta(PREDICTION))[0].tensor, first - clip.latents * (0.5 + 900 / 1000)
        )
        down, mid = clip.controlnet(flat, 900, **given)
        stock = len(graph().residuals()) - 1
        assert len(down) == stock and isinstance(down, tuple)
        assert all(one.shape == () and float(one) == 0 for one in (*down, mid))
        engine.at(1)
        down, mid = clip.controlnet(flat.half(), 900, **given)
        assert {one.dtype for one in (*down, mid)} == {torch.float16}
        sample = clip.latents.repeat(2, 1, 1, 1, 1)
        out = clip.unet(sample, 900, encoder_hidden_states=clip.text, return_dict=True).sample
        torch.testing.assert_close(out, sample + first - clip.latents * 1.4)
        assert engine.log.executed[1] == {"unet": 0, "controlnet": 0}


def test_after_a_gate_both_models_compute_the_prompts_branch(clip):
    plan = Schedule("test", (StepPlan(), StepPlan(branches=1)))
    seen = []
    hook = clip.controlnet.conv_in.register_forward_pre_hook(lambda m, a: seen.append(len(a[0])))
    with put(plan) as engine:
        outputs = clip.run(engine)
        assert [step["unet"] for step in engine.log.executed][1] < engine.log.executed[0]["unet"]
    hook.remove()
    stock = clip.step(700)
    uncond, cond = outputs[1].chunk(2)
    assert torch.equal(uncond, cond)
    torch.testing.assert_close(cond, stock.chunk(2)[1], rtol=1e-5, atol=1e-5)
    assert seen == [2 * FRAMES, FRAMES]


def test_two_clips_of_a_call_are_rows_of_a_branch_each(clip):
    plan = reuse()
    with put(plan) as engine:
        clip.run(engine)
        alone = engine.log.macs_by_part()
        clip.latents = clip.latents.repeat(2, 1, 1, 1, 1)
        clip.text = clip.text.chunk(2)[0].repeat(4, 1, 1)
        clip.hint = clip.hint.chunk(2)[0].repeat(4, 1, 1, 1)
        engine.at(0)
        clip.step(900)
        engine.at(1)
        (kept,) = engine.kept(cut())
        assert kept.frames == 2 * FRAMES and len(kept.tensor) == 4 * FRAMES
        clip.step(700)
        assert engine.log.macs_by_part()["unet"] > 1.9 * alone["unet"]


def test_what_could_exceed_half_precision_is_computed_with_a_warning(clip):
    name = cut()
    far = StepPlan(frozenset({name}), extrapolate=frozenset({name}), coefficients=(1.5, -0.5))
    plan = Schedule("test", (StepPlan(), StepPlan(), far))
    with put(plan) as engine:
        for index, t in enumerate((900, 700)):
            engine.at(index)
            clip.step(t)
        for _ in range(2):  # as float16 tensors of that size would have been watched
            engine._overflow.put(0, name, torch.tensor([6e4, -6e4]).half())
            engine._overflow.sent()
        engine.at(2)
        said = (
            f"step 2 is computed: {name} extrapolated could exceed float16; bfloat16 and float32 have the "
            "range"
        )
        with pytest.warns(HGCVideoWarning) as told:
            out = clip.step(500)
        assert [str(warning.message) for warning in told] == [said]
        reason = engine.log.record().steps[2].reason
        assert reason == f"computed: {name} extrapolated could exceed float16"
    torch.testing.assert_close(out, clip.step(500), rtol=1e-5, atol=1e-5)


def test_after_a_gate_the_last_difference_of_the_branches_is_added_again(clip):
    plan = Schedule("test", (StepPlan(), StepPlan(branches=1, cfg_delta=(1.0, 1.0))))
    with put(plan) as engine:
        first, second = (out.chunk(2) for out in clip.run(engine))
    cond = clip.step(700).chunk(2)[1]
    torch.testing.assert_close(second[1], cond, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(second[0], cond + first[0] - first[1], rtol=1e-5, atol=1e-5)


def test_after_a_gate_residuals_of_both_branches_are_those_of_the_prompt(clip):
    """A ControlNet that no cache is on runs both branches."""
    plan = Schedule("test", (StepPlan(), StepPlan(branches=1)))
    alone = graph_of(Clip(clip.unet, None))
    with attach(plan, graph=alone, unet=clip.unet) as engine:
        assert "forward" not in vars(clip.controlnet)
        out = clip.run(engine)[1]
    cond = clip.step(700).chunk(2)[1]
    torch.testing.assert_close(out.chunk(2)[1], cond, rtol=1e-5, atol=1e-5)


def test_a_step_is_forecast_from_clean_latents_of_the_prompts_branch(clip):
    levels = NoiseLevels(DDIMScheduler())
    plan = Schedule(
        "test",
        (StepPlan(), StepPlan(frozenset(graph().residuals()), branches=1, clean=((0, 1.0),))),
    )
    with put(plan, scheduler=DDIMScheduler()) as engine:
        first, second = clip.run(engine)
        assert engine.log.executed[1] == {"unet": 0, "controlnet": 0}
    seen = [clip.latents * (0.5 + t / 1000) for t in clip.timesteps]
    clean = levels.clean(seen[0], first.chunk(2)[1], clip.timesteps[0])
    expected = levels.prediction(seen[1], clean, clip.timesteps[1])
    for branch in second.chunk(2):
        torch.testing.assert_close(branch, expected, rtol=1e-4, atol=1e-4)


@dataclass
class Watching:
    """Takes the only choice of a step, and notes what it is told."""

    def __call__(self, index, signals):
        TOLD.append((signals.computed_last, signals.output_size()))
        return Decision(0, "test")


TOLD = []


def test_who_decides_is_told_of_predictions_that_were_computed_and_of_no_others(clip):
    """A forecast would be measured as if the UNet had said it."""
    forecast = StepPlan(frozenset(graph().residuals()), clean=((0, 1.0),))
    choices = ((StepPlan(),), (forecast,), (StepPlan(),))
    clip.timesteps = torch.tensor([900, 700, 500])
    TOLD.clear()
    with put(AdaptivePlan("test", choices, Watching), scheduler=DDIMScheduler()) as engine:
        first = clip.run(engine)[0]
    assert [computed for computed, _ in TOLD] == [False, True, False]
    sizes = [float(size) for _, size in TOLD[1:]]
    assert sizes == pytest.approx([float(first.abs().mean())] * 2)


def test_an_extrapolation_goes_as_far_as_the_latents_have_come(clip):
    """The latents at t are 0.5 + t / 1000 times the same numbers: from 500 to 400 they come half of the way
    from 700 to 500."""
    clip.timesteps = torch.tensor([700, 500, 400])
    name = frozenset({cut()})
    outputs = []
    for slope, measured in ((1.0, (0, 1)), (0.5, None), (1.0, None)):
        far = StepPlan(name, extrapolate=name, coefficients=linear(slope), latent_progress=measured)
        with put(Schedule("test", (StepPlan(), StepPlan(), far))) as engine:
            outputs.append(clip.run(engine)[2])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(outputs[0], outputs[2], rtol=1e-3, atol=1e-3)
