"""Our DeepCache and T-GATE against the packages their authors released, on the same random weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from hgc_video.plan.presets import resolve
from tests.tiny_models import Clip, controlnet, graph_of, image_unet, motion_unet

UNETS = {"image": image_unet, "motion": motion_unet}


@pytest.fixture(params=UNETS)
def clip(request):
    return Clip(UNETS[request.param](layers=2), controlnet(layers=2))  # as the packages count on


def ours(clip, policy):
    from hgc_video.cache.engine import attach

    graph = graph_of(clip)
    schedule = resolve(policy).schedule(graph, len(clip.timesteps))
    with attach(schedule, graph=graph, unet=clip.unet, controlnet=clip.controlnet) as engine:
        return clip.run(engine)


@pytest.mark.parametrize("interval", [2, 3])
@pytest.mark.parametrize("branch", [0, 1, 2, 3, 4])
def test_deepcache_is_the_plug_in_to_the_bit(clip, interval, branch):
    released = pytest.importorskip("DeepCache", reason="install the eval extra")
    mine = ours(clip, f"deepcache:interval={interval},branch={branch}")
    exact = ours(clip, f"deepcache:interval={interval},branch={branch}+lossless")
    scheduler = SimpleNamespace(timesteps=clip.timesteps)
    helper = released.DeepCacheSDHelper(SimpleNamespace(unet=clip.unet, scheduler=scheduler))
    helper.set_params(cache_interval=interval, cache_branch_id=branch)
    helper.enable()
    try:
        theirs = clip.run()
    finally:
        helper.disable()
    for a, b, c in zip(mine, theirs, exact, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(c, b, rtol=1e-5, atol=1e-5)
    assert not torch.equal(theirs[1], clip.run()[1])


@pytest.mark.parametrize("gate", [2, 3])
@pytest.mark.parametrize("intervals", [(1, 1), (2, 1), (2, 2)])
def test_tgate_is_the_package(gate, intervals):
    """Its processor and its schedule on our tiny UNet, in the loop that its pipelines run."""
    released = pytest.importorskip("tgate.tgate_utils", reason="install the eval extra")
    sp, fi = intervals
    clip = Clip(image_unet(), None)
    mine = ours(clip, f"tgate:gate={gate},warm_up=0,sp_interval={sp},fi_interval={fi}")
    alone = Clip(clip.unet, None, guided=False)
    alone.latents, alone.text = (
        clip.latents,
        clip.text.chunk(2)[0],
    )  # theirs passes the negative text
    forwards = {m: m.forward for m in clip.unet.modules() if type(m).__name__ == "Attention"}
    for i, t in enumerate(clip.timesteps):
        ca, sa, keep_shape = released.tgate_scheduler(i, gate, sp, fi, 0)
        released.register_forward(
            clip.unet, "Attention", ca_kward=ca, sa_kward=sa, keep_shape=keep_shape
        )
        theirs = (clip if i < gate else alone).step(t)
        expected = mine[i] if i < gate else mine[i].chunk(2)[1]
        torch.testing.assert_close(theirs, expected, rtol=1e-5, atol=1e-5)
    for module, forward in forwards.items():
        module.forward = forward
