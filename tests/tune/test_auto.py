"""A model's own schedule at its first use."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from diffusers import AnimateDiffControlNetPipeline

import hgc_video
from hgc_video.errors import InputError
from hgc_video.evaluate.samples import Sample, SampleSet
from hgc_video.evaluate.trials import kept_trials, trials
from hgc_video.plan.presets import resolve
from hgc_video.tune.auto import own_schedule
from tests import tiny_pipelines as tiny


def pipelines():
    """The pipelines that are alive in this process, those of other tests too."""
    gc.collect()
    return {id(o) for o in gc.get_objects() if type(o) is AnimateDiffControlNetPipeline}


@pytest.mark.slow
def test_another_model_gets_its_own_schedule_once(tmp_path, monkeypatch, capsys):
    """On a clip of fewer frames than the eight that are measured of longer ones."""
    # A name that would divide policies and fields in the text of a preset.
    monkeypatch.delenv("HGC_VIDEO_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches+mine, all"))
    pipe = tiny.animatediff(AnimateDiffControlNetPipeline, controlnet=tiny.controlnet())
    pipe.save_pretrained(tmp_path / "model")
    pipe.controlnet.save_pretrained(tmp_path / "model" / "controlnet_pose")
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    options = {
        "model": str(tmp_path / "model"), "preset": "fast", "num_inference_steps": 4, "height": 32,
        "width": 32, "auto_calibrate": True, "device": "cpu", "force": True,
    }  # fmt: skip
    from hgc_video.media.write import write_video

    write_video(tmp_path / "clip.mp4", frames, 8)
    before = pipelines()
    clip = hgc_video.generate(tmp_path / "clip.mp4", "a dancer", **options)
    assert clip.report.preset.startswith("searched:file=")
    assert clip.report.macs_saved > 0.5
    shown = capsys.readouterr()
    assert "judged" in shown.err and shown.out == ""
    assert list((tmp_path / "caches+mine, all" / "hgc_video").glob("*-4-fast.yaml"))
    again = hgc_video.generate(tmp_path / "clip.mp4", "a dancer", **options)
    assert "judged" not in capsys.readouterr().err
    assert np.array_equal(again.frames, clip.frames)
    assert not pipelines() - before, "what measured and what made the clip are given up"
    elsewhere = tmp_path / "elsewhere"
    hgc_video.generate(
        tmp_path / "clip.mp4", "a dancer", **options, calibration_dir=elsewhere, progress=False
    )
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")
    assert list(elsewhere.glob("*-4-fast.yaml"))


def test_the_embedded_model_has_its_own_already(tmp_path):
    parts = (SampleSet("puppet", None, 0, 1, 1), Sample("clip.mp4", "pose", "a dancer", 0))
    options = {"folder": tmp_path / "a", "log": print}
    assert own_schedule(*parts, "fast", 25, **options) == resolve("fast", "puppet")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match='"lossless" is not searched'):
        own_schedule(*parts, "lossless", 25, **options)


def test_a_single_step_reuses_nothing_and_has_no_schedule_of_its_own(tmp_path):
    pipe = tiny.animatediff(AnimateDiffControlNetPipeline, controlnet=tiny.controlnet())
    pipe.save_pretrained(tmp_path / "model")
    model = str(tmp_path / "model")
    parts = (SampleSet(model, None, 0, 1, 1), Sample("clip.mp4", "pose", "a dancer", 0))
    assert own_schedule(*parts, "fast", 1, folder=tmp_path / "a", log=print) == resolve(
        "fast", model
    )
    assert not (tmp_path / "a").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    pipe = tiny.animatediff(AnimateDiffControlNetPipeline, controlnet=tiny.controlnet())
    pipe.save_pretrained(tmp_path / "model")
    (tmp_path / "file").touch()
    parts = (
        SampleSet(str(tmp_path / "model"), None, 0, 1, 1), Sample("clip.mp4", "pose", "a dancer", 0)
    )  # fmt: skip
    with pytest.raises(InputError, match="calibration_dir"):
        own_schedule(*parts, "fast", 5, folder=tmp_path / "file" / "under", log=print)


def test_trials_are_kept_in_a_block_and_given_up_at_its_end():
    source = SampleSet("puppet", None, 6000, 1, 1)
    with kept_trials():
        first = trials(source)
        with kept_trials():
            assert trials(source) is first
        assert trials(source) is first
    assert trials.cache_info().currsize == 0
    with kept_trials():
        assert trials(source) is not first
