"""16-bit images: full range kept, millimetres scaled over the whole clip, and said."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hgc_video.errors import HGCVideoWarning, VideoError
from hgc_video.media.control import load_control
from hgc_video.media.video import read_frames


def millimetres(at):
    """A person who comes nearer, 3000 to 1000 mm, before a wall at 5000 mm; a corner is not measured."""
    image = np.full((64, 64), 5000, np.uint16)
    image[16:, 24:40] = 3000 - 500 * at
    image[:4, :4] = 0
    return Image.fromarray(image)


@pytest.fixture
def folder(tmp_path):
    for at in range(5):
        millimetres(at).save(tmp_path / f"depth_{at}.png")
    return tmp_path


@pytest.mark.parametrize("in_memory", [True, False])
def test_millimetres_use_the_whole_range_and_near_is_made_bright(folder, in_memory):
    clip = [millimetres(at) for at in range(5)] if in_memory else folder
    with pytest.warns(HGCVideoWarning, match=r"reach 5000 of 65535: scaled so that 1000 to 5000"):
        frames = read_frames(clip)
    assert frames[:, 40, 30, 0].tolist() == [128, 96, 64, 32, 0]  # one scale for all frames
    assert (frames[:, 10, 60] == 255).all() and (frames[:, 0, 0] == 255).all()
    with pytest.warns(HGCVideoWarning, match="invert_depth"):
        turned = load_control(
            clip, "depth", invert_depth=True, height=64, width=64, source_fps=8
        ).frames
    assert turned[:, 40, 30, 0].tolist() == [127, 159, 191, 223, 255]
    assert (turned[:, 0, 0] == 0).all()  # what was not measured is far


def test_the_full_range_is_kept_as_it_is(tmp_path, recwarn):
    for at, value in enumerate((0x80FF, 0xFFFF, 0x0102)):
        Image.fromarray(np.full((8, 8), value, np.uint16)).save(tmp_path / f"{at}.png")
    assert read_frames(tmp_path)[:, 0, 0, 0].tolist() == [0x80, 0xFF, 0x01]
    assert not recwarn.list


def test_a_single_image_and_an_even_one(tmp_path):
    millimetres(0).save(tmp_path / "a.png")
    with pytest.warns(HGCVideoWarning, match=r"a\.png"):
        assert read_frames(tmp_path / "a.png")[0, 40, 30, 0] == 0
    with pytest.warns(HGCVideoWarning):
        assert read_frames([Image.fromarray(np.full((4, 4), 700, np.uint16))]).max() == 0


def test_floats_are_refused_with_the_remedy():
    with pytest.raises(
        VideoError, match=r"floats \(PIL mode F\) carry no range; scale them to 0\.\.255"
    ):
        read_frames([Image.fromarray(np.ones((8, 8), np.float32))])
