"""What a run would cost, said before it runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import hgc_video
from hgc_video.cli import app
from hgc_video.errors import InputError, ModelError, PresetError, VideoError
from hgc_video.forecast import forecast
from hgc_video.measure.device_speed import planning_rates
from hgc_video.plan.memory.throughput import ASSUMED_GPU, Throughput
from hgc_video.plan.schedule import Schedule


@pytest.mark.parametrize("preset", ["off", "balanced"])
def test_the_forecast_is_what_a_run_then_reports(preset):
    told = forecast(preset=preset, num_inference_steps=6, num_frames=2)
    black = np.zeros((2, 128, 128, 3), np.uint8)
    report = hgc_video.generate(
        black, "a dancer", preset=preset, num_inference_steps=6, progress=False, force=True
    ).report
    for part, macs in told.spent.by_part().items():
        assert macs == report.macs_by_part[part]
        assert told.baseline.by_part()[part] == report.macs_baseline_by_part[part]
    assert told.steps == report.steps


def test_several_controls_of_a_folder_are_a_controlnet_each():
    one, both = (
        forecast(control=control, num_frames=2, num_inference_steps=2).macs_baseline_by_part
        for control in ("depth", ("pose", "depth"))
    )
    assert both["controlnet"] == 2 * one["controlnet"] and both["unet"] == one["unet"]
    with pytest.raises(InputError, match="give 0 or 2"):
        forecast(control=("pose", "depth"), num_controlnets=1)


def test_off_saves_nothing_and_bolder_presets_more():
    saved = [forecast(preset=p).macs_saved for p in ("off", "lossless", "quality", "balanced")]
    assert saved[0] == 0
    assert saved == sorted(saved)


def test_fewer_steps_count_against_the_steps_asked_for():
    assert forecast(preset="fewer-steps:steps=5").macs_saved == pytest.approx(0.8)


def test_one_branch_costs_half():
    both, one = (forecast(preset="off", guided=guided) for guided in (True, False))
    assert both.spent.total == 2 * one.spent.total


@pytest.mark.parametrize(
    ("model", "configuration"),
    [("animatediff", "animatediff-sd15-v3"), ("animatediff-lightning", "animatediff-sd15")],
)
def test_a_model_that_is_downloaded_is_planned_by_the_configuration_of_its_parts(
    model, configuration
):
    one, other = (forecast(model=m, preset="deepcache:interval=3") for m in (model, configuration))
    assert one.spent.total == other.spent.total
    whole = forecast(model=model, num_frames=32, preset="off")
    assert len(whole.windows.plain) == 1, "it holds 32 frames at once"


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        (
            {"model": "animatelcm"},
            ModelError,
            "configuration of animatelcm is not known before.*plan one of animatediff-sd15",
        ),
        ({"preset": "fasst"}, PresetError, "fast"),
        ({"control": "pse"}, InputError, "pose"),
        ({"num_inference_steps": 0}, InputError, "num_inference_steps=0"),
        ({"num_frames": 0}, InputError, "num_frames=0"),
        ({"height": 100}, InputError, "32"),
        ({"model": "no/such"}, ModelError, "no/such"),
        ({"throughput": "40,20"}, InputError, "give memory too"),
        ({"memory": "8GiB", "throughput": "fast"}, InputError, "as 40,20"),
        ({"memory": "8GiB", "throughput": "0,20"}, InputError, "as 40,20"),
    ],
)
def test_what_cannot_be_used(options, error, says):
    with pytest.raises(error, match=says):
        forecast(**options)


def test_a_plan_runs_nothing_where_it_is_not_asked_to_measure(monkeypatch):
    assert planning_rates("40,20") == Throughput(4e13, 2e10, "as told")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert planning_rates(None) == ASSUMED_GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="needs a CUDA GPU"):
        planning_rates("measured")


def test_the_command_prints_text_and_json():
    runner = CliRunner()
    arguments = ["plan", "--preset", "fast", "--num-inference-steps", "8"]
    text, data = (runner.invoke(app, [*arguments, *more]) for more in ([], ["--json"]))
    assert text.exit_code == data.exit_code == 0, text.output
    told = json.loads(data.stdout)
    assert f"{100 * told['macs_saved']:.1f} % saved" in text.stdout
    assert len(told["steps"]) == 8
    assert all(step["label"] in text.stdout and step["reason"] for step in told["steps"])
    assert Schedule.from_dict(told["schedule"]).steps[0].branches == 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"num_inference_steps": 1001},
            "num_inference_steps=1001 is not possible; give at most 1000",
        ),
        ({"num_inference_steps": 10**30}, "give at most 1000"),
        (
            {"num_frames": 10**9},
            "num_frames=1000000000 claims 1000000000 frames, more than 2000000",
        ),
        ({"preset": "fewer-steps:steps=1001"}, "steps=1001 is not possible; give at most 1000"),
        ({"preset": "taylorseer:warm_up=1000000000"}, "warm_up=1000000000 is .* at most 1000000"),
        (
            {"preset": f"hgc:interval={10**30}"},
            "interval=10*.* is not possible; give at most 1000000",
        ),
    ],
)
def test_what_would_fill_the_memory_or_never_end_is_refused(given, told):
    with pytest.raises((InputError, PresetError, VideoError), match=told):
        forecast(**given)
