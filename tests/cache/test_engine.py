"""The engine on tiny random models of the stock classes: exactness, cost, clean state, exact undo."""

from __future__ import annotations

import pytest
import torch

from hgc_video.cache.engine import attach
from hgc_video.errors import CacheStateError
from hgc_video.measure.macs import MacCounter
from hgc_video.plan.cost import cost, full_cost
from hgc_video.plan.liveness import live
from hgc_video.plan.policies.full import Full
from hgc_video.plan.policies.hgc import HGC
from hgc_video.plan.policies.lossless import Lossless
from hgc_video.plan.presets import resolve
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.tiny_models import CLIPS, Clip, controlnet, graph_of, image_unet, motion_unet

STEPS = 5


@pytest.fixture(params=CLIPS)
def clip(request):
    return CLIPS[request.param]()


@pytest.fixture
def motion_clip():
    return Clip(motion_unet(), controlnet())


def accelerated(clip, schedule, graph=None):
    graph = graph or graph_of(clip)
    with attach(schedule, graph=graph, unet=clip.unet, controlnet=clip.controlnet) as engine:
        return clip.run(engine), engine


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_full_through_all_wrappers_is_bit_identical(clip):
    outputs, _ = accelerated(clip, Full()(graph_of(clip), STEPS))
    assert same(outputs, clip.run())


def test_lossless_is_equal_within_rounding(clip):
    outputs, engine = accelerated(clip, Lossless()(graph_of(clip), STEPS))
    for ours, stock in zip(outputs, clip.run(), strict=True):
        torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)
    assert sum(engine.log.macs_by_part().values()) < full_cost(graph_of(clip), STEPS).total


def test_per_frame_prompts_are_honoured(motion_clip):
    motion_clip.text = torch.randn(motion_clip.text.shape)
    graph = graph_of(motion_clip)
    outputs, _ = accelerated(motion_clip, Lossless()(graph, STEPS), graph)
    for ours, stock in zip(outputs, motion_clip.run(), strict=True):
        torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)


def test_different_control_clips_in_the_branches_are_honoured(motion_clip):
    motion_clip.hint = torch.rand(motion_clip.hint.shape)
    outputs, _ = accelerated(motion_clip, Lossless()(graph_of(motion_clip), STEPS))
    for ours, stock in zip(outputs, motion_clip.run(), strict=True):
        torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)


POLICIES_TRIED = [
    "full", "lossless", "deepcache:interval=2", "deepcache:interval=2+lossless",
    "deepcache:interval=3,branch=1,controlnet_interval=3+gate:at=0.6", "hgc:interval=3,cut=2,gate=0.6",
    "hgc:dense=0.4,interval=3,cut=1,gate=0.6,slope=0.5,online=True",
    "hgc:interval=3,cut=2,gate=0.6,slope=0.5,dense=0.4,lambda_intra=0.5,cross_interval=2",
    "hgc:interval=2,gate=0.4,difference_interval=2,anchor_stride=2", "tgate:gate=3,warm_up=0,sp_interval=2",
    "tgate:gate=2,temporal_interval=2,fi_interval=2+lossless", "faster-diffusion:mod=2", "clockwork:clock=2",
    "pab:skip_first=0,skip_last=0", "fastercache:first=0.4,guidance_first=0.4,guidance_interval=2",
    "gate", "easycache:threshold=9,warm_up=2", "hgc-online:threshold=9,gate=0.6",
    "spectrum:warm_up=2,flex=0,w=0.5", "spectrum:warm_up=2,of=features+lossless",
    "ucache:threshold=9,start=0",
]  # fmt: skip


def tried():
    """Every policy on the motion UNet and on one of the six other clips, each of which has its turns."""
    motion, *others = CLIPS
    for i, policy in enumerate(POLICIES_TRIED):
        for kind in (motion, others[i % len(others)]):
            yield pytest.param(kind, policy, id=f"{kind}-{policy}")


@pytest.mark.parametrize(("kind", "name"), list(tried()))
def test_executed_macs_are_the_planned_ones_and_the_counted_ones(kind, name):
    clip = CLIPS[kind]()
    graph = graph_of(clip)
    schedule = resolve(name).schedule(graph, STEPS)
    with attach(schedule, graph=graph, unet=clip.unet, controlnet=clip.controlnet) as engine:
        with MacCounter() as counter:
            clip.run(engine)
        planned = cost(graph, engine.log.record())
        assert engine.log.macs_by_part() == planned.by_part()
        assert counter.macs == pytest.approx(planned.total, rel=1e-9)
    if isinstance(schedule, Schedule):
        assert engine.log.record() == schedule
    assert planned.total <= full_cost(graph, STEPS).total


def test_full_cost_is_what_the_host_runs(clip):
    with MacCounter() as counter:
        clip.step(clip.timesteps[0])
    assert counter.macs == full_cost(graph_of(clip), 1).total


def test_a_held_output_is_the_one_of_the_key_step(motion_clip):
    """Against a reference made by plain torch hooks: the cut's tensor is replaced by the key step's."""
    graph = graph_of(motion_clip)
    cut = graph.depths[0]
    schedule = Schedule("test", (StepPlan(), StepPlan(frozenset({cut}))))
    module = motion_clip.unet.get_submodule(cut.removeprefix("unet."))
    motion_clip.timesteps = motion_clip.timesteps[:2]
    outputs, engine = accelerated(motion_clip, schedule, graph)
    kept = []
    handle = module.register_forward_hook(lambda m, a, out: kept[0] if kept else kept.append(out))
    reference = motion_clip.run()
    handle.remove()
    assert same(outputs, reference)
    assert not torch.equal(outputs[1], motion_clip.run()[1])
    assert engine.log.executed[1]["controlnet"] < engine.log.executed[0]["controlnet"]


def test_the_truncated_controlnet_gives_the_residuals_that_are_read(motion_clip):
    """With only the outermost cut alive, residual 0 alone is read: the reference replaces all others by
    noise, and the cut's tensor by the key step's."""
    graph = graph_of(motion_clip)
    cut, net = graph.depths[0], motion_clip.controlnet
    schedule = Schedule("test", (StepPlan(), StepPlan(frozenset({cut}))))
    alive = live(graph, schedule.steps[1]).computed
    assert [n for n in graph.names("zero_conv") if n in alive] == [
        "controlnet.controlnet_down_blocks.0"
    ]
    motion_clip.timesteps = motion_clip.timesteps[:2]
    outputs, engine = accelerated(motion_clip, schedule, graph)
    held = []
    module = motion_clip.unet.get_submodule(cut.removeprefix("unet."))
    handle = module.register_forward_hook(lambda m, a, out: held.append(out))
    motion_clip.step(motion_clip.timesteps[0])
    handle.remove()
    handles = [module.register_forward_hook(lambda m, a, out: held[0])]
    for conv in (*net.controlnet_down_blocks[1:], net.controlnet_mid_block):
        handles.append(conv.register_forward_hook(lambda m, a, out: 10 * torch.randn_like(out)))
    reference = motion_clip.step(motion_clip.timesteps[1])
    first = net.controlnet_down_blocks[0]
    handles.append(first.register_forward_hook(lambda m, a, out: 10 * torch.randn_like(out)))
    changed = motion_clip.step(motion_clip.timesteps[1])
    [handle.remove() for handle in handles]
    torch.testing.assert_close(outputs[1], reference, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(changed, reference, atol=1e-3), "residual 0 is read"
    assert engine.log.executed[1]["controlnet"] < 0.3 * engine.log.executed[0]["controlnet"]


def test_after_the_gate_one_branch_is_left_and_guidance_gives_it_back(motion_clip):
    graph = graph_of(motion_clip)
    outputs, engine = accelerated(motion_clip, HGC(dense=1, gate=0.6)(graph, STEPS), graph)
    for i, output in enumerate(outputs):
        uncond, cond = output.chunk(2)
        assert torch.equal(uncond, cond) == (i >= 3)
    assert engine.log.executed[4]["unet"] < 0.5 * engine.log.executed[1]["unet"]


def test_the_gate_fuses_cross_attention_as_published(motion_clip):
    """T-GATE eq. 6: after the gate every cross-attention is the mean of both branches at the gate."""
    graph = graph_of(motion_clip)
    crosses = graph.attention_names("cross")
    assert crosses
    outputs, _ = accelerated(motion_clip, HGC(dense=1, gate=0.6)(graph, STEPS), graph)
    modules = {n: motion_clip.unet.get_submodule(n.removeprefix("unet.")) for n in crosses}
    means, handles = {}, []
    for name, module in modules.items():
        handles.append(
            module.register_forward_hook(
                lambda m, a, out, n=name: means.update({n: sum(out.chunk(2)) / 2})
            )
        )
    motion_clip.step(motion_clip.timesteps[2])
    [handle.remove() for handle in handles]
    handles = [m.register_forward_hook(lambda m, a, out, n=n: means[n]) for n, m in modules.items()]
    alone = Clip(motion_clip.unet, motion_clip.controlnet, guided=False)
    alone.latents, alone.text = motion_clip.latents, motion_clip.text.chunk(2)[1]
    alone.hint = motion_clip.hint.chunk(2)[1]
    reference = alone.step(alone.timesteps[3])
    [handle.remove() for handle in handles]
    torch.testing.assert_close(outputs[3].chunk(2)[1], reference, rtol=1e-5, atol=1e-5)


def test_undo_is_exact_also_after_an_exception(motion_clip):
    graph = graph_of(motion_clip)
    models = (motion_clip.unet, motion_clip.controlnet)
    before = [{n: set(m.__dict__) for n, m in model.named_modules()} for model in models]
    stock = motion_clip.run()
    with (
        pytest.raises(ZeroDivisionError),
        attach(HGC()(graph, STEPS), graph=graph, unet=models[0], controlnet=models[1]) as engine,
    ):
        engine.at(0)
        motion_clip.step(motion_clip.timesteps[0])
        raise ZeroDivisionError
    after = [{n: set(m.__dict__) for n, m in model.named_modules()} for model in models]
    assert before == after
    assert engine.store.nbytes == 0
    assert same(motion_clip.run(), stock)


def test_a_new_run_starts_clean(motion_clip):
    graph = graph_of(motion_clip)
    schedule = HGC(interval=3)(graph, STEPS)
    other = Clip(motion_clip.unet, motion_clip.controlnet)
    other.latents, other.text = other.latents.flip(-1), other.text.flip(1)
    alone, _ = accelerated(other, schedule, graph)
    with attach(
        schedule, graph=graph, unet=motion_clip.unet, controlnet=motion_clip.controlnet
    ) as engine:
        motion_clip.run(engine)
        assert same(other.run(engine), alone)


def test_two_engines_do_not_see_each_other():
    first, second = Clip(motion_unet(), controlnet()), Clip(image_unet(), controlnet())
    graphs = graph_of(first), graph_of(second)
    plans = [HGC(interval=3)(graph, STEPS) for graph in graphs]
    alone = [
        accelerated(c, p, g)[0] for c, p, g in zip((first, second), plans, graphs, strict=True)
    ]
    with (
        attach(plans[0], graph=graphs[0], unet=first.unet, controlnet=first.controlnet) as a,
        attach(plans[1], graph=graphs[1], unet=second.unet, controlnet=second.controlnet) as b,
    ):
        for i, t in enumerate(first.timesteps):
            a.at(i)
            b.at(i)
            assert torch.equal(first.step(t), alone[0][i])
            assert torch.equal(second.step(t), alone[1][i])


def test_other_frames_in_the_middle_of_a_run_are_an_error(motion_clip):
    graph = graph_of(motion_clip)
    schedule = resolve("deepcache:interval=2").schedule(graph, STEPS)
    with attach(
        schedule, graph=graph, unet=motion_clip.unet, controlnet=motion_clip.controlnet
    ) as engine:
        engine.at(0)
        motion_clip.step(motion_clip.timesteps[0])
        engine.at(1)
        motion_clip.latents, motion_clip.text = motion_clip.latents[:, :, :2], motion_clip.text[:4]
        motion_clip.hint = motion_clip.hint[:4]
        with pytest.raises(CacheStateError, match="rows"):
            motion_clip.step(motion_clip.timesteps[1])


def test_an_untold_or_impossible_position_is_an_error(motion_clip):
    graph = graph_of(motion_clip)
    with attach(
        Full()(graph, 2), graph=graph, unet=motion_clip.unet, controlnet=motion_clip.controlnet
    ) as engine:
        with pytest.raises(CacheStateError, match="does not know the step"):
            motion_clip.step(motion_clip.timesteps[0])
        with pytest.raises(CacheStateError, match="beyond"):
            engine.at(2)


def test_only_what_is_read_later_is_kept(motion_clip):
    graph = graph_of(motion_clip)
    schedule = resolve("deepcache:interval=3").schedule(graph, STEPS)
    with attach(
        schedule, graph=graph, unet=motion_clip.unet, controlnet=motion_clip.controlnet
    ) as engine:
        kept = []
        for i, t in enumerate(motion_clip.timesteps):
            engine.at(i)
            kept.append(engine.store.nbytes)
            motion_clip.step(t)
        assert kept == [0, *cost(graph, schedule).nbytes[:-1]]


def test_without_guidance_and_without_controlnet():
    clip = Clip(motion_unet(), None, guided=False)
    graph = graph_of(clip)
    outputs, engine = accelerated(clip, HGC(interval=2)(graph, STEPS), graph)
    assert same(outputs[:1], clip.run()[:1])
    assert engine.log.macs_by_part()["controlnet"] == 0


@pytest.mark.parametrize("same", [True, False])
def test_a_text_is_counted_for_each_window_that_has_another_one(same, motion_clip):
    """As prompts that travel over a long clip give it."""
    texts = [motion_clip.text, motion_clip.text + (0 if same else 1)]
    plan = Schedule("test", (StepPlan(),) * 2)
    models = {"unet": motion_clip.unet, "controlnet": motion_clip.controlnet}
    with attach(plan, graph=graph_of(motion_clip), **models) as engine, MacCounter() as counter:
        for i, t in enumerate(motion_clip.timesteps[:2]):
            engine.only_windows({0, 1}, 0)
            for window in (0, 1):
                motion_clip.text = texts[window]
                engine.at(i, window)
                motion_clip.step(t)
    assert sum(engine.log.macs_by_part().values()) == counter.macs
