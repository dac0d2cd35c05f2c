"""enable_cache on stock pipelines: every supported class, exact when off, clean between calls, undone."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import hgc_video
from hgc_video.errors import AdapterError, CacheStateError, InputError, PresetError
from hgc_video.plan.policies.hgc import HGC
from tests import tiny_pipelines as tiny

NAMES = list(tiny.PIPELINES)
CACHED = "hgc:interval=2,cut=1,gate=0.6,slope=0.5"


@cache
def case(name):
    """A pipeline that no test changes, and what it gives by itself."""
    pipe = tiny.make(name)
    return pipe, tiny.call(pipe, name)


def forwards(pipe):
    """What stands on the instances where a wrapper would stand."""
    models = [m for m in (pipe.unet, getattr(pipe, "controlnet", None)) if m is not None]
    return [sorted(vars(m)) for model in models for m in model.modules()], sorted(
        vars(pipe.scheduler)
    )


@pytest.mark.parametrize(
    ("name", "preset"),
    [("controlnet", "off"), ("controlnet", "full"), ("svd", "full"), ("sd controlnet in guess mode", "full")],
)  # fmt: skip
def test_without_reuse_the_result_is_the_same_to_the_bit(name, preset):
    """Of a pipeline of each kind; tests/test_host_checks.py has all classes under "full"."""
    pipe, plain = case(name)
    with hgc_video.enable_cache(pipe, preset) as cache:
        assert torch.equal(tiny.call(pipe, name), plain)
        assert cache.report.macs == cache.report.macs_baseline > 0


@pytest.mark.parametrize(
    "name",
    ["animatediff without guidance", "controlnet in a window", "two controlnets", "sparse controlnet", "pag",
     "svd", "sd controlnet in guess mode", "sdxl controlnet"],
)  # fmt: skip
def test_lossless_is_equal_within_rounding(name):
    pipe, plain = case(name)
    with hgc_video.enable_cache(pipe, "lossless") as cache:
        torch.testing.assert_close(tiny.call(pipe, name), plain, rtol=1e-3, atol=1e-3)
        assert 0 < cache.report.macs_saved < 0.3


@pytest.mark.parametrize(
    ("name", "preset"),
    [*((name, CACHED) for name in NAMES), ("animatediff two clips", "deepcache:interval=2"),
     ("sdxl", "deepcache:interval=2")],
)  # fmt: skip
def test_caches_run_save_and_come_off_clean(name, preset):
    pipe, plain = case(name)
    before = forwards(pipe)
    with hgc_video.enable_cache(pipe, preset) as cache:
        first = tiny.call(pipe, name)
        other = tiny.call(pipe, name, seed=1)
        again = tiny.call(pipe, name)
        assert torch.equal(first, again)
        tiny.assert_near(first, plain)
        with pytest.raises(AssertionError, match="relative distance"):
            tiny.assert_near(other, plain)
        assert 0.1 < cache.report.macs_saved < 0.95
        assert cache._run.engine.nbytes == 0
    assert forwards(pipe) == before
    assert torch.equal(tiny.call(pipe, name), plain)


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("controlnet", "quality"),
        ("controlnet", "turbo"),
        ("svd", "balanced"),
        ("sdxl controlnet", "fast"),
    ],
)
def test_every_preset_runs(name, preset):
    pipe, _ = case(name)
    plain = tiny.call(pipe, name, num_inference_steps=20)
    with hgc_video.enable_cache(pipe, preset) as cache:
        tiny.assert_near(tiny.call(pipe, name, num_inference_steps=20), plain, within=0.5)
        assert 0.2 < cache.report.macs_saved < 0.9
        assert "skip" in str(cache.report) or preset == "quality"


def test_at_few_steps_a_preset_computes_them_all():
    pipe = tiny.make("animatediff")
    plain = tiny.call(pipe, "animatediff", num_inference_steps=4)
    with hgc_video.enable_cache(pipe, "balanced") as cache:
        torch.testing.assert_close(
            tiny.call(pipe, "animatediff", num_inference_steps=4), plain, rtol=1e-3, atol=1e-3
        )
        assert cache.report.macs_saved < 0.1


def test_the_report_tells_the_steps_that_were_run():
    pipe = tiny.make("controlnet")
    with hgc_video.enable_cache(pipe, CACHED) as cache:
        with pytest.raises(CacheStateError, match="no run to report"):
            _ = cache.report
        tiny.call(pipe, "controlnet")
        report = cache.report
    assert report.pipeline == "AnimateDiffControlNetPipeline"
    assert (report.num_inference_steps, report.num_frames, len(report.steps)) == (5, 4, 5)
    assert "gated" in report.steps[-1].label and report.schedules[0].steps[-1].reason
    assert f"{100 * report.macs_saved:.1f} % saved" in str(report)


def test_a_clip_batch_counts_every_clip():
    pipe = tiny.make("animatediff")
    with hgc_video.enable_cache(pipe, CACHED) as cache:
        tiny.call(pipe, "animatediff")
        one = cache.report
        tiny.call(pipe, "animatediff", prompt=tiny.TWO)
        two = cache.report
    assert two.macs_baseline == 2 * one.macs_baseline
    # Text is projected once for both clips' worth of rows.
    assert two.macs == pytest.approx(2 * one.macs, rel=0.01)


def test_another_size_or_length_makes_a_new_plan():
    pipe = tiny.make("animatediff")
    plain = tiny.call(pipe, "animatediff", num_frames=3, num_inference_steps=4)
    with hgc_video.enable_cache(pipe, "full") as cache:
        tiny.call(pipe, "animatediff")
        assert torch.equal(
            tiny.call(pipe, "animatediff", num_frames=3, num_inference_steps=4), plain
        )
        assert (cache.report.num_frames, cache.report.num_inference_steps) == (3, 4)


def test_a_replaced_controlnet_is_wrapped_in_its_turn():
    pipe = tiny.make("controlnet")
    with hgc_video.enable_cache(pipe, "full") as cache:
        tiny.call(pipe, "controlnet")
        before, pipe.controlnet = (
            pipe.controlnet,
            tiny.MultiControlNetModel([tiny.controlnet(9)] * 1),
        )
        given = {"conditioning_frames": [tiny.images()], "controlnet_conditioning_scale": [0.7]}
        first = tiny.call(pipe, "controlnet", **given)
        assert cache.report.macs == cache.report.macs_baseline
    assert torch.equal(tiny.call(pipe, "controlnet", **given), first)
    assert "forward" not in vars(before)


@pytest.mark.parametrize("fast", [False, True])
def test_free_init_starts_clean_at_every_iteration(fast):
    pipe = tiny.make("animatediff")
    pipe.enable_free_init(num_iters=2, use_fast_sampling=fast)
    plain = tiny.call(pipe, "animatediff")
    with hgc_video.enable_cache(pipe, "full"):
        assert torch.equal(tiny.call(pipe, "animatediff"), plain)
    with hgc_video.enable_cache(pipe, CACHED):
        cached = tiny.call(pipe, "animatediff")
        tiny.assert_near(cached, plain)
        assert torch.equal(cached, tiny.call(pipe, "animatediff"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("LCMScheduler", {}),
        ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),  # as Lightning is run
        ("EulerAncestralDiscreteScheduler", {}),
        ("DPMSolverMultistepScheduler", {}),
        ("HeunDiscreteScheduler", {}),  # two evaluations in most steps
    ],
)
def test_every_kind_of_scheduler_tells_where_the_run_is(name, options):
    import diffusers

    pipe = tiny.make("controlnet")
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **options)
    plain = tiny.call(pipe, "controlnet", num_inference_steps=4)
    with hgc_video.enable_cache(pipe, "full") as cache:
        assert torch.equal(tiny.call(pipe, "controlnet", num_inference_steps=4), plain)
        assert cache.report.num_inference_steps == len(pipe.scheduler.timesteps)
    with hgc_video.enable_cache(pipe, CACHED) as cache:
        tiny.assert_near(tiny.call(pipe, "controlnet", num_inference_steps=4), plain, within=0.5)
        assert cache.report.macs_saved > 0.2


def test_guidance_dropped_by_a_callback_is_planned_anew():
    pipe = tiny.make("animatediff")

    def drop(pipe, index, t, values):
        if index == 1:
            pipe._guidance_scale = 1.0
            values["prompt_embeds"] = values["prompt_embeds"][tiny.FRAMES :]
        return values

    options = {
        "callback_on_step_end": drop,
        "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"],
    }
    plain = tiny.call(pipe, "animatediff", **options)
    with hgc_video.enable_cache(pipe, "full") as cache:
        assert torch.equal(tiny.call(pipe, "animatediff", **options), plain)
        assert len(cache.report.steps) == 5
    with hgc_video.enable_cache(pipe, CACHED) as cache:
        tiny.assert_near(tiny.call(pipe, "animatediff", **options), plain)
        assert cache.report.macs_saved > 0


def test_a_run_that_was_broken_off_leaves_nothing():
    pipe = tiny.make("animatediff")
    plain = tiny.call(pipe, "animatediff")

    def stop(pipe, index, t, values):
        raise KeyboardInterrupt

    with hgc_video.enable_cache(pipe, "full"):
        with pytest.raises(KeyboardInterrupt):
            tiny.call(pipe, "animatediff", callback_on_step_end=stop)
        assert torch.equal(tiny.call(pipe, "animatediff"), plain)


def _in_place(model, counter):
    model.compile(backend=counter, fullgraph=True)
    return model


COMPILED = {
    "around": lambda model, counter: torch.compile(model, backend=counter, fullgraph=True),
    "in place": _in_place,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "preset", "how"),
    [
        ("sd", "lossless", "around"),
        ("sd controlnet", "hgc:interval=2,cut=1,gate=0.5,slope=0.5", "in place"),
    ],
)
def test_compiled_models_are_whole_graphs_and_not_compiled_again_at_the_next_call(
    name, preset, how
):
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    pipe, steps = tiny.make(name), 2
    with hgc_video.enable_cache(pipe, preset) as cache:
        expected = tiny.call(pipe, name, num_inference_steps=steps)
        macs = cache.report.macs
    counter = CompileCounter()
    pipe.unet = COMPILED[how](pipe.unet, counter)
    if name == "sd controlnet":
        pipe.controlnet = COMPILED[how](pipe.controlnet, counter)
    limit = torch._dynamo.config.recompile_limit
    with hgc_video.enable_cache(pipe, preset) as cache:
        first = tiny.call(pipe, name, num_inference_steps=steps)
        graphs = counter.frame_count
        assert 1 < graphs <= steps * (1 + (name == "sd controlnet"))
        again = tiny.call(pipe, name, num_inference_steps=steps)
        assert counter.frame_count == graphs and cache.report.macs == macs
    assert torch._dynamo.config.recompile_limit == limit
    torch.testing.assert_close(first, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(first, again)
    torch._dynamo.reset()


def test_an_iterated_progress_bar_and_one_without_a_loop_are_the_pipelines_own():
    pipe = tiny.make("sd")
    with hgc_video.enable_cache(pipe, "full") as cache:
        assert list(pipe.progress_bar([1, 2])) == [1, 2]
        with pipe.progress_bar(total=2) as bar:
            bar.update()
        with pytest.raises(CacheStateError, match="no run to report"):
            _ = cache.report


def test_a_cache_disabled_within_the_loop_lets_it_go_on():
    pipe = tiny.make("sd")
    plain = tiny.call(pipe, "sd")
    before = forwards(pipe)
    cache = hgc_video.enable_cache(pipe, "full")

    def off(pipe, index, t, values):
        cache.disable()
        return values

    assert torch.equal(tiny.call(pipe, "sd", callback_on_step_end=off), plain)
    assert forwards(pipe) == before and len(cache.report.steps) == 1


def test_what_is_counted_is_what_a_counter_sees_also_of_fused_projections():
    from hgc_video.measure.macs import MacCounter

    pipe = tiny.make("sd")
    given = {"prompt": None, "prompt_embeds": torch.randn(1, 9, 32), "guidance_scale": 1.0}
    with hgc_video.enable_cache(pipe, "lossless") as cache:
        tiny.call(pipe, "sd", **given)  # makes the plan, which is a run on the meta device
        for change in (lambda: None, pipe.fuse_qkv_projections):
            change()
            with MacCounter() as counter:
                tiny.call(pipe, "sd", **given)
            assert counter.macs == cache.report.macs


def test_two_pipelines_never_meet():
    one, two = tiny.make("animatediff"), tiny.make("animatediff")
    alone = {}
    for pipe, preset in ((one, CACHED), (two, "deepcache:interval=2")):
        with hgc_video.enable_cache(pipe, preset):
            alone[preset] = tiny.call(pipe, "animatediff")
    with hgc_video.enable_cache(one, CACHED), hgc_video.enable_cache(two, "deepcache:interval=2"):
        assert torch.equal(tiny.call(one, "animatediff"), alone[CACHED])
        assert torch.equal(tiny.call(two, "animatediff"), alone["deepcache:interval=2"])
        assert torch.equal(tiny.call(one, "animatediff"), alone[CACHED])


def test_a_policy_may_be_an_object_or_a_name_with_fields():
    pipe = tiny.make("animatediff")
    results = []
    for policy, fields in ((HGC(interval=3, cut=1), {}), ("hgc", {"interval": 3, "cut": 1})):
        with hgc_video.enable_cache(pipe, policy, **fields):
            results.append(tiny.call(pipe, "animatediff"))
    assert torch.equal(*results)
    with pytest.raises(PresetError, match='no field "intervall": did you mean "interval"'):
        hgc_video.enable_cache(pipe, "hgc", intervall=3)


def test_a_policy_that_forecasts_clean_latents_asks_the_pipelines_scheduler():
    pipe, plain = case("controlnet")
    with hgc_video.enable_cache(pipe, "sada:fixed=0") as cache:
        found = tiny.call(pipe, "controlnet")
        assert torch.isfinite(found).all() and not torch.equal(found, plain)
        assert 0.1 < cache.report.macs_saved < 0.5
    pipe, plain = case("svd")  # whose timesteps are no places in a table of levels
    refused = pytest.raises(CacheStateError, match="has no noise levels by timestep")
    with hgc_video.enable_cache(pipe, "sada:fixed=0"), refused:
        tiny.call(pipe, "svd")
    assert torch.equal(tiny.call(pipe, "svd"), plain)


def test_what_is_no_policy_is_told_in_a_line():
    pipe = tiny.make("sd")
    with pytest.raises(InputError, match=r"HGC is a class; give a policy object, HGC\(...\)"):
        hgc_video.enable_cache(pipe, HGC)
    with pytest.raises(PresetError, match="is 2 policies, and fields belong to one"):
        hgc_video.enable_cache(pipe, "deepcache:interval=3+gate:at=0.4", at=0.5)
    with pytest.raises(PresetError, match='"off" takes no fields'):
        hgc_video.enable_cache(pipe, "off", at=0.5)
    with (
        hgc_video.enable_cache(pipe, lambda graph, steps: None),
        pytest.raises(PresetError, match=r"gave NoneType .* gives a Schedule or an AdaptivePlan"),
    ):
        tiny.call(pipe, "sd")
    hgc_video.enable_cache(pipe).disable()


def test_twice_is_refused_and_disable_cache_finds_it():
    pipe = tiny.make("animatediff")
    hgc_video.enable_cache(pipe)
    with pytest.raises(CacheStateError, match="has a cache already"):
        hgc_video.enable_cache(pipe)
    hgc_video.disable_cache(pipe)
    hgc_video.disable_cache(pipe)
    hgc_video.enable_cache(pipe).disable()


def test_a_replaced_scheduler_is_listened_to_from_the_next_call_on():
    pipe = tiny.make("animatediff")
    before = pipe.scheduler
    with hgc_video.enable_cache(pipe, CACHED) as cache:
        first = tiny.call(pipe, "animatediff")
        pipe.scheduler = tiny.scheduler()
        assert torch.equal(tiny.call(pipe, "animatediff"), first)
        assert cache.report.macs_saved > 0.1
    assert "step" not in vars(before) and "step" not in vars(pipe.scheduler)


def test_a_scheduler_replaced_within_the_loop_is_an_error():
    pipe = tiny.make("animatediff")

    def replace(pipe, index, t, values):
        pipe.scheduler = pipe.scheduler.from_config(pipe.scheduler.config)
        pipe.scheduler.set_timesteps(5)
        return values

    with (
        hgc_video.enable_cache(pipe, "full"),
        pytest.raises(CacheStateError, match="scheduler was replaced within its loop"),
    ):
        tiny.call(pipe, "animatediff", callback_on_step_end=replace)


def test_an_unknown_pipeline_is_refused_with_the_list():
    class Other:
        pass

    with pytest.raises(
        AdapterError, match=r"Other is not supported: .*AnimateDiffControlNetPipeline"
    ):
        hgc_video.enable_cache(Other())


def test_a_preset_has_a_net_where_the_scheduler_adds_noise():
    import diffusers

    pipe = tiny.make("controlnet")
    with hgc_video.enable_cache(pipe, "fast") as cache:
        tiny.call(pipe, "controlnet", num_inference_steps=8)
        assert cache.report.schedules[0].name == "fast"
        pipe.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(
            pipe.scheduler.config
        )
        tiny.call(pipe, "controlnet", num_inference_steps=8)
        assert cache.report.schedules[0].name == "fast+net"
        errors = [row.forecast_error for row in cache.report.steps]
        assert any(error is not None for error in errors)
        assert "measured  " in str(cache.report)
