"""Each grain of reuse against a reference made with plain torch hooks on the stock models."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from hgc_video.cache.anchors import anchor_rows
from hgc_video.cache.cfg import both_branches, low_frequencies
from hgc_video.cache.engine import attach
from hgc_video.plan.coefficients import linear
from hgc_video.plan.presets import resolve
from hgc_video.plan.schedule import Anchors, Schedule, StepPlan
from tests.tiny_models import FRAMES, Clip, ImageClip, controlnet, graph_of, motion_unet, svd_unet

CROSS = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2"
MOTION = "unet.down_blocks.0.motion_modules.0"
CUT = "unet.up_blocks.1.attentions.1"


@pytest.fixture
def clip():
    clip = Clip(motion_unet(), controlnet())
    clip.timesteps = clip.timesteps[:3]
    return clip


def ours(clip, *steps, **options):
    graph = graph_of(clip)
    schedule = Schedule("test", steps, **options)
    with attach(schedule, graph=graph, unet=clip.unet, controlnet=clip.controlnet) as engine:
        outputs = []
        for i, t in enumerate(clip.timesteps[: len(steps)]):
            engine.at(i)
            outputs.append(clip.step(t))
        return outputs


@contextmanager
def hooked(clip, name, hook):
    module = clip.unet.get_submodule(name.removeprefix("unet."))
    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def tensor(out):
    return out[0] if isinstance(out, tuple) else out


def like(out, value):
    return (value,) if isinstance(out, tuple) else value


def seen(clip, name, t):
    """A module's input and output in a stock step."""
    found = []

    def look(module, args, kwargs, out):
        found.extend([args[0] if args else kwargs["hidden_states"], tensor(out)])

    with hooked(clip, name, look):
        clip.step(t)
    return found


def replaced(clip, name, t, value):
    """The stock step with a module's output replaced by `value(input)`."""

    def put(module, args, kwargs, out):
        return like(out, value(args[0] if args else kwargs["hidden_states"]))

    with hooked(clip, name, put):
        return clip.step(t)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_contribution_is_added_to_the_fresh_input(clip):
    names = frozenset({MOTION})
    output = ours(clip, StepPlan(), StepPlan(deltas=names))[1]
    before, after = seen(clip, MOTION, clip.timesteps[0])
    close(output, replaced(clip, MOTION, clip.timesteps[1], lambda x: x + (after - before)))
    assert not torch.equal(output, clip.step(clip.timesteps[1]))


def test_a_reused_attention_is_the_one_of_the_step_before(clip):
    output = ours(clip, StepPlan(), StepPlan(frozenset({CROSS})))[1]
    kept = seen(clip, CROSS, clip.timesteps[0])[1]
    close(output, replaced(clip, CROSS, clip.timesteps[1], lambda x: kept))


def test_extrapolation_goes_along_the_last_two_values(clip):
    name = frozenset({CUT})
    output = ours(
        clip, StepPlan(), StepPlan(), StepPlan(name, extrapolate=name, coefficients=linear(0.5))
    )[2]
    older, newer = (seen(clip, CUT, t)[1] for t in clip.timesteps[:2])
    close(output, replaced(clip, CUT, clip.timesteps[2], lambda x: newer + 0.5 * (newer - older)))


@pytest.mark.parametrize(
    ("last", "gone"),
    [
        (450, 0.5),  # half of the way from 900 to 600 once more
        (750, 0.15),  # back, yet no less than 0.3 of the half that a count of steps tells
        (0, 1.5),  # twice that way, yet no more than 3 times that half
    ],
)
def test_extrapolation_follows_the_latents_since_two_earlier_steps(clip, last, gone):
    """The clip's latents at t are 0.5 + t / 1000 times the same numbers."""
    clip.timesteps = torch.tensor([950, 900, 800, 600, last])
    follows_the_latents(clip, CUT, gone)


def test_extrapolation_follows_latents_whose_frames_come_first():
    clip = ImageClip(svd_unet())
    clip.timesteps = torch.tensor([950, 900, 800, 600, 450])
    follows_the_latents(clip, "unet.up_blocks.1.attentions.1", 0.5)


def follows_the_latents(clip, layer, gone):
    """The last step goes so many times the way of the layer's values from step 1 to 3, times a slope."""
    name = frozenset({layer})
    follows = StepPlan(name, extrapolate=name, coefficients=linear(0.8), latent_progress=(1, 3))
    output = ours(clip, *[StepPlan()] * 2, StepPlan(name), StepPlan(), follows)[-1]
    older, newer = (seen(clip, layer, clip.timesteps[i])[1] for i in (1, 3))
    expected = newer + gone * 0.8 * (newer - older)
    close(output, replaced(clip, layer, clip.timesteps[-1], lambda x: expected))


def test_the_kept_guidance_difference_is_added_to_the_fresh_prompt_branch(clip):
    outputs = ours(clip, StepPlan(), StepPlan(branches=1, cfg_delta=(1.0, 1.0)))
    stock = [clip.step(t) for t in clip.timesteps[:2]]
    uncond, cond = stock[0].chunk(2)
    fresh = stock[1].chunk(2)[1]
    close(outputs[1], torch.cat([fresh + (uncond - cond), fresh]))


def test_frequencies_of_the_difference_are_weighed_apart():
    cond, difference = torch.randn(2, 2, 4, 3, 8, 8)
    low = low_frequencies(difference)
    close(both_branches(cond, difference, (1.2, 1.0)).chunk(2)[0], cond + difference + 0.2 * low)
    constant = torch.ones(1, 1, 8, 8)
    close(low_frequencies(constant), constant)
    checkers = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    close(low_frequencies(checkers), torch.zeros(8, 8))


def test_without_a_difference_both_branches_are_the_prompts():
    cond = torch.randn(2, 4, 3, 8, 8)
    made = both_branches(cond, None, (1.0, 1.0))
    assert torch.equal(made[:2], cond) and torch.equal(made[2:], cond) and len(made) == 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_low_are_the_frequencies_up_to_a_fifth_of_the_smaller_side(dtype):
    """Of 10 by 20 pixels those whose waves, along both sides, are 2 or fewer on a circle."""
    rows, columns = torch.arange(10)[:, None] / 10, torch.arange(20) / 20

    def wave(down, across):
        return torch.cos(2 * torch.pi * (down * rows + across * columns)).to(dtype)

    low, high = [(2, 0), (0, 2), (1, 1), (1, -1)], [(3, 0), (0, 3), (2, 1), (1, 2)]
    for waves, share in ((low, 1), (high, 0)):
        for one in waves:
            left = low_frequencies(wave(*one))
            assert left.dtype == dtype
            torch.testing.assert_close(left, share * wave(*one), rtol=1e-2, atol=1e-2)


def test_a_whole_step_is_skipped_with_its_contribution(clip):
    residuals = frozenset(graph_of(clip).residuals())
    skip = StepPlan(residuals, frozenset({"unet"}))
    outputs = ours(clip, StepPlan(), skip)
    first, second = (
        clip.latents.repeat(2, 1, 1, 1, 1) * (0.5 + t / 1000) for t in clip.timesteps[:2]
    )
    close(outputs[1], second + (outputs[0] - first))


def test_anchor_frames_are_exact_and_the_others_are_between(clip):
    outputs = []

    def look(module, args, kwargs, out):
        outputs.append(out)

    graph = graph_of(clip)
    whole = Schedule("test", (StepPlan(),), lossless=False)
    for anchors in (None, Anchors(2), Anchors(1)):
        schedule = Schedule("test", whole.steps, lossless=False, anchors=anchors)
        with attach(schedule, graph=graph, unet=clip.unet, controlnet=clip.controlnet) as engine:
            module = clip.unet.get_submodule(CROSS.removeprefix("unet."))
            handle = module.register_forward_hook(look, with_kwargs=True)
            engine.at(0)
            clip.step(clip.timesteps[0])
            handle.remove()
    stock, linear, every = (out.unflatten(0, (2, FRAMES)) for out in outputs)
    close(linear[:, [0, 2]], stock[:, [0, 2]])
    close(linear[:, 1], (stock[:, 0] + stock[:, 2]) / 2)
    close(every, stock)


def test_anchor_rows_by_hand():
    rows, first, second, weight = anchor_rows(Anchors(3), 2, 5, torch.device("cpu"))
    assert rows.tolist() == [0, 3, 4, 5, 8, 9]
    assert first.tolist() == [0, 0, 0, 1, 2, 3, 3, 3, 4, 5]
    assert second.tolist() == [1, 1, 1, 2, 2, 4, 4, 4, 5, 5]
    close(weight.flatten()[:5], torch.tensor([0, 1 / 3, 2 / 3, 0, 0]))


def test_attention_to_one_token_is_computed_once_and_exact():
    """SVD: a softmax over one key is 1 whatever the query."""
    clip = ImageClip(svd_unet())
    graph = graph_of(clip)
    schedule = resolve("lossless").schedule(graph, 5)
    with attach(schedule, graph=graph, unet=clip.unet) as engine:
        outputs = clip.run(engine)
    for output, stock in zip(outputs, clip.run(), strict=True):
        close(output, stock)
    assert engine.log.executed[1]["unet"] < engine.log.executed[0]["unet"]
    other = ImageClip(clip.unet)
    other.text = other.text.flip(-1)
    expected = other.run()[-1]
    with attach(schedule, graph=graph, unet=clip.unet) as engine:
        clip.run(engine)
        close(other.run(engine)[-1], expected)
    assert not torch.allclose(expected, outputs[-1])


def test_easycache_is_the_released_algorithm(clip):
    """Its code's loop, written down here, around the stock step."""
    clip = Clip(clip.unet, clip.controlnet)
    clip.timesteps = torch.arange(950, 0, -60)
    graph, steps = graph_of(clip), len(clip.timesteps)
    plan = resolve("easycache:threshold=0.4,warm_up=3").schedule(graph, steps)
    with attach(plan, graph=graph, unet=clip.unet, controlnet=clip.controlnet) as engine:
        outputs = clip.run(engine)
    taken = [step.label == "skipped" for step in engine.log.record().steps]
    expected, skipped = released_easycache(clip, threshold=0.4, warm_up=3)
    assert taken == skipped and 0 < sum(skipped) < steps - 3
    for a, b in zip(outputs, expected, strict=True):
        close(a, b)


def released_easycache(clip, *, threshold, warm_up):
    x_before = out_before = kept = rate = None
    accumulated, outputs, skipped = 0.0, [], []
    for i, t in enumerate(clip.timesteps):
        x = clip.latents.repeat(2, 1, 1, 1, 1) * (0.5 + t / 1000)
        skip = False
        if i < warm_up or i == len(clip.timesteps) - 1 or rate is None:
            accumulated = 0.0
        else:
            change = (x - x_before).abs().mean() / out_before.abs().mean()
            accumulated += float(rate * change)
            skip = accumulated < threshold
            accumulated = accumulated if skip else 0.0
        if skip:
            out = x + kept
        else:
            out = clip.step(t)
            if out_before is not None:
                rate = (out - out_before).abs().mean() / (x - x_before).abs().mean()
            out_before, kept = out, out - x
        x_before = x
        outputs.append(out)
        skipped.append(skip)
    return outputs, skipped


def test_online_moments_follow_the_drift(clip):
    clip = Clip(clip.unet, clip.controlnet)
    graph = graph_of(clip)

    def partial(text):
        plan = resolve(text).schedule(graph, 5)
        with attach(plan, graph=graph, unet=clip.unet, controlnet=clip.controlnet) as engine:
            clip.run(engine)
        return [step.label.startswith("depth") for step in engine.log.record().steps]

    always = "hgc-online:dense=0.2,threshold=99,max_consecutive="
    assert partial(f"{always}9") == [False, True, True, True, True]
    assert partial(f"{always}1") == [False, True, False, True, False]
    assert partial("hgc-online:dense=0.2,threshold=0") == [False, True, False, True, False]
