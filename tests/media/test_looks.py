"""Control clips that are not what they are given as: one warning with the remedy, and none for good ones."""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from hgc_video.errors import HGCVideoWarning, InputError
from hgc_video.media.control import load_control
from hgc_video.media.video import read_frames, write_video
from hgc_video.puppet.evaluation import held_out
from tests.shared_clips import DATA, needs_data

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def depth():
    return read_frames(ROOT / "examples" / "dance_depth.mp4", indices=range(0, 24, 6))


@pytest.fixture(scope="module")
def pose():
    return read_frames(ROOT / "examples" / "dance_pose.mp4", indices=range(0, 24, 6))


@pytest.fixture(scope="module")
def film():
    """A film, drawn: a sky, a meadow and somebody in red."""
    frames = np.zeros((4, 128, 128, 3), np.uint8)
    frames[:, :60], frames[:, 60:] = (110, 160, 220), (70, 140, 60)
    for at, frame in enumerate(frames):
        frame[40:110, 40 + 4 * at : 60 + 4 * at] = (200, 60, 50)
    return frames


def said_of(clip, kind, **options):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        load_control(clip, kind, **{"force": True, **options})
    assert all(issubclass(warning.category, HGCVideoWarning) for warning in told)
    assert all("\n" not in str(warning.message) for warning in told)
    return [str(warning.message) for warning in told]


@pytest.mark.parametrize(
    ("clip", "kind", "says"),
    [
        ("film", "pose", r"looks like a raw film; .*\(--extract\); force=True \(--force\)"),
        ("black", "pose", "is black in every frame, so it steers nothing"),
        ("black", "depth", "is black in every frame, so it steers nothing"),
        ("inverted", "depth", r"near is dark; turn it round with .*\(--invert-depth\); force"),
    ],
)
def test_what_would_surely_be_worthless_is_refused(request, film, depth, clip, kind, says):
    inverted = np.repeat(np.linspace(250, 5, 64).astype(np.uint8), 64).reshape(64, 64)
    clips = {
        "film": film, "black": np.zeros((12, 64, 64, 3), np.uint8),
        "inverted": np.repeat(np.stack([inverted] * 2)[..., None], 3, -1),
    }  # fmt: skip
    with pytest.raises(InputError, match=says) as told:
        load_control(clips[clip], kind)
    assert "\n" not in str(told.value)
    assert len(said_of(clips[clip], kind)) == 1, "and a warning where it is forced"


def test_a_good_depth_clip_that_is_turned_round_is_told_to_be_left(depth):
    (said,) = said_of(depth, "depth", invert_depth=True)
    assert said.endswith("looks inverted, near is dark; leave invert_depth (--invert-depth) out")


def test_a_clip_that_is_black_for_the_most_part_is_taken(pose):
    clip = np.zeros((200, *pose.shape[1:]), np.uint8)
    clip[3] = pose[0]
    with pytest.warns(HGCVideoWarning, match="is black in every frame looked at"):
        load_control(clip, "pose")


def test_good_clips_are_taken_without_a_word(pose, depth, tmp_path):
    assert said_of(pose, "pose") == said_of(depth, "depth") == []
    for number in range(6):
        case = held_out(number, 4)
        assert said_of(case.control("pose"), "pose") == []
        assert said_of(case.control("depth"), "depth") == []
    lines = np.zeros((3, 64, 64, 3), np.uint8)
    lines[:, 20:22] = 255
    for kind in ("canny", "softedge", "lineart"):
        assert said_of(lines, kind) == []


@needs_data
def test_good_clips_of_others_are_taken_without_a_word():
    assert said_of(DATA / "skeleton_dance1.mp4", "pose") == []
    assert said_of(DATA / "depth_girl_dancing.mp4", "depth") == []


@needs_data
@pytest.mark.parametrize("name", ["dance", "moonwalk", "woman-running"])
def test_raw_films_are_seen(name):
    (said,) = said_of(DATA / f"{name}.mp4", "pose", num_frames=8)
    assert f'{name}.mp4", given as pose, looks like a raw film' in said
    assert "extract=True (--extract)" in said
    assert "of a raw film make one first" in said_of(DATA / f"{name}.mp4", "depth", num_frames=8)[0]


@pytest.mark.parametrize("kind", ["pose", "depth", "canny", "softedge", "lineart"])
def test_a_film_is_no_control(film, kind):
    (said,) = said_of(film, kind)
    assert "raw film" in said and f"given as {kind}" in said


@pytest.mark.parametrize("kind", ["pose", "depth", "canny"])
def test_a_black_clip_steers_nothing(kind):
    noise = np.random.default_rng(0).integers(0, 6, (4, 64, 64, 3), np.uint8)
    assert "is black in every frame" in said_of(noise, kind)[0]


def test_pose_and_depth_mistaken_for_each_other(pose, depth):
    assert "give it as pose (--pose)" in said_of(pose, "depth")[0]
    assert "give it as depth (--depth)" in said_of(depth, "pose")[0]
    assert "looks like a pose clip" in said_of(pose, "canny")[0]


@pytest.mark.parametrize("colours", ["inferno", "turbo", "magma", "viridis"])
def test_a_coloured_depth_clip_is_seen(depth, colours):
    shown = (matplotlib.colormaps[colours](depth[..., 0])[..., :3] * 255).astype(np.uint8)
    assert "save a coloured one in grey" in said_of(shown, "depth")[0]


def test_dark_on_bright_lines_are_seen():
    lines = np.full((3, 64, 64, 3), 255, np.uint8)
    lines[:, 20:22] = 0
    assert "white lines on black: invert it" in said_of(lines, "lineart")[0]


def test_an_inverted_depth_clip_is_seen_and_turned_round(depth, tmp_path):
    assert "invert_depth=True (--invert-depth)" in said_of(255 - depth, "depth")[0]
    assert said_of(255 - depth, "depth", invert_depth=True) == []
    write_video(tmp_path / "clip", 255 - depth, 8)
    for clip in (255 - depth, tmp_path / "clip"):
        turned = load_control(clip, "depth", invert_depth=True, height=64, width=96)
        assert np.array_equal(
            turned.frames, load_control(depth, "depth", height=64, width=96).frames
        )
    size = {"height": depth.shape[1], "width": depth.shape[2]}
    assert np.array_equal(
        load_control(255 - depth, "depth", invert_depth=True, **size).frames, depth
    )
    with pytest.raises(InputError, match="invert_depth is for depth clips, not for pose"):
        load_control(depth, "pose", invert_depth=True)


def test_a_dim_depth_clip_is_seen(depth):
    assert "is at most 35 of 255 bright" in said_of(depth // 5, "depth")[0]


def test_padding_is_not_looked_at(film):
    (said,) = said_of(film[:, :, 48:80], "pose", height=32, width=256)
    assert "raw film" in said
