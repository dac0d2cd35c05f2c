"""Frames that are read when they are asked for: the same as the array, and no more read than needed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgc_video.errors import VideoError
from hgc_video.media.control import load_control
from hgc_video.media.frames import LazyFrames, collect_frames
from hgc_video.media.video import write_video

CLIP = np.random.default_rng(0).integers(0, 256, (9, 4, 6, 3), np.uint8)


class Watched:
    """A clip that notes which frames were read."""

    def __init__(self):
        self.read = []

    def __call__(self, start):
        for index in range(start, len(CLIP)):
            self.read.append(index)
            yield CLIP[index]


def lazily(hold):
    watched = Watched()
    return LazyFrames(watched, *CLIP.shape[:3], hold=hold), watched.read


@pytest.mark.parametrize("hold", [True, False])
@given(
    depths=st.lists(
        st.one_of(st.slices(9), st.integers(-9, 8), st.lists(st.integers(0, 8), min_size=1)),
        max_size=6,
    )
)
def test_whatever_is_asked_for_in_whatever_order_is_the_arrays(hold, depths):
    frames, _ = lazily(hold)
    for at in depths:
        assert np.array_equal(frames[at], CLIP[at])
    assert np.array_equal(np.asarray(frames), CLIP)
    assert np.array_equal(list(frames), CLIP)
    assert (frames.shape, len(frames), frames.ndim, frames.dtype) == (CLIP.shape, 9, 4, np.uint8)


def test_windows_read_forwards_only_what_they_need():
    frames, read = lazily(hold=True)
    assert frames.shape == CLIP.shape and read == []
    for start in (0, 2, 4):
        assert np.array_equal(frames[start : start + 4], CLIP[start : start + 4])
        assert read == list(range(start + 4))
    assert np.shares_memory(frames.as_array(), frames[0:3])
    assert read == list(range(9))


def test_what_is_not_held_is_read_again_from_where_it_is_wanted():
    frames, read = lazily(hold=False)
    for _ in range(2):
        for start in (3, 5, 7):
            assert np.array_equal(frames[start : start + 2], CLIP[start : start + 2])
    assert read == [*range(3, 9)] * 2
    assert frames.as_array() is frames


def test_a_clip_shorter_than_it_says_is_an_error():
    frames = LazyFrames(lambda start: iter(CLIP[start:4]), *CLIP.shape[:3], hold=True)
    assert len(frames[:4]) == 4
    with pytest.raises(VideoError, match="ends before frame 4 of 9"):
        frames[3:6]


def test_chunks_are_gathered_in_order():
    assert np.array_equal(
        collect_frames((CLIP[i : i + 4] for i in (0, 4, 8)), *CLIP.shape[:3]), CLIP
    )


@pytest.mark.parametrize("held_nbytes", [0, 2**30])
def test_a_control_clip_of_any_length_is_the_same(tmp_path, monkeypatch, held_nbytes):
    monkeypatch.setattr("hgc_video.media.control.HELD_NBYTES", held_nbytes)
    write_video(tmp_path / "clip", CLIP.repeat(16, 1).repeat(16, 2), 24)
    clip = load_control(tmp_path / "clip", "depth", height=64, width=96)
    assert clip.shape == (5, 64, 96) and clip.fps == 12
    assert np.array_equal(clip.stream[1:3], CLIP[[2, 4]].repeat(16, 1).repeat(16, 2))
    assert np.array_equal(clip.frames, CLIP[::2].repeat(16, 1).repeat(16, 2))


def test_an_array_of_the_right_size_stays_what_it_is():
    large = CLIP.repeat(16, 1).repeat(16, 2)
    clip = load_control(large, "depth", height=64, width=96)
    assert np.shares_memory(clip.frames, large) and np.array_equal(clip.frames, large)
