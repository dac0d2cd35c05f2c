"""Scene cuts: found where they are, and windows that keep to them."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest

import hgc_video
from hgc_video.errors import HGCVideoWarning, InputError, MissingExtraError
from hgc_video.media.scenes import far_apart, find_cuts, shortest_scene
from hgc_video.media.video import write_video
from hgc_video.puppet.evaluation import held_out

PROMPT = "a dancer in a red shirt on a beach"
needs_extra = pytest.mark.skipif(
    find_spec("scenedetect") is None,
    reason='needs pip install "hgc_video[scenes]"',
)


@pytest.fixture(scope="module")
def film():
    """Three scenes of 9, 12 and 8 frames (29 128 128 3): three dancers at three places."""
    scenes = [
        np.asarray(held_out(index, 12).truth.frames)[:count]
        for index, count in ((0, 9), (2, 12), (4, 8))
    ]
    return np.concatenate(scenes)


@needs_extra
def test_cuts_are_found_where_scenes_meet(film):
    assert find_cuts(film, 8) == (9, 21)
    assert find_cuts(film.repeat(3, 1).repeat(3, 2), 8) == (9, 21)
    assert find_cuts(film[:9], 8) == ()


@needs_extra
def test_scenes_shorter_than_half_a_window_are_told(film):
    with pytest.warns(
        HGCVideoWarning, match=r"1 of 2 scene cuts are passed over: .* than 9 frames"
    ):
        assert find_cuts(film, 9) == (9,)


def test_short_scenes_join_the_next_one():
    assert far_apart([3, 9, 11, 21], 29, 8) == [9, 21]
    assert far_apart([9, 24], 29, 8) == [9]
    assert shortest_scene((9, 21), 29) == 8


@needs_extra
def test_a_run_keeps_its_windows_inside_scenes(film, capsys, tmp_path):
    """A scene is made as it is alone: nothing of the other one reaches it."""
    pose = np.concatenate([np.asarray(held_out(index, 9).truth.pose) for index in (0, 2)])
    both = np.concatenate([np.asarray(held_out(index, 9).truth.frames) for index in (0, 2)])
    write_video(tmp_path / "film.mp4", both, 8)
    options = {
        "num_inference_steps": 1,
        "height": 64,
        "preset": "lossless",
        "scenes_of": tmp_path / "film.mp4",
    }
    clip = hgc_video.generate(pose, PROMPT, **options)
    assert "18 frames at 8 fps (2.2 s) in 2 windows of 9 of 2 scenes" in capsys.readouterr().err
    other = pose.copy()
    other[9:] = pose[9:, ::-1]
    changed = hgc_video.generate(other, PROMPT, **options, progress=False)
    assert np.array_equal(clip.frames[:9], changed.frames[:9])
    assert not np.array_equal(clip.frames[9:], changed.frames[9:])
    assert clip.report.macs_baseline == changed.report.macs_baseline > clip.report.macs


def test_a_ready_pose_clip_shows_no_cuts():
    with pytest.raises(InputError, match=r"name the film .* with scenes_of=FILE"):
        hgc_video.generate(np.zeros((2, 32, 32, 3), np.uint8), PROMPT, scenes=True)


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scenedetect.detectors", None)
    with pytest.raises(MissingExtraError, match=r"hgc_video\[scenes\]"):
        find_cuts([], 1)
