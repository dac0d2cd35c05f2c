"""A finished clip: shape, saving, and how it shows itself."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest

from hgc_video.clip import Clip
from hgc_video.errors import InputError, VideoError
from hgc_video.media.video import probe, read_frames


@pytest.fixture
def clip(report):
    frames = np.zeros((5, 64, 96, 3), np.uint8)
    for index in range(5):
        frames[index, 16:48, 8 * index : 8 * index + 32] = (220, 60, 30)
    return Clip(frames=frames, fps=12.5, report=report)


def test_sizes(clip):
    assert (clip.num_frames, clip.height, clip.width) == (5, 64, 96)


def test_repr_is_one_line_without_pixels(clip):
    assert repr(clip) == "<Clip: 5 frames of 96x64 at 12.5 fps, 60.0 % of the MACs saved>"


def test_saved_frames_come_back(clip, tmp_path):
    path = clip.save(tmp_path / "a.mp4")
    assert probe(path).fps == pytest.approx(12.5)
    assert np.abs(read_frames(path).astype(int) - clip.frames).mean() < 3


def test_an_unknown_suffix_is_refused(clip, tmp_path):
    with pytest.raises(VideoError, match=r"\.mp4, \.webm, \.gif, \.webp"):
        clip.save(tmp_path / "a.avi")
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_shows_a_playable_video(clip, tmp_path):
    html = clip._repr_html_()
    data = re.search(r'src="data:video/mp4;base64,([^"]+)"', html)
    assert data is not None
    (tmp_path / "shown.mp4").write_bytes(base64.b64decode(data.group(1)))
    assert probe(tmp_path / "shown.mp4").num_frames == 5


@pytest.mark.parametrize(
    "frames", [np.zeros((5, 64, 96, 3)), np.zeros((64, 96, 3), np.uint8), np.zeros((5, 3, 8, 8))]
)
def test_frames_of_another_shape_or_dtype_are_refused(report, frames):
    with pytest.raises(InputError, match=r"\(f H W 3\) uint8, got"):
        Clip(frames=frames, fps=8, report=report)
