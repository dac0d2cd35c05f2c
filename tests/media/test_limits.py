"""Small files that claim to hold much are refused in one line, and limits can be raised."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hgc_video.errors import HGCVideoError, InputError, VideoError
from hgc_video.files import limit_of
from hgc_video.media.limits import check_num_frames
from hgc_video.media.metadata import read_text
from hgc_video.media.timeline import make_timeline
from hgc_video.media.video import open_clip, probe, write_video
from hgc_video.plan.plain_yaml import parse_plain
from scripts.bad_input.bombs import BOMBS

SLOW = {"zeros.png", "just-over.png", "long.gif"}  # to write


@pytest.mark.parametrize("name", [name for name in BOMBS if name not in SLOW])
def test_a_bomb_is_refused_in_one_line(name, tmp_path):
    BOMBS[name].write(tmp_path / name)
    with pytest.raises(HGCVideoError) as told:
        BOMBS[name].read(tmp_path / name)
    assert "\n" not in str(told.value) and len(str(told.value)) < 600


def test_the_limit_of_a_frame_can_be_raised(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setenv("HGC_VIDEO_MAX_PIXELS", "1999")
    with pytest.raises(VideoError, match=r"50x40, more than 1999 .* HGC_VIDEO_MAX_PIXELS"):
        open_clip(tmp_path / "a.png")
    with pytest.raises(VideoError, match="more than 1999"):
        read_text(tmp_path / "a.png")
    movie = write_video(tmp_path / "a.mp4", np.zeros((2, 40, 50, 3), np.uint8), 8)
    with pytest.raises(VideoError, match="50x40, more than 1999"):
        probe(movie)
    monkeypatch.setenv("HGC_VIDEO_MAX_PIXELS", "2000")
    assert probe(tmp_path / "a.png").width == 50 and probe(movie).num_frames == 2


def test_the_limit_of_a_length_can_be_raised(monkeypatch):
    seconds = [0.0, 0.04, 0.08, 1e6]
    with pytest.raises(
        VideoError, match=r"25000001 frames, more than 2000000.*HGC_VIDEO_MAX_FRAMES"
    ):
        make_timeline(seconds, 25)
    with pytest.raises(VideoError, match="frames, more than"):  # the last frame's own word
        make_timeline([0.0, 0.04, 0.1, 0.2], 25, last_seconds=1e9)
    monkeypatch.setenv("HGC_VIDEO_MAX_FRAMES", "30")
    check_num_frames(30, "a clip")
    with pytest.raises(VideoError, match="31 frames, more than 30"):
        check_num_frames(31, "a clip")


def test_the_limit_of_yaml_can_be_raised(monkeypatch):
    text = "a: &a [1, 2]\nb: [*a, *a]"
    monkeypatch.setenv("HGC_VIDEO_MAX_YAML", "10")
    with pytest.raises(InputError, match="stands for 11 values, more than 10"):
        parse_plain(text)
    monkeypatch.setenv("HGC_VIDEO_MAX_YAML", "11")
    assert parse_plain(text) == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


def test_a_limit_is_a_whole_number(monkeypatch):
    monkeypatch.setenv("HGC_VIDEO_MAX_PIXELS", "8K")
    with pytest.raises(InputError, match='HGC_VIDEO_MAX_PIXELS="8K" is not possible'):
        limit_of("HGC_VIDEO_MAX_PIXELS", 1)


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.webp", "a.jpg"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_an_image_that_is_cut_off_is_refused_or_read(name, share, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(frames).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(share * len(data))])
    try:
        (frame,) = open_clip(tmp_path / name).frames([0])
        assert frame.shape == (40, 40, 3)
    except VideoError as error:
        assert "cannot be read as an image" in str(error)
