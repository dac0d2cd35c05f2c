"""The engine beside what else users do: schedulers, compilation, FreeU, offloading, second calls, errors."""

from __future__ import annotations

import diffusers
import pytest
import torch

from hgc_video.cache.engine import Engine, attach
from hgc_video.errors import CacheStateError
from hgc_video.plan.presets import resolve
from hgc_video.sampling.conditioning import TextConditioning
from hgc_video.sampling.loop import ControlledUNet, denoise
from tests.tiny_models import (
    FRAMES,
    SIZE,
    Clip,
    controlnet,
    graph_of,
    group_offloads_here,
    motion_unet,
)
from tests.tiny_pipelines import assert_near

SCHEDULERS = [
    "DDIMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "LCMScheduler", "HeunDiscreteScheduler",
]  # fmt: skip
POLICY = "hgc:interval=2,cut=1,dense=0.2,gate=0.7"


@pytest.fixture
def clip():
    return Clip(motion_unet(), controlnet())


def attached(clip, policy, steps=5):
    graph = graph_of(clip)
    schedule = resolve(policy).schedule(graph, steps)
    return attach(schedule, graph=graph, unet=clip.unet, controlnet=clip.controlnet)


def sample(clip, scheduler, policy=None):
    """The loop with a scheduler, and how many evaluations it took."""
    scheduler.set_timesteps(4)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(1, 4, FRAMES, SIZE, SIZE, generator=generator) * scheduler.init_noise_sigma
    guidance = TextConditioning(clip.text, (clip.hint.chunk(2)[0],), 2.0, (0.7,))
    timesteps = scheduler.timesteps
    count = len(timesteps)
    takes_noise = type(scheduler).__name__ in ("EulerAncestralDiscreteScheduler", "LCMScheduler")
    options = {"generator": generator} if takes_noise else {}

    def run(*listeners):
        models = ControlledUNet(clip.unet, clip.controlnet, guidance, count, listeners=listeners)
        return denoise(models, scheduler, noise, timesteps, **options)

    if policy is None:
        return run(), None
    with attached(clip, policy, count) as engine:
        return run(engine), engine


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_of_first_and_second_order(clip, name):
    make = getattr(diffusers, name)
    stock, _ = sample(clip, make())
    whole, _ = sample(clip, make(), "full")
    assert torch.equal(whole, stock)
    cached, engine = sample(clip, make(), POLICY)
    assert_near(cached, stock, within=1.0)  # four steps of random weights
    assert len(engine.log.executed) == (7 if "Heun" in name else 4)


def test_freeu_and_group_offloading(clip):
    from diffusers.hooks import apply_group_offloading

    clip.unet.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    if group_offloads_here():
        apply_group_offloading(
            clip.unet,
            onload_device=torch.device("cpu"),
            offload_type="block_level",
            num_blocks_per_group=1,
        )
    stock = clip.run()
    with attached(clip, "full") as engine:
        assert all(torch.equal(a, b) for a, b in zip(clip.run(engine), stock, strict=True))
    with attached(clip, "deepcache:interval=2") as engine:
        published = clip.run(engine)
    with attached(clip, "deepcache:interval=2+lossless") as engine:
        for a, b in zip(clip.run(engine), published, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(clip.run(), stock, strict=True))


def test_a_second_cache_on_the_same_model_is_refused_and_harms_nothing(clip):
    with attached(clip, "deepcache:interval=2") as engine:
        expected = clip.run(engine)
        with pytest.raises(CacheStateError, match="already has a cache"), attached(clip, "full"):
            pass
        assert all(torch.equal(a, b) for a, b in zip(clip.run(engine), expected, strict=True))


def test_the_handle_comes_off_and_goes_on_again(clip):
    graph = graph_of(clip)
    stock = clip.run()
    engine = Engine(resolve(POLICY).schedule(graph, 5), graph)
    for _ in range(2):
        engine.enable(clip.unet, clip.controlnet)
        cached = clip.run(engine)
        engine.disable()
        assert all(torch.equal(a, b) for a, b in zip(clip.run(), stock, strict=True))
        assert not torch.equal(cached[-1], stock[-1])
        assert engine.nbytes == 0


def test_no_stale_features_after_an_exception(clip):
    """The next run begins clean, though the cache stayed attached."""
    with attached(clip, "deepcache:interval=2") as engine:
        expected = clip.run(engine)
        latents = clip.latents
        clip.latents = latents * 7
        engine.at(0)
        clip.step(clip.timesteps[0])
        engine.at(1)
        with pytest.raises(RuntimeError):
            clip.unet(torch.zeros(2, 3, FRAMES, SIZE, SIZE), 1, clip.text)
        clip.latents = latents
        assert all(torch.equal(a, b) for a, b in zip(clip.run(engine), expected, strict=True))


def test_another_frame_count_strength_or_prompt_in_the_next_call(clip):
    """What rivals trip over: each call is as if it were the first."""
    with attached(clip, POLICY) as engine:
        clip.run(engine)
        other = Clip(clip.unet, clip.controlnet)
        other.text, other.hint = other.text.flip(-1), other.hint.flip(-1)
        mixed = other.run(engine)
    with attached(other, POLICY) as engine:
        assert all(torch.equal(a, b) for a, b in zip(mixed, other.run(engine), strict=True))


@pytest.mark.parametrize("what", ["hint", "text", "scale"])
def test_exact_savings_still_see_a_change(clip, what):
    """The negative side: with another hint, prompt or scale the result is another one, and right."""
    with attached(clip, "lossless") as engine:
        before = clip.run(engine)
        if what == "scale":
            step = clip.step
            clip.step = lambda t: step(t, scale=0.1)
        else:
            setattr(clip, what, getattr(clip, what).flip(-1).contiguous())
        after = clip.run(engine)
    stock = clip.run()
    assert not torch.allclose(before[-1], after[-1], atol=1e-4)
    torch.testing.assert_close(after[-1], stock[-1], rtol=1e-5, atol=1e-5)
