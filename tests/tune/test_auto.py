"""A model's own schedule at its first use."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers import AnimateDiffControlNetPipeline

import hgc_video
from hgc_video.errors import InputError
from hgc_video.tune.auto import own_schedule
from hgc_video.tune.trials import Sample
from tests import tiny_pipelines as tiny


@pytest.mark.slow
def test_another_model_gets_its_own_schedule_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    pipe = tiny.animatediff(AnimateDiffControlNetPipeline, controlnet=tiny.controlnet())
    pipe.save_pretrained(tmp_path / "model")
    pipe.controlnet.save_pretrained(tmp_path / "model" / "controlnet_pose")
    frames = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    options = {
        "model": str(tmp_path / "model"), "preset": "fast", "num_inference_steps": 5, "height": 32,
        "width": 32, "progress": False, "auto_calibrate": True,
    }  # fmt: skip
    from hgc_video.media.write import write_video

    write_video(tmp_path / "clip.mp4", frames, 8)
    clip = hgc_video.generate(tmp_path / "clip.mp4", "a dancer", **options)
    assert clip.report.preset.startswith("searched:file=")
    assert clip.report.macs_saved > 0.5
    assert "judged" in capsys.readouterr().out
    again = hgc_video.generate(tmp_path / "clip.mp4", "a dancer", **options)
    assert "judged" not in capsys.readouterr().out
    assert np.array_equal(again.frames, clip.frames)


def test_the_embedded_model_has_its_own_already(tmp_path):
    sample = Sample("clip.mp4", "pose", "a dancer", 0)
    assert own_schedule("puppet", sample, "fast", 25, folder=tmp_path) == "fast"
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match='"lossless" is not searched'):
        own_schedule("puppet", sample, "lossless", 25, folder=tmp_path)
