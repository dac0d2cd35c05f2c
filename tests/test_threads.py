"""Several threads: a pipeline each is right to the bit, one pipeline for two is refused and stays right."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import hgc_video
from hgc_video import enable
from hgc_video.errors import (
    CacheStateError,
    Cancelled,
    HGCVideoWarning,
    collected_warnings,
    warn,
)
from hgc_video.puppet.evaluation import held_out
from tests import tiny_pipelines as tiny

PROMPT = "a dancer in a red shirt and blue trousers on a beach"
SHORT = {"num_inference_steps": 2, "num_frames": 2, "height": 64, "width": 64, "progress": False}
CACHED = "hgc:interval=2,cut=1,gate=0.6,slope=0.5"


def at_once(*calls):
    """What calls give, each in a thread of its own; the first error is raised."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [call.result() for call in [threads.submit(call) for call in calls]]


def elsewhere(call, *args):
    """What a call gives in another thread, or the error that it ends with."""
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(call, *args)
        return done.exception() or done.result()


@pytest.fixture(scope="module")
def truth():
    return held_out(0, 2).truth


@pytest.fixture(scope="module")
def generator():
    return hgc_video.Generator(**SHORT)


def test_threads_with_a_generator_each_give_what_each_gives_alone(truth):
    """Both load at once, and are in their loops at once, step by step."""
    beside = threading.Barrier(2)

    def made(seed, callback=None, **given):
        clip, kind = (truth.pose, "pose") if seed == 1 else (truth.depth, "depth")
        generator = hgc_video.Generator(**SHORT, control=kind, **given)
        return generator.generate(clip, PROMPT, seed=seed, callback=callback)

    given = {1: {"preset": "deepcache:interval=2"}, 2: {"preset": "off", "scheduler": "dpm++"}}
    alone = [made(seed, **more) for seed, more in given.items()]

    def step(*_):
        beside.wait(60)

    together = at_once(*(lambda s=s, m=m: made(s, step, **m) for s, m in given.items()))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.frames, other.frames)
        assert one.report.macs_by_part == other.report.macs_by_part


def test_what_a_thread_is_warned_of_is_that_threads_alone():
    inside, over = threading.Event(), threading.Event()

    def collecting():
        with collected_warnings() as said:
            warn("of the  run\nitself")
            warn("of the run itself")
            inside.set()
            assert over.wait(60)
        return said

    def meanwhile():
        assert inside.wait(60)
        with collected_warnings() as said:
            warn("of a request")
        over.set()
        return said

    assert at_once(collecting, meanwhile) == [["of the run itself"], ["of a request"]]
    with pytest.warns(HGCVideoWarning, match="of nobody who collects") as told:
        warn("of nobody who collects")
    assert told[0].filename == __file__


def test_a_generator_that_makes_a_clip_refuses_everything_else_and_is_right(truth, generator):
    given = {"preset": "off"}  # nothing of ours is on the models then
    alone = generator.generate(truth.pose, PROMPT, **given)
    refused = []

    def again():
        generator.generate(truth.pose, PROMPT, seed=5)

    def meanwhile(step, steps, latents):
        assert (
            generator.preview(latents, 1).shape[2] == 3
        )  # what callbacks are given may be looked at
        for call in (again, generator.unload, lambda: elsewhere(again)):
            try:
                refused.append(call())
            except CacheStateError as error:
                refused.append(error)

    clip = generator.generate(truth.pose, PROMPT, callback=meanwhile, **given)
    assert len(refused) == 6
    for error in refused:
        assert isinstance(error, CacheStateError) and "\n" not in str(error)
        assert "make a Generator for each thread" in str(error)
    assert np.array_equal(clip.frames, alone.frames)
    with pytest.raises(Cancelled):
        generator.generate(truth.pose, PROMPT, callback=lambda *_: False)
    assert np.array_equal(generator.generate(truth.pose, PROMPT, **given).frames, alone.frames)


def test_a_run_does_not_hang_on_the_default_dtype(truth, generator):
    """Loaders in other threads set it for the whole process; the graph of this size is made under it too."""
    given = {"height": 32, "width": 96, "preset": "deepcache:interval=2"}
    torch.set_default_dtype(torch.bfloat16)
    try:
        clip = generator.generate(truth.pose, PROMPT, **given)
    finally:
        torch.set_default_dtype(torch.float32)
    alone = generator.generate(truth.pose, PROMPT, **given)
    assert np.array_equal(clip.frames, alone.frames) and clip.report.macs == alone.report.macs


def test_one_pipeline_in_two_threads_is_refused_and_goes_on_right():
    pipe = tiny.make("controlnet")
    with hgc_video.enable_cache(pipe, CACHED):
        alone = tiny.call(pipe, "controlnet", num_inference_steps=3)
    refused = []

    def call(**given):
        return tiny.call(pipe, "controlnet", num_inference_steps=3, **given)

    def meanwhile(_pipe, step, t, given):
        if step == 1:
            refused.append(elsewhere(call))
            refused.append(elsewhere(hgc_video.disable_cache, pipe))
        return given

    def broken(*_):
        raise ValueError("a callback's")

    with hgc_video.enable_cache(pipe, CACHED) as cache:
        got = call(callback_on_step_end=meanwhile)
        for error in refused:
            assert isinstance(error, CacheStateError) and "\n" not in str(error)
            assert "AnimateDiffControlNetPipeline is at work in another thread" in str(error)
        assert torch.equal(got, alone) and len(cache.report.steps) == 3
        # Calls that have ended, by an error too, stand in nobody's way.
        assert torch.equal(elsewhere(call), alone)
        with pytest.raises(ValueError, match="a callback's"):
            call(callback_on_step_end=broken)
        assert torch.equal(elsewhere(call), alone)
    assert elsewhere(hgc_video.disable_cache, pipe) is None


def test_models_that_two_pipelines_share_are_refused_within_a_step():
    """Between the steps of a run they are as they were, and anybody's."""
    pipe = tiny.make("animatediff")
    other = type(pipe)(**{**pipe.components, "scheduler": tiny.scheduler()})
    with hgc_video.enable_cache(pipe, CACHED):
        alone = tiny.call(pipe, "animatediff")
    refused = []

    def within(*_):
        if not refused:
            refused.append(elsewhere(tiny.call, other, "animatediff"))

    handle = pipe.unet.conv_in.register_forward_hook(within)
    with hgc_video.enable_cache(pipe, CACHED):
        got = tiny.call(pipe, "animatediff")
    handle.remove()
    assert isinstance(refused[0], CacheStateError)
    assert "unet is at work in another thread" in str(refused[0])
    assert torch.equal(got, alone)


def test_threads_that_enable_a_cache_at_once_get_one(monkeypatch):
    pipe, inside, start = tiny.make("sd"), threading.Event(), enable.CacheHandle.start

    def slow(handle):
        inside.set()
        threading.Event().wait(0.1)
        start(handle)

    monkeypatch.setattr(enable.CacheHandle, "start", slow)

    def second():
        inside.wait(60)
        return enable.enable_cache(pipe, "off")

    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(enable.enable_cache, pipe, "off"), threads.submit(second)]
        assert calls[0].exception() is None
        assert "has a cache already" in str(calls[1].exception())
    hgc_video.disable_cache(pipe)
