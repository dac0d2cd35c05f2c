"""Residuals in Stable Video Diffusion's UNet: exact, undone exactly, and dead where nobody reads them."""

from __future__ import annotations

import inspect

import pytest
import torch

from hgc_video.cache.engine import attach
from hgc_video.cache.residual_inputs import residual_inputs
from hgc_video.errors import CacheStateError
from hgc_video.plan.presets import resolve
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.tiny_models import ImageClip, graph_of, motion_unet, svd_controlnet, svd_unet


@pytest.fixture
def clip():
    return ImageClip(svd_unet(), svd_controlnet())


def given(clip):
    sample = clip.latents.repeat(2, 1, 1, 1, 1)
    ids = torch.tensor([[6.0, 127.0, 0.02]] * 2)
    return {"sample": sample, "timestep": torch.tensor(5), "encoder_hidden_states": clip.text,
            "added_time_ids": ids}  # fmt: skip


def residuals(clip, scale=1.0):
    net = svd_controlnet()
    down, mid = net(**given(clip), controlnet_cond=clip.hint, return_dict=False)
    named = ("down_block_additional_residuals", "mid_block_additional_residual")
    return dict(zip(named, ([scale * r for r in down], scale * mid), strict=True))


def attributes(model):
    return {name: set(vars(module)) for name, module in model.named_modules()}


@torch.no_grad()
def test_residuals_of_zero_and_none_at_all_are_the_stock_unet():
    clip, unet = ImageClip(svd_unet()), svd_unet()
    before = attributes(unet)
    stock = unet(**given(clip)).sample
    with residual_inputs(unet):
        assert torch.equal(unet(**given(clip)).sample, stock)
        assert torch.equal(unet(**given(clip), **residuals(clip, 0.0)).sample, stock)
        assert not torch.equal(unet(**given(clip), **residuals(clip)).sample, stock)
        assert torch.equal(unet(**given(clip)).sample, stock), "nothing is left of the call before"
    assert attributes(unet) == before
    assert torch.equal(unet(**given(clip)).sample, stock)
    with pytest.raises(TypeError):
        unet(**given(clip), **residuals(clip))


@torch.no_grad()
def test_they_are_added_to_the_skips_and_behind_the_middle():
    """Against a reference of plain torch hooks on the layers that make the skips' tensors and read them."""
    clip, unet = ImageClip(svd_unet()), svd_unet()
    told = residuals(clip)
    down, mid = told.values()

    def reads(i):
        start = sum(len(b.resnets) for b in unet.up_blocks[i + 1 :])
        mine = down[start : start + len(unet.up_blocks[i].resnets)]

        def hook(module, args, kwargs):
            pairs = zip(kwargs["res_hidden_states_tuple"], mine, strict=True)
            return args, {**kwargs, "res_hidden_states_tuple": tuple(s + r for s, r in pairs)}

        return hook

    handles = [unet.mid_block.register_forward_hook(lambda m, a, out: out + mid)]
    for i, block in enumerate(unet.up_blocks):
        handles.append(block.register_forward_pre_hook(reads(i), with_kwargs=True))
    reference = unet(**given(clip)).sample
    [handle.remove() for handle in handles]
    with residual_inputs(unet):
        assert torch.equal(unet(**given(clip), **told).sample, reference)


@torch.no_grad()
def test_a_block_that_is_called_by_itself_gets_nothing_added():
    """Also by position, before there was a call of the UNet and after one with residuals."""
    clip, unet = ImageClip(svd_unet()), svd_unet()
    blocks, calls = (unet.mid_block, unet.up_blocks[0]), []

    def note(module, args, kwargs, out):
        bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
        calls.append((bound.args, out))

    handles = [block.register_forward_hook(note, with_kwargs=True) for block in blocks]
    unet(**given(clip))
    [handle.remove() for handle in handles]
    with residual_inputs(unet):
        for _ in range(2):
            for block, ((_, *args), out) in zip(blocks, calls, strict=True):
                assert torch.equal(block(*args), out)
            unet(**given(clip), **residuals(clip))


def test_a_unet_with_residual_inputs_is_left_alone():
    unet = motion_unet()
    before = attributes(unet)
    with residual_inputs(unet):
        assert attributes(unet) == before


def test_residuals_of_another_unet_are_refused_and_undo_is_exact_after_an_exception():
    clip, unet = ImageClip(svd_unet()), svd_unet()
    before = attributes(unet)
    told = residuals(clip)
    told["down_block_additional_residuals"].pop()
    with pytest.raises(CacheStateError, match="3 residuals were given"), residual_inputs(unet):
        unet(**given(clip), **told)
    assert attributes(unet) == before


def test_a_cut_runs_the_controlnets_first_residual_alone(clip):
    graph = graph_of(clip)
    schedule = Schedule("test", (StepPlan(), StepPlan(frozenset({graph.depths[0]}))))
    ran = []
    deep = clip.controlnet.mid_block.resnets[0].spatial_res_block
    tail = clip.controlnet.controlnet_mid_block
    clip.timesteps = clip.timesteps[:2]
    stock = clip.run()
    handles = [m.register_forward_hook(lambda m, a, out: ran.append(m)) for m in (deep, tail)]
    with attach(schedule, graph=graph, unet=clip.unet, controlnet=clip.controlnet) as engine:
        outputs = clip.run(engine)
    [handle.remove() for handle in handles]
    assert ran.count(deep) == 1, "the dead ControlNet tail runs at the first step alone"
    assert torch.equal(outputs[0], stock[0]) and torch.isfinite(outputs[1]).all()
    assert engine.log.executed[1]["controlnet"] < 0.5 * engine.log.executed[0]["controlnet"]


def test_the_first_residual_is_what_a_cut_still_hears(clip):
    """With the outermost cut residual 0 is heard at the second step, and those behind the cut are not."""
    graph = graph_of(clip)
    plan = Schedule("test", (StepPlan(), StepPlan(frozenset({graph.depths[0]}))), lossless=False)

    def second(louder=None):
        """The second step's prediction, with one of the zero convolutions louder from then on."""
        with attach(plan, graph=graph, unet=clip.unet, controlnet=clip.controlnet) as engine:
            engine.at(0)
            clip.step(clip.timesteps[0])
            convs = clip.controlnet.controlnet_down_blocks
            before = [conv.weight.data.clone() for conv in convs]
            if louder is not None:
                convs[louder].weight.data.mul_(2.0)
            engine.at(1)
            prediction = clip.step(clip.timesteps[1])
            for conv, weight in zip(convs, before, strict=True):
                conv.weight.data.copy_(weight)
            return prediction

    plain = second()
    assert torch.equal(second(3), plain)
    assert not torch.equal(second(0), plain)


def test_held_residuals_are_those_of_the_key_step(clip):
    graph = graph_of(clip)
    held = frozenset(graph.residuals())
    schedule = Schedule("test", (StepPlan(), StepPlan(held)))
    clip.timesteps = clip.timesteps[:2]
    with attach(schedule, graph=graph, unet=clip.unet, controlnet=clip.controlnet) as engine:
        outputs = clip.run(engine)
        assert engine.log.executed[1]["controlnet"] == 0
    kept = []
    net, plain = clip.controlnet, type(clip.controlnet).forward

    class Held:
        def __call__(self, *args, **kwargs):
            kept.append(kept[0] if kept else plain(net, *args, **kwargs))
            return kept[-1]

    clip.controlnet = Held()
    assert all(torch.equal(a, b) for a, b in zip(outputs, clip.run(), strict=True))


def test_an_engine_goes_over_the_residual_inputs_and_only_one(clip):
    graph = graph_of(clip)
    plan = resolve("full").schedule(graph, 2)
    models = {"graph": graph, "unet": clip.unet, "controlnet": clip.controlnet}
    with (
        attach(plan, **models),
        pytest.raises(CacheStateError, match="already has a cache"),
        attach(plan, **models),
    ):
        pass
