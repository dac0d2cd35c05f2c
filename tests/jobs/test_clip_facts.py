"""What a video is: size, rate, length, sound and look, from a few frames of all of it."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from hgc_video.errors import InputError, VideoError
from hgc_video.jobs.clip_facts import ClipFacts, facts_of
from hgc_video.media.frames import VideoInfo
from hgc_video.media.write import write_video

GREY = np.full((32, 48, 3), 90, np.uint8)
COLOURED = np.random.default_rng(1).integers(0, 255, (4, 6, 3), np.uint8).repeat(8, 0).repeat(8, 1)
SKELETON = np.zeros((32, 48, 3), np.uint8)
SKELETON[8:24, 20:24] = (255, 0, 0)
BLACK = np.zeros((32, 48, 3), np.uint8)
FAR_BRIGHT = np.linspace(255, 0, 32).astype(np.uint8)[:, None, None].repeat(48, 1).repeat(3, 2)


def folder_of(path, *frames):
    return write_video(path / "clip", frames, 8)


def sounding(path, frame, count=4):
    """A movie of one picture, with a tone."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", 8)
        picture.width, picture.height, picture.pix_fmt = 48, 32, "yuv420p"
        tone = container.add_stream("aac", 48000, layout="mono")
        for at in range(count):
            made = av.VideoFrame.from_ndarray(frame, format="rgb24")
            made.pts, made.time_base = at, Fraction(1, 8)
            container.mux(picture.encode(made))
        container.mux(picture.encode())
        wave = av.AudioFrame.from_ndarray(
            np.zeros((1, 24000), np.float32), format="fltp", layout="mono"
        )
        wave.sample_rate, wave.pts = 48000, 0
        container.mux(tone.encode(wave))
        container.mux(tone.encode())
    return path


@pytest.mark.parametrize(
    ("frame", "look", "kind", "raw"),
    [
        (SKELETON, "skeleton", "pose", False), (GREY, "grey", "depth", False),
        (COLOURED, "coloured", "pose", True),
    ],
)  # fmt: skip
def test_a_clip_is_told_by_what_it_shows(tmp_path, frame, look, kind, raw):
    path = write_video(tmp_path / "a.mp4", [frame] * 4, 8)
    told = facts_of(path)
    assert (told.path, told.look, told.kind, told.raw) == (path, look, kind, raw)
    assert (told.sound, told.inverted, told.taken, told.fps) == (False, False, 4, 8.0)
    assert (told.info.width, told.info.height, told.info.num_frames) == (48, 32, 4)


def test_sound_is_told(tmp_path):
    path = sounding(tmp_path / "a.mp4", GREY)
    assert facts_of(path).sound is True and str(facts_of(path)).endswith(", with sound")


def test_a_clip_is_told_in_a_line():
    info = VideoInfo(width=48, height=32, fps=24.5, num_frames=30)
    told = ClipFacts(Path("clips/a.mp4"), info, True, "grey", False, 15, 12.25)
    assert (
        str(told) == "a.mp4: a depth clip, grey, 30 frames of 48x32 at 24.5 fps, 1.2 s, with sound"
    )
    for look, says in (("skeleton", "a clip of skeletons"), ("coloured", "a raw video")):
        told = ClipFacts(Path("b.webm"), info, False, look, False, 15, 12.25)
        assert str(told) == (
            f"b.webm: {says}, 30 frames of 48x32 at 24.5 fps, 1.2 s, without sound"
        )


def test_fast_clips_are_thinned(tmp_path):
    told = facts_of(write_video(tmp_path / "a.mp4", [GREY] * 9, 24))
    assert (told.info.num_frames, told.info.fps) == (9, 24.0) and (told.taken, told.fps) == (
        5,
        12.0,
    )


@pytest.mark.parametrize("at", [0, 3, 6, 9, 11, 14, 17, 20])
def test_eight_frames_from_the_first_to_the_last_are_looked_at(tmp_path, at):
    """Of 21 frames these; another one that is not black is not seen."""
    frames = [BLACK] * 21
    frames[at] = GREY
    assert facts_of(folder_of(tmp_path, *frames)).look == "grey"


def test_frames_between_are_not_looked_at(tmp_path):
    frames = [GREY] * 21
    for at in (0, 3, 6, 9, 11, 14, 17, 20):
        frames[at] = BLACK
    path = folder_of(tmp_path, *frames)
    with pytest.raises(InputError) as told:
        facts_of(path)
    assert str(told.value) == f'"{path}" is black in every frame looked at; give another clip'


@pytest.mark.parametrize("count", [1, 2, 7])
def test_of_a_short_clip_every_frame_is_looked_at(tmp_path, count):
    for at in range(count):
        frames = [BLACK] * count
        frames[at] = GREY
        place = tmp_path / str(at)
        place.mkdir()
        assert facts_of(folder_of(place, *frames)).taken == count


def test_a_depth_clip_with_the_far_side_bright_is_told(tmp_path):
    assert facts_of(folder_of(tmp_path, *[FAR_BRIGHT] * 2)).inverted is True
    (tmp_path / "b").mkdir()
    assert facts_of(folder_of(tmp_path / "b", FAR_BRIGHT[::-1])).inverted is False


def test_only_depth_clips_can_be_inverted(tmp_path):
    raw = FAR_BRIGHT.copy()
    raw[..., 2] = 0
    raw[16:] = COLOURED[16:] // 3
    told = facts_of(folder_of(tmp_path, raw))
    assert told.look == "coloured" and told.inverted is False


def test_an_assumed_rate_is_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = facts_of(folder_of(tmp_path, GREY, GREY))
    assert told.taken == 2


def test_what_cannot_be_read_is_told(tmp_path):
    with pytest.raises(VideoError):
        facts_of(tmp_path / "no.mp4")
