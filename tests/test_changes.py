"""What changes within a run under enable_cache: prompts, control, adapters, foreign calls, bars, FreeNoise.

The cases are those of scripts/fault_table.py; here their results are held to the right ones.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import diffusers
import pytest
import torch

import hgc_video
from hgc_video.cache.inputs import Inputs
from hgc_video.errors import AdapterError, CacheStateError
from hgc_video.measure.macs import MacCounter
from hgc_video.models.state import ModelState
from hgc_video.plan.presets import resolve
from tests import tiny_pipelines as tiny

_SPEC = importlib.util.spec_from_file_location(
    "fault_table", Path(__file__).resolve().parent.parent / "scripts" / "fault_table.py"
)
faults = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(faults)

CACHED = "hgc:interval=2,cut=1,gate=0.6,slope=0.5"
NOTHING_CHANGES = (
    "unchanged",
    "unet_called",
    "pipeline_called",
    "bar_around_calls",
    "bar_put_on_later",
)
ALL = [case.__name__ for case in faults.CASES]


@pytest.mark.parametrize("name", ["controlnet", "svd", "sdxl controlnet"])
def test_lossless_honours_every_change_and_presets_compute_the_step_in_full(name):
    table = list(faults.rows(name, ["lossless", CACHED], ALL, 5))
    seen = {row["case"] for row in table}
    assert seen >= {*NOTHING_CHANGES, "weights_written_to"}
    assert ("lora_switched" in seen) == ("lora_loaded" in seen) == (name != "svd")
    assert ("prompt_replaced" in seen) == (name != "svd")
    assert ("control_replaced" in seen) == (name == "sdxl controlnet")
    saved = {row["policy"]: row["macs_saved"] for row in table if row["case"] == "unchanged"}
    for row in table:
        assert "error" not in row, row
        case, distances = row["case"], [row["distance"], *row["others"]]
        if row["policy"] == "lossless":
            assert max(distances) < 1e-5, row
        if case in NOTHING_CHANGES:
            assert row["macs_saved"] == saved[row["policy"]], row
            assert row["effect"] == 0 and row["distance"] == row["distance_without"]
        elif case not in ("lora_active", "free_noise"):
            assert row["effect"] > 1e-5, row
            assert row["macs_saved"] < saved[row["policy"]], "what is made anew is counted"
            assert row["distance"] < max(row["effect"], 2 * row["distance_without"]), row
        if case in ("unet_called", "pipeline_called") and row["policy"] == CACHED:
            # A call that is not the loop's runs stock; its inputs are those of a cached ControlNet.
            assert max(row["others"]) < 1e-6, row


def changing(pipe, **changes):
    """Call options: a callback that returns other tensors after step 1."""

    def end(pipe, index, t, tensors):
        if index == 1:
            tensors |= {name: change(tensors[name]) for name, change in changes.items()}
        return tensors

    return {"callback_on_step_end": end, "callback_on_step_end_tensor_inputs": [*changes]}


@pytest.mark.parametrize("preset", ["lossless", CACHED, "deepcache:interval=3"])
def test_what_is_counted_after_a_change_is_what_a_counter_sees(preset):
    pipe = tiny.make("sd controlnet")
    given = {
        "prompt": None, "prompt_embeds": torch.randn(1, 9, 32), "guidance_scale": 1.0,
        "num_images_per_prompt": 1,
    }  # fmt: skip
    given |= changing(pipe, prompt_embeds=lambda rows: rows.flip(-1), image=lambda image: 1 - image)
    with hgc_video.enable_cache(pipe, preset) as cache:
        tiny.call(
            pipe, "sd controlnet", **given
        )  # makes the plans, which are runs on the meta device
        with MacCounter() as counter:
            tiny.call(pipe, "sd controlnet", **given)
        assert counter.macs == cache.report.macs
        assert len(cache.report.steps) == 5


@pytest.mark.parametrize("preset", ["lossless", "deepcache:interval=3,controlnet_interval=3"])
def test_a_prompt_of_another_length_is_planned_for_its_own_sizes(preset):
    pipe = tiny.make("sd controlnet")
    given = {
        "prompt": None, "prompt_embeds": torch.randn(1, 9, 32), "guidance_scale": 1.0,
        "num_images_per_prompt": 1,
    }  # fmt: skip
    given |= changing(pipe, prompt_embeds=lambda rows: torch.cat([rows, rows.flip(1)], 1))
    plain = tiny.call(pipe, "sd controlnet", **given)
    with hgc_video.enable_cache(pipe, preset) as cache:
        tiny.call(pipe, "sd controlnet", **given)  # makes the plans
        with MacCounter() as counter:
            found = tiny.call(pipe, "sd controlnet", **given)
        assert counter.macs == cache.report.macs
        assert [len(schedule.steps) for schedule in cache.report.schedules] == [2, 3]
    if preset == "lossless":
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)


def test_the_rest_of_a_run_may_be_planned_without_a_cache():
    """The ControlNet was left out of the step by the plan before, and runs for the stock UNet."""
    pipe = tiny.make("controlnet")

    def end(pipe, index, t, tensors):
        if index == 1:
            pipe._cross_attention_kwargs = {"unknown_to_processors": 1.0}
        return tensors

    def policy(graph, num_steps):
        text = "deepcache:interval=4,controlnet_interval=4" if num_steps == 3 else "off"
        return resolve(text).schedule(graph, num_steps)

    plain = tiny.call(pipe, "controlnet", num_inference_steps=3, callback_on_step_end=end)
    with hgc_video.enable_cache(pipe, policy) as cache:
        kept = tiny.call(pipe, "controlnet", num_inference_steps=3)
        given = tiny.call(pipe, "controlnet", num_inference_steps=3, callback_on_step_end=end)
        assert [len(schedule.steps) for schedule in cache.report.schedules] == [2, 1]
    assert (given - plain).norm() < (kept - plain).norm()


def test_an_equal_copy_changes_nothing():
    pipe = tiny.make("sd controlnet")
    given = changing(pipe, prompt_embeds=torch.clone, image=torch.clone)
    with hgc_video.enable_cache(pipe, CACHED) as cache:
        expected = tiny.call(pipe, "sd controlnet")
        saved = cache.report.macs_saved
        assert torch.equal(tiny.call(pipe, "sd controlnet", **given), expected)
        assert cache.report.macs_saved == saved


def test_a_change_that_the_unet_alone_sees_runs_the_controlnet_of_that_step_again():
    """By the plan before, the ControlNet has been left out of this step already."""
    pipe = tiny.make("controlnet")
    policy = "deepcache:interval=4,controlnet_interval=4"

    def end(pipe, index, t, tensors):
        if index == 1:
            pipe._cross_attention_kwargs = {"unknown_to_processors": 1.0}
        return tensors

    plain = tiny.call(pipe, "controlnet", num_inference_steps=3, callback_on_step_end=end)
    with hgc_video.enable_cache(pipe, policy) as cache:
        kept = tiny.call(pipe, "controlnet", num_inference_steps=3)
        given = tiny.call(pipe, "controlnet", num_inference_steps=3, callback_on_step_end=end)
        assert len(cache.report.steps) == 3
        full = cache.report.macs_baseline // 3
        assert cache.report.macs > 2 * full, "steps 0 and 2 in full"
    # Only step 1 reuses anything, so that the result is nearer than that of the run that goes on.
    assert (given - plain).norm() < (kept - plain).norm()


@pytest.mark.parametrize("preset", ["full", "lossless", CACHED])
def test_lora_scaled_by_keyword_is_one_state_and_another_one_is_honoured(preset):
    pipe = tiny.make("sd")
    faults._adapter(pipe, "one", 11)

    def end(pipe, index, t, tensors):
        if index == 1:
            pipe._cross_attention_kwargs = {"scale": 0.1}
        return tensors

    options = {"cross_attention_kwargs": {"scale": 0.7}}
    same, other = (
        tiny.call(pipe, "sd", **options, **more) for more in ({}, {"callback_on_step_end": end})
    )
    with hgc_video.enable_cache(pipe, preset) as cache:
        near = tiny.call(pipe, "sd", **options) - same
        saved = cache.report.macs_saved
        far = tiny.call(pipe, "sd", **options, callback_on_step_end=end) - other
        assert (saved > cache.report.macs_saved) == (preset != "full")
        assert saved > 0.3 or preset != CACHED, "the scale that comes and goes is no change"
    if preset != CACHED:
        assert near.abs().max() < 1e-3 and far.abs().max() < 1e-3


def test_switches_of_the_model_are_part_of_its_state():
    pipe = tiny.make("sd")

    def end(pipe, index, t, tensors):
        if index == 1:
            pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
        if index == 3:
            pipe.disable_freeu()
        return tensors

    plain = tiny.call(pipe, "sd", num_inference_steps=6, callback_on_step_end=end)
    with hgc_video.enable_cache(pipe, CACHED):
        given = tiny.call(pipe, "sd", num_inference_steps=6, callback_on_step_end=end)
        tiny.assert_near(given, plain)
    with hgc_video.enable_cache(pipe, "lossless"):
        given = tiny.call(pipe, "sd", num_inference_steps=6, callback_on_step_end=end)
    torch.testing.assert_close(given, plain, rtol=1e-3, atol=1e-3)


def test_a_unet_replaced_in_a_callback_is_the_one_that_is_wrapped():
    pipe = tiny.make("sd")
    before, after = pipe.unet, tiny.make("sd").unet
    with torch.no_grad():
        after.conv_in.weight.mul_(0.5)

    def end(pipe, index, t, tensors):
        pipe.unet = after if index >= 1 else before
        return tensors

    plain = tiny.call(pipe, "sd", callback_on_step_end=end)
    pipe.unet = before
    with hgc_video.enable_cache(pipe, "lossless") as cache:
        torch.testing.assert_close(
            tiny.call(pipe, "sd", callback_on_step_end=end), plain, rtol=1e-3, atol=1e-3
        )
        assert len(cache.report.steps) == 5
    assert "forward" not in vars(before) and "forward" not in vars(after)


def test_within_a_callback_the_models_are_as_they_were():
    pipe = tiny.make("controlnet")
    names = [sorted(vars(m)) for net in (pipe.unet, pipe.controlnet) for m in net.modules()]
    seen = []

    def end(pipe, index, t, tensors):
        seen.append(
            [sorted(vars(m)) for net in (pipe.unet, pipe.controlnet) for m in net.modules()]
        )
        return tensors

    with hgc_video.enable_cache(pipe, "balanced"):
        tiny.call(pipe, "controlnet", callback_on_step_end=end)
    assert seen == [names] * 5


def test_inputs_tell_versions_copies_views_and_kinds():
    inputs, rows, hint = Inputs(), torch.randn(4, 3), torch.randn(2, 2)
    call = {"sample": torch.randn(1), "encoder_hidden_states": rows, "added": {"ids": [hint, 1.0]}}
    assert not inputs.changed("unet", call), "the first one"
    assert not inputs.changed("unet", call | {"sample": torch.randn(1)})
    assert not inputs.changed("unet", call | {"encoder_hidden_states": rows.clone()})
    assert not inputs.changed("unet", call | {"encoder_hidden_states": rows[:]})
    assert inputs.changed("unet", call | {"encoder_hidden_states": rows[:2]})
    assert inputs.changed("unet", call)
    rows.add_(1)
    assert inputs.changed("unet", call) and not inputs.changed("unet", call)
    assert inputs.changed("unet", call | {"added": {"ids": [hint, 2.0]}})
    assert not inputs.changed("controlnet", call)
    with torch.inference_mode():  # what is written to there leaves no trace
        untraced = torch.ones(2)
        assert inputs.changed("unet", {"encoder_hidden_states": untraced})
        assert not inputs.changed("unet", {"encoder_hidden_states": untraced})
        untraced.add_(1)
        assert inputs.changed("unet", {"encoder_hidden_states": untraced})


def test_a_models_state_is_its_weights_and_switches():
    model, state = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.0)), ModelState()
    assert not state.changed(model) and not state.changed(model)
    changes = (
        lambda: model[0].weight.data.copy_(torch.ones(2, 2)),
        lambda: model[0].weight.detach().mul_(2),
        lambda: setattr(model[1], "p", 0.5),
        lambda: setattr(model[1], "scales", {"one": 1.0}),
        lambda: model[1].scales.update(one=0.5),
        lambda: model.append(torch.nn.Identity()),
        lambda: setattr(model[0], "weight", torch.nn.Parameter(torch.ones(2, 2))),
        lambda: setattr(model[1], "mix", torch.ones(1)),
        lambda: setattr(
            model[1], "mix", torch.ones(1)
        ),  # an equal one, which may be written to next
        lambda: model[1].mix.requires_grad_(False) and setattr(model[1], "heads", [torch.ones(1)]),
        lambda: model[1].heads.__setitem__(0, torch.ones(1)),
        lambda: delattr(model[1], "heads"),
        lambda: model[1].scales.update({"two": model[1].scales.pop("one")}),
        lambda: model[0].register_parameter("bias", None),
    )
    for change in changes[1:]:
        change()
        assert state.changed(model) and not state.changed(model)
    for _ in range(4):
        model[1].p = float("0.5")  # the same number as another object
        assert not state.changed(model) and not state.changed(model)
    model[1].p = 0.25
    assert state.changed(model) and not state.changed(model)
    assert state.changed(model, torch.nn.Identity())


# Bars and calls


def test_bars_of_the_user_around_within_and_over_calls_leave_the_run_whole():
    pipe = tiny.make("sd")
    plain = tiny.call(pipe, "sd")
    before, scheduler = set(vars(pipe)), set(vars(pipe.scheduler))

    def end(pipe, index, t, tensors):
        with pipe.progress_bar(total=2) as bar:
            bar.update()
        return tensors

    with hgc_video.enable_cache(pipe, "lossless") as cache:
        tiny.call(pipe, "sd")
        saved = cache.report.macs_saved
        with pipe.progress_bar(total=2):
            for _ in range(2):
                given = tiny.call(pipe, "sd", callback_on_step_end=end)
                torch.testing.assert_close(given, plain, rtol=1e-3, atol=1e-3)
                assert cache.report.macs_saved == saved > 0
                assert not {"step", "scale_model_input"} & set(vars(pipe.scheduler))
    assert set(vars(pipe)) == before and set(vars(pipe.scheduler)) == scheduler
    assert torch.equal(tiny.call(pipe, "sd"), plain)


def test_a_call_within_a_callback_of_the_same_pipeline_has_its_own_run():
    pipe = tiny.make("sd")
    found = []

    def end(pipe, index, t, tensors):
        if index == 2:
            found.append(tiny.call(pipe, "sd", seed=5))
        return tensors

    plain, inner = tiny.call(pipe, "sd", callback_on_step_end=end), found.pop()
    alone = tiny.call(pipe, "sd", seed=5)
    with hgc_video.enable_cache(pipe, "lossless") as cache:
        given = tiny.call(pipe, "sd", callback_on_step_end=end)
        assert len(cache.report.steps) == 5 and cache.report.macs_saved > 0
    torch.testing.assert_close(given, plain, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.pop(), inner, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(alone, inner, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("calls_ours", [True, False])
def test_a_bar_put_on_after_the_cache_is_followed_and_stays(calls_ours):
    pipe = tiny.make("sd")
    used = []
    with hgc_video.enable_cache(pipe, "lossless") as cache:
        stock = pipe.progress_bar if calls_ours else type(pipe).progress_bar.__get__(pipe)

        def mine(*args, **kwargs):
            used.append(1)
            return stock(*args, **kwargs)

        pipe.progress_bar = mine
        tiny.call(pipe, "sd")
        assert cache.report.macs_saved > 0 and len(cache.report.steps) == 5
    assert pipe.progress_bar is mine and len(used) == 1
    tiny.call(pipe, "sd")
    assert len(used) == 2
    hgc_video.enable_cache(pipe).disable()


def test_wrappers_put_over_ours_do_not_keep_a_cache_from_coming_off():
    pipe = tiny.make("sd")
    plain = tiny.call(pipe, "sd")
    cache = hgc_video.enable_cache(pipe, "lossless")

    def over(pipe, index, t, tensors):
        if index == 0:
            step = pipe.scheduler.step
            pipe.scheduler.step = lambda *args, **kwargs: step(*args, **kwargs)
        return tensors

    tiny.call(pipe, "sd", callback_on_step_end=over)
    cache.disable()
    assert torch.equal(tiny.call(pipe, "sd"), plain)
    hgc_video.enable_cache(pipe).disable()


def test_a_call_that_cannot_be_followed_says_so(monkeypatch):
    pipe = tiny.make("sd")
    stock = type(pipe).__call__

    def own(self, *args, **kwargs):
        self.scheduler.set_timesteps(2)
        self.check_inputs(None, 8, 8, 1)

    with hgc_video.enable_cache(pipe, "lossless"):
        own.__name__ = "__call__"
        own.__code__ = own.__code__.replace(co_name="__call__")
        monkeypatch.setattr(type(pipe), "__call__", own)
        with pytest.raises(
            CacheStateError, match=r"__call__ was replaced after the cache was enabled"
        ):
            pipe()
        monkeypatch.setattr(type(pipe), "__call__", stock)
        tiny.call(pipe, "sd")


# Subclasses


def test_pipelines_with_another_loop_are_refused_and_those_that_hand_on_are_not():
    class Twice(diffusers.StableDiffusionPipeline):
        def __call__(self, *args, **kwargs):
            self.unet(None)

    class HandsOn(diffusers.StableDiffusionPipeline):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs)

        def prepare_latents(self, *args, **kwargs):
            return super().prepare_latents(*args, **kwargs)

    pipe = tiny.make("sd")
    parts = {**pipe.components, "requires_safety_checker": False}
    with pytest.raises(AdapterError, match=r"Twice has a loop of its own \(Twice.__call__\)"):
        hgc_video.enable_cache(Twice(**parts))
    own = HandsOn(**parts)
    own.set_progress_bar_config(disable=True)
    with hgc_video.enable_cache(own, "lossless") as cache:
        tiny.call(own, "sd")
        assert len(cache.report.steps) == 5


def test_models_with_another_forward_or_other_weights_are_refused():
    class Other(diffusers.UNet2DConditionModel):
        def forward(self, sample, *args, **kwargs):
            return self.conv_in(sample)

    class HandsOn(diffusers.UNet2DConditionModel):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)

    pipe = tiny.make("sd")
    config = pipe.unet.config
    pipe.unet = Other.from_config(config)
    with pytest.raises(AdapterError, match="Other has a forward of its own"):
        hgc_video.enable_cache(pipe)
    pipe.unet = HandsOn.from_config(config)
    hgc_video.enable_cache(pipe).disable()
    wide = torch.nn.Conv2d(9, 32, 3, padding=1)
    pipe.unet.conv_in = wide
    with pytest.raises(
        AdapterError, match=r"weight of \(32, 9, 3, 3\) at unet.conv_in.weight, and"
    ):
        hgc_video.enable_cache(pipe)


@pytest.mark.parametrize("preset", ["full", "lossless", CACHED])
def test_a_model_that_is_called_twice_in_a_step_is_told_in_a_line(preset):
    pipe = tiny.make("sd")
    calls = []

    def look(module, args, kwargs):
        if not calls:
            calls.append(1)
            pipe.unet(*args, **kwargs)

    with hgc_video.enable_cache(pipe, preset):
        handle = pipe.unet.register_forward_pre_hook(look, with_kwargs=True)
        with pytest.raises(CacheStateError, match="unet was called twice at step 0"):
            tiny.call(pipe, "sd")
        handle.remove()
        tiny.call(pipe, "sd")


# FreeNoise


@pytest.mark.parametrize("name", ["animatediff", "controlnet"])
@pytest.mark.parametrize("split", [False, True])
def test_free_noise_is_cached_as_planned(name, split):
    pipe = tiny.make(name)
    pipe.enable_free_noise(context_length=4, context_stride=2)
    if split:
        pipe.enable_free_noise_split_inference(spatial_split_size=16, temporal_split_size=4)
    given = {"num_frames": 7, "prompt": {0: "a dancer in a red shirt", 6: "a dancer on a beach"}}
    if name == "controlnet":
        given["conditioning_frames"] = tiny.images(7)
    plain = tiny.call(pipe, name, **given)
    for preset in ("off", "full"):
        with hgc_video.enable_cache(pipe, preset) as cache:
            assert torch.equal(tiny.call(pipe, name, **given), plain)
    with hgc_video.enable_cache(pipe, "lossless") as cache:
        torch.testing.assert_close(tiny.call(pipe, name, **given), plain, rtol=1e-3, atol=1e-3)
    with hgc_video.enable_cache(pipe, CACHED) as cache:
        tiny.assert_near(tiny.call(pipe, name, **given), plain)
        assert 0.3 < cache.report.macs_saved < 0.9


@pytest.mark.parametrize("preset", ["full", "lossless", CACHED, "deepcache:interval=2"])
def test_with_free_noise_planned_is_executed_is_counted(preset):
    from hgc_video.plan.cost import cost

    pipe = tiny.make("animatediff")
    given = {"prompt": "a dancer", "guidance_scale": 1.0}

    def inner_macs():
        """MACs of the run, text encoder left out, which FreeNoise calls for the negative prompt too."""
        with MacCounter() as counter:
            pipe.encode_prompt("a dancer", "cpu", 1, False)
        text = 2 * counter.macs
        with MacCounter() as counter:
            tiny.call(pipe, "animatediff", num_frames=7, **given)
        return counter.macs - text

    with hgc_video.enable_cache(pipe, preset) as cache:
        tiny.call(pipe, "animatediff", num_frames=7, **given)
        plain = cache.report.macs_baseline
        pipe.enable_free_noise(context_length=4, context_stride=2)
        tiny.call(pipe, "animatediff", num_frames=7, **given)
        assert cache.report.macs_baseline > plain, "windows overlap"
        assert inner_macs() == cache.report.macs
        run = cache._run
        planned = cost(run.graph, run.engine.schedule).total
        text = sum(a.text_macs for a in run.graph.attentions.values())
        # FreeNoise mixes the prompts of frames, so that each has a text of its own.
        more = text * (run.graph.num_frames - 1) // run.graph.num_frames
        assert cache.report.macs - planned == (more if run.engine.schedule.lossless else 0)
        pipe.disable_free_noise()
        tiny.call(pipe, "animatediff", num_frames=7, **given)
        assert cache.report.macs_baseline == plain
