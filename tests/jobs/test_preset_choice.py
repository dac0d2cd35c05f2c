"""The preset of a new shot file is the best one that is predicted to be done in ten minutes here."""

from __future__ import annotations

import pytest
import torch

from hgc_video.forecast import forecast
from hgc_video.jobs import preset_choice
from hgc_video.jobs.preset_choice import PresetChoice, choose_preset
from hgc_video.measure.device_speed import ASSUMED_CPU
from hgc_video.plan.memory.throughput import Throughput

SIZE = {"num_frames": 16, "height": 128, "width": 128}


def test_seconds_are_planned_macs_by_what_the_cores_do():
    choice = choose_preset("puppet", **SIZE)
    rate = ASSUMED_CPU.macs_per_s * torch.get_num_threads()
    for preset in ("balanced", "fast", "turbo"):
        macs = sum(forecast(model="puppet", preset=preset, **SIZE).macs_by_part.values())
        assert choice.seconds[preset] == pytest.approx(macs / rate)
    assert list(choice.seconds) == ["balanced", "fast", "turbo"] and choice.preset == "balanced"
    assert choice.device == "cpu" and choice.source == ASSUMED_CPU.source


def test_more_cores_take_less(monkeypatch):
    one = choose_preset("puppet", **SIZE).seconds["fast"]
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4 * threads)
    assert choose_preset("puppet", **SIZE).seconds["fast"] == pytest.approx(one / 4)


def test_the_best_that_takes_no_longer_is_chosen_and_else_the_fastest(monkeypatch):
    seconds = choose_preset("puppet", **SIZE).seconds
    assert seconds["balanced"] > seconds["fast"] > seconds["turbo"]
    for most, preset in (
        (seconds["balanced"], "balanced"), (seconds["fast"], "fast"),
        (0.99 * seconds["fast"], "turbo"), (0.99 * seconds["turbo"], "turbo"),
    ):  # fmt: skip
        monkeypatch.setattr(preset_choice, "MOST_S", most)
        assert choose_preset("puppet", **SIZE).preset == preset


def test_a_gpu_is_asked_for_its_rate_in_half_precision(monkeypatch):
    asked = []

    def rates_of(device, dtype):
        asked.append((device, dtype))
        return Throughput(1e12, 1e10, "measured")

    monkeypatch.setattr("hgc_video.measure.device_speed.rates_of", rates_of)
    monkeypatch.setattr("hgc_video.models.device.choose_device", lambda device: "cuda:0")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    choice = choose_preset("puppet", **SIZE)
    macs = sum(forecast(model="puppet", preset="turbo", **SIZE).macs_by_part.values())
    assert asked == [("cuda:0", torch.float16)] and choice.device == "cuda:0"
    assert choice.seconds["turbo"] == pytest.approx(macs / 1e12), "the host's cores do not count"


def test_a_model_that_cannot_be_planned_gets_the_first_preset_and_the_reason():
    choice = choose_preset("animatelcm", **SIZE)
    assert choice.preset == "balanced" and choice.seconds == {} and choice.device == "cpu"
    assert str(choice).startswith("not predicted: ") and "animatelcm" in str(choice)


def test_it_is_told_in_seconds_and_then_in_minutes():
    choice = PresetChoice(
        "fast", {"balanced": 1500.0, "fast": 100.0, "turbo": 99.4}, "cpu", "assumed"
    )
    assert str(choice) == (
        "denoising alone, predicted on cpu: balanced 25 min, fast 2 min, turbo 99 s (assumed)"
    )
