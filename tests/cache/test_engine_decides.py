"""What the engine measures for plans that decide at run time, and carries out as they decided."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from diffusers import DDIMScheduler

from hgc_video.cache.noise_levels import NoiseLevels
from hgc_video.errors import CacheStateError
from hgc_video.plan.adaptive import AdaptivePlan, Decision
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.cache.engine_parts import cut, graph, put, reuse

TIMES = (900, 700, 500)
MEASURED = []


@dataclass
class Measuring:
    """Takes the last choice of a step, and notes everything that can be asked."""

    calls: int = 0

    def __call__(self, choices, signals):
        self.calls += 1
        MEASURED.append(
            {
                "choices": choices, "calls": self.calls, "step": signals.step,
                "computed_last": signals.computed_last,
                "input_change": float(signals.input_change()), "drift": float(signals.drift()),
                "noise_angle": signals.noise_angle(), "products": len(signals.products()),
                "output_size": float(signals.output_size()), "type": signals.prediction_type(),
            }
        )  # fmt: skip
        return Decision(choices - 1, f"choice of {signals.step}")


@pytest.fixture
def measured(clip):
    """What a run of three steps measured, of which the second one takes the outermost block's input from the
    store; its outputs, and what the outermost up layer made."""
    clip.timesteps = torch.tensor(TIMES)
    MEASURED.clear()
    layer = clip.unet.get_submodule(graph().layers[-2].name.removeprefix("unet."))
    seen = []
    hook = layer.register_forward_hook(
        lambda m, a, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    plan = AdaptivePlan(
        "test",
        ((StepPlan(),), (StepPlan(), StepPlan(frozenset({cut()}))), (StepPlan(),)),
        Measuring,
    )
    scheduler = DDIMScheduler(prediction_type="v_prediction")
    with put(plan, scheduler=scheduler, guidance_scale=4.0) as engine:
        outputs = clip.run(engine)
        reasons = [step.reason for step in engine.log.record().steps]
    hook.remove()
    assert reasons == ["choice of 0", "choice of 1", "choice of 2"]
    return list(MEASURED), outputs, seen


def test_every_step_is_measured_at_its_timestep(measured, clip):
    told, _, _ = measured
    alphas = DDIMScheduler().alphas_cumprod
    assert [(one["step"], one["choices"]) for one in told] == [(0, 1), (1, 2), (2, 1)]
    for one, t in zip(told, TIMES, strict=True):
        angle = math.atan(math.sqrt((1 - alphas[t]) / alphas[t]))
        assert one["noise_angle"] == pytest.approx(angle, rel=1e-4)
        assert one["type"] == "v_prediction"
    change = 0.2 * float(clip.latents.abs().mean())  # 0.5 + t / 1000 times the same latents
    assert [one["input_change"] for one in told] == pytest.approx([0.0, change, change], rel=1e-4)


def test_predictions_are_measured_with_guidance(measured):
    told, outputs, _ = measured
    assert [one["computed_last"] for one in told] == [False, True, True]
    assert [one["products"] for one in told] == [0, 1, 2]
    sizes = [one["output_size"] for one in told]
    assert sizes == pytest.approx([0.0, *(float(out.abs().mean()) for out in outputs[:2])])


def test_the_outermost_block_is_measured_since_its_last_refresh(measured):
    told, _, (first, second, _) = measured
    drift = float((second - first).abs().mean() / first.abs().mean())
    assert drift > 0 and [one["drift"] for one in told] == pytest.approx(
        [0.0, 0.0, drift], rel=1e-3
    )


def test_windows_are_measured_and_decided_each_by_itself(clip):
    MEASURED.clear()
    plan = AdaptivePlan("test", ((StepPlan(),), (StepPlan(frozenset({cut()})),)), Measuring)
    with put(plan) as engine:
        for index, t in enumerate((900, 700)):
            engine.only_windows((0, 1), 0)
            for window in (0, 1):
                engine.at(index, window)
                clip.step(t)
        assert [window for window, _ in engine.state()["observers"]["seen"]] == [0, 1]
        engine.only_windows((1,), 1)
        assert [window for window, _ in engine.state()["observers"]["seen"]] == [1]
    changes = [one["input_change"] for one in MEASURED]
    assert changes[:2] == [0.0, 0.0] and changes[2] == changes[3] > 0
    assert [one["calls"] for one in MEASURED] == [1, 1, 2, 2], "each has a decider of its own"


def test_nothing_is_measured_for_a_plan_that_is_fixed(clip):
    with put(reuse()) as engine:
        clip.run(engine)
        ((window, seen),) = engine.state()["observers"]["seen"]
        assert window == 0 and seen["input"] is None and not seen["computed_last"]


def test_levels_of_noise_are_asked_of_a_scheduler_where_a_plan_reads_them(clip):
    """Schedulers without such levels serve all other plans."""
    clean = StepPlan(frozenset(graph().residuals()), clean=((0, 1.0),))
    with put(Schedule("test", (StepPlan(), clean))) as engine:
        engine.at(0)
        assert engine.prediction.noise is None
        with pytest.raises(CacheStateError, match="give the engine the scheduler"):
            clip.step(900)
    for plan, kind in ((reuse(), type(None)), (Schedule("test", (StepPlan(), clean)), NoiseLevels)):
        with put(plan, scheduler=DDIMScheduler()) as engine:
            engine.at(0)
            assert type(engine.prediction.noise) is kind


def test_windows_that_are_left_keep_their_hints_for_the_steps_that_read_them(clip):
    hint = "controlnet.controlnet_cond_embedding"
    with put(reuse(hint)) as engine:
        for window in (0, 1):
            engine.at(0, window)
            clip.step(900)
        engine.only_windows({1}, 1)
        for window in (0, 1):
            engine.at(1, window)
            assert len(engine.kept(hint)) == 1
