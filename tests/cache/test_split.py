"""The exact split gives what whole layers give, for every chunk size and under every kind of reuse."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch

from hgc_video.cache.engine import attach
from hgc_video.cache.split import split
from hgc_video.measure.live_bytes import LiveBytes
from hgc_video.measure.macs import MacCounter
from hgc_video.plan.memory.budget import Chunks
from hgc_video.plan.presets import resolve
from tests.tiny_models import Clip, controlnet, graph_of, image_unet, motion_unet


@pytest.fixture(params=["motion", "image"])
def clip(request):
    return Clip(motion_unet() if request.param == "motion" else image_unet(), controlnet())


def run(clip, chunks, policy=None):
    graph = graph_of(clip)
    models = {"graph": graph, "unet": clip.unet, "controlnet": clip.controlnet}
    with ExitStack() as stack:
        stack.enter_context(split(chunks, **models))
        engine = None
        if policy is not None:
            schedule = resolve(policy).schedule(graph, len(clip.timesteps))
            engine = stack.enter_context(attach(schedule, **models))
        return clip.run(engine)


@pytest.mark.parametrize(
    ("frames", "positions"), [(1, 1), (1, 64), (2, 7), (4, 1000), (5, 7), (6, 64)]
)  # 6 rows of frames, 64 positions: one by one, with and without a rest, all, and more than there are
def test_every_chunk_size_gives_the_whole_layers_result(frames, positions):
    clip = Clip(motion_unet(), controlnet())
    clip.timesteps = clip.timesteps[:1]
    for ours, stock in zip(run(clip, Chunks(frames, positions)), clip.run(), strict=True):
        torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "policy",
    ["full", "lossless", "deepcache:interval=2", "hgc:interval=2,cut=1,gate=0.6,slope=0.5,dense=0.4",
     "tgate:gate=3,warm_up=0,sp_interval=2", "pab:skip_first=0,skip_last=0", "faster-diffusion:mod=2",
     "hgc:interval=2,lambda_intra=0.5,cut=2,anchor_stride=2"],
)  # fmt: skip
def test_under_every_grain_of_reuse(clip, policy):
    whole = run(clip, Chunks(), policy)
    for ours, expected in zip(run(clip, Chunks(2, 5), policy), whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_the_split_costs_no_macs_and_comes_off(clip):
    before = [set(m.__dict__) for m in (*clip.unet.modules(), *clip.controlnet.modules())]
    peaks, macs = [], []
    for chunks in (Chunks(), Chunks(1, 8)):
        with MacCounter() as counter:
            run(clip, chunks)
        with LiveBytes() as live:
            run(clip, chunks)
        macs.append(counter.macs)
        peaks.append(live.peak)
    assert macs[0] == macs[1] and peaks[1] <= peaks[0]
    assert before == [set(m.__dict__) for m in (*clip.unet.modules(), *clip.controlnet.modules())]
