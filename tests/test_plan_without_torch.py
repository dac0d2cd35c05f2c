"""A plan of a model that is known by name is made of shipped data: at once, and without torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hgc_video.forecast import forecast
from hgc_video.models.configurations import known_model, known_models

ASKED = [
    *({"model": name} for name in known_models()),
    {"model": "puppet", "control": "pose"},
    {"model": "puppet", "control": "depth"},
]
LONG = {"model": "animatediff-sd15", "num_frames": 512, "memory": "8GiB"}

PLANNED = """
import json, sys
from hgc_video.forecast import forecast
for asked in json.loads(sys.argv[1]):
    plan = forecast(**asked)
    assert 0 < plan.macs_saved < 1, asked
    assert len(str(plan).splitlines()) > 25 and json.loads(plan.to_json()) and plan.explain(7)
    loaded = sorted({"torch", "diffusers", "transformers"} & set(sys.modules))
    assert not loaded, f"{asked} loaded {loaded}"
"""


@pytest.mark.parametrize("preset", ["balanced", "deepcache:interval=3"])
def test_a_plan_of_a_known_model_loads_no_torch(preset, tmp_path):
    in_a_process([{**asked, "preset": preset} for asked in ASKED], tmp_path)


def test_a_memory_plan_of_a_long_clip_loads_no_torch(tmp_path):
    over_devices = {**LONG, "num_frames": 300, "num_inference_steps": 30, "devices": 3}
    in_a_process([LONG, over_devices], tmp_path)


def in_a_process(asked, home):
    done = subprocess.run(
        [sys.executable, "-c", PLANNED, json.dumps(asked)],
        env={"PATH": "", "PYTHONPATH": ":".join(sys.path), "HGC_VIDEO_HOME": str(home)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list(home.iterdir()), "nothing had to be made"


def test_what_is_not_shipped_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HGC_VIDEO_HOME", str(tmp_path))
    first = forecast(num_frames=3, num_inference_steps=4)
    (kept,) = (tmp_path / "graphs").iterdir()
    written = kept.stat().st_mtime_ns
    assert forecast(num_frames=3, num_inference_steps=4) == first
    assert kept.stat().st_mtime_ns == written


@pytest.mark.parametrize("controls", [0, 2])
def test_a_known_model_is_planned_with_other_controlnets(controls):
    models = known_model("animatediff-sd15").configurations(controls)
    assert len(models.controlnets) == controls
