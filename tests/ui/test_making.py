"""What the line does with a clip: the same frames as generate() makes, files that are whole, faults told."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch

from hgc_video.options import GenerateOptions
from hgc_video.sampling.configuration import read_configuration
from hgc_video.ui.estimate import Estimates, scene_of
from hgc_video.ui.line import CANCELLED, DONE, FAILED, Line, Task
from hgc_video.ui.making import Maker, _Previews
from hgc_video.ui.uploads import Upload
from hgc_video.ui.workspace import Workspace
from tests.original_files import kohya_lora
from tests.ui.conftest import ROOT

OPTIONS = {
    "prompt": "a dancer in a red shirt on a beach",
    "num_frames": 2,
    "num_inference_steps": 4,
}


@pytest.fixture(scope="module")
def made():
    """A maker with its model loaded, and the line that it works off."""
    maker = Maker(Estimates(), "puppet")
    line = Line(maker, maker.prepare)
    line.start()
    yield maker, line
    line.close()


def done(line, task):
    line.add(task)
    until = time.monotonic() + 120
    while not task.ended_already:
        assert time.monotonic() < until
        time.sleep(0.05)
    return task


def test_previews_and_the_page_change_nothing_of_the_clip(made, control_clip, tmp_path):
    maker, line = made
    options = {**OPTIONS, "control_video": str(control_clip)}
    task = done(line, Task("clip", "a", options, tmp_path / "a", group="one"))
    assert task.state == DONE and task.previews >= 1 and task.steps == 4
    (clip,) = maker._generator.make([GenerateOptions(**options)], False, None)
    assert np.array_equal(np.load(tmp_path / "a" / "frames.npy"), clip.frames)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "clip.mp4", "frames.npy", "preview.png", "report.json", "shot.yaml",
    ]  # fmt: skip
    assert maker._generator.num_loads == 1


@pytest.mark.parametrize("several", [False, True])
def test_what_is_predicted_is_what_is_executed(made, control_clip, tmp_path, several):
    maker, line = made
    clips = {"pose": str(control_clip), "depth": str(ROOT / "examples" / "dance_depth.mp4")}
    control = {"control_video": str(control_clip)}
    if several:  # what the form's rows become
        pytest.importorskip("peft", reason="a LoRA needs peft, which is not installed")
        _, pipe, _ = maker._generator._loaded
        lora = kohya_lora(tmp_path / "style.safetensors", pipe.unet)
        control = {
            "control": clips, "lora": {str(lora): 0.5},
            "prompt": {0: "a dancer on a beach", 1: "a dancer in a forest"},
        }  # fmt: skip
    options = {**OPTIONS, **control, "preset": "fast"}
    told = maker._estimates.told(scene_of(GenerateOptions(**options)))
    names = {str(control_clip): "tänzer 1.mp4"}
    task = done(line, Task("clip", "a", options, tmp_path / "a", names=names))
    assert task.state == DONE, task.why
    files = read_configuration(tmp_path / "a" / "clip.mp4")["files"]
    assert "tänzer 1.mp4" in {file["name"] for file in files.values()}
    beside = ("text_encoder", "vae")  # which the plan does not count
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    executed = sum(m for part, m in report["macs_by_part"].items() if part not in beside)
    # Frames of several prompts share no keys and values of the prompt, which the plan counts on.
    assert told["macs"] == pytest.approx(executed, rel=0.01 if several else 0)
    assert told["num_frames"] == task.result["num_frames"] and told["width"] == task.result["width"]
    assert maker._estimates.rates["puppet"] > 0


def test_previews_take_a_fiftieth_of_the_run(tmp_path):
    class Decoder:  # what makes pictures of latents, at a known pace
        def preview(self, latents, num_frames):
            time.sleep(0.02)
            return np.zeros((8, 8, 3), np.uint8)

    def shown(after_s):
        task = Task("clip", "a", {}, tmp_path)
        previews = _Previews(task, taken_s)
        previews._began -= after_s
        for step in range(50):
            previews.step(Decoder(), step, 50, torch.zeros(1))
        return task.previews

    taken_s = {}
    assert shown(0) == 1  # nothing is known yet
    assert shown(0) == 0
    assert shown(50 * max(taken_s.values())) == 1


def test_a_folder_that_cannot_be_made_fails_its_task_alone(tmp_path):
    (tmp_path / "file").touch()

    def work(task):
        if task.title == "c":
            raise MemoryError

    line = Line(work, lambda: None)
    line.start()
    failed = done(line, Task("clip", "a", {}, tmp_path / "file" / "a"))
    assert failed.state == FAILED and "choose a folder you may write" in failed.why
    assert done(line, Task("clip", "b", {}, tmp_path / "b")).state == DONE
    assert "memory ran out" in done(line, Task("clip", "c", {}, tmp_path / "c")).why
    line.close()


def test_clips_that_are_compared_have_one_seed(control_clip, tmp_path):
    space = Workspace(tmp_path, most_nbytes=2**20)
    space.uploads._held["1"] = Upload("1", "pose.mp4", control_clip, {})
    values = {**OPTIONS, "control_video": "1", "seed": ""}
    tasks = space.group(space.add_comparison(values, ["off", "fast"]))
    assert len({task.options["seed"] for task in tasks}) == 1
    again = space.group(space.add_comparison(values, ["off", "fast"]))
    assert again[0].options["seed"] != tasks[0].options["seed"]


def test_a_fault_and_a_cancelled_task_leave_nothing_and_the_line_goes_on(
    made, control_clip, tmp_path
):
    _, line = made
    options = {**OPTIONS, "control_video": str(control_clip)}
    failed = done(line, Task("clip", "a", {**options, "num_frames": 99}, tmp_path / "a"))
    assert failed.state == FAILED and "num_frames=99" in failed.why and not failed.folder.exists()
    first = Task("clip", "b", {**options, "num_inference_steps": 300}, tmp_path / "b")
    waiting = Task("clip", "c", options, tmp_path / "c")
    line.add(first, waiting)
    line.cancel(waiting.id)
    assert waiting.state == CANCELLED
    while not first.step:
        time.sleep(0.02)
    assert first.seconds_left() is None or first.seconds_left() > 0
    line.cancel(first.id)
    last = done(line, Task("control", "d", options, tmp_path / "d"))
    assert first.state == CANCELLED and not first.folder.exists() and not waiting.folder.exists()
    assert last.state == DONE and len(list((tmp_path / "d" / "control").iterdir())) == 2
