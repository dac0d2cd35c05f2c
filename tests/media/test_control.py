"""Control clips: choice of frames, of size, and placement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hgc_video.errors import HGCVideoWarning, InputError, VideoError
from hgc_video.media.control import Placement, load_control, source_rates
from hgc_video.media.frame_choice import FrameChoice, plan_frames
from hgc_video.media.frame_size import plan_size
from hgc_video.media.skeleton import draw_skeleton
from hgc_video.media.video import write_video
from tests.media import barcoded
from tests.shared_clips import DATA, needs_data


@pytest.mark.parametrize(
    ("size", "planned"),
    [
        ((512, 512), (128, 128)),
        ((1080, 1084), (128, 128)),
        ((1920, 1080), (160, 96)),
        ((1080, 1920), (96, 160)),
        ((320, 512), (96, 160)),
    ],
)
def test_default_sizes(size, planned):
    assert plan_size(*size) == planned


def test_told_sizes():
    assert plan_size(1920, 1080, height=512) == (512, 288)
    assert plan_size(1920, 1080, width=256) == (448, 256)
    assert plan_size(1920, 1080, 64, 64) == (64, 64)
    with pytest.raises(InputError, match="height=100 is no multiple of 32; take 96"):
        plan_size(10, 10, height=100)
    with pytest.raises(InputError, match="width=0"):
        plan_size(10, 10, width=0)
    for size in ({"height": 10**9 - 10**9 % 32}, {"width": 2**14}):
        with pytest.raises(InputError, match=r"^(height|width)=\d+: the clip is .* pixels a frame"):
            plan_size(10, 10, **size)


@given(
    st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([8, 32, 64]), st.integers(64, 1024)
)
def test_planned_sizes_are_allowed_and_near_the_area(height, width, multiple, side):
    h, w = plan_size(height, width, multiple=multiple, default_area=side * side)
    assert h % multiple == w % multiple == 0
    assert (h > w) <= (height > width)
    assert (w > h) <= (width > height)
    square = max(1, round(side / multiple)) * multiple
    assert (h, w) == (square, square) or 0.9 <= h * w / side**2 <= 1.1


@pytest.mark.parametrize(
    ("rate", "result"),
    [(4, 4), (8, 8), (12, 12), (20, 10), (24000 / 1001, 11.988), (24, 12), (25, 12.5), (30, 10)],
)
def test_rates_are_thinned_at_the_same_speed(rate, result):
    indices, fps = plan_frames(300, rate)
    assert fps == pytest.approx(result, abs=1e-3)
    assert set(np.diff(indices)) == {round(rate / fps)}
    assert len(indices) / fps == pytest.approx(300 / rate, rel=0.02)


def test_frame_counts():
    assert plan_frames(288, 24, num_frames=16) == (list(range(0, 32, 2)), 12)
    assert plan_frames(288, 24, max_frames=32) == (list(range(0, 64, 2)), 12)
    assert plan_frames(5, 4, max_frames=32) == (list(range(5)), 4)
    assert plan_frames(63, 24, num_frames=63) == (list(range(63)), 24)  # fits only unthinned
    with pytest.raises(InputError, match="has 63 frames at 24 fps; ask for at most 63"):
        plan_frames(63, 24, num_frames=64)
    with pytest.raises(InputError, match="beyond the model's 32"):
        plan_frames(63, 24, num_frames=33, max_frames=32)
    with pytest.raises(InputError, match="num_frames=0"):
        plan_frames(63, 24, num_frames=0)


def test_some_frames_are_chosen():
    assert plan_frames(288, 24, choice=FrameChoice(100, 110)) == ([100, 102, 104, 106, 108], 12)
    assert plan_frames(288, 24, choice=FrameChoice(100, 110, every=3)) == ([100, 103, 106, 109], 8)
    assert plan_frames(288, 24, choice=FrameChoice(280), num_frames=3) == ([280, 282, 284], 12)
    assert plan_frames(60, 24, choice=FrameChoice(start_s=2), fps=6) == ([48, 52, 56], 6)
    with pytest.raises(InputError, match=r"frames=60: is beyond the clip, which has 60 frames"):
        plan_frames(60, 24, choice=FrameChoice(60))
    with pytest.raises(InputError, match=r'frames=10:61 .* as "10:60"'):
        plan_frames(60, 24, choice=FrameChoice(10, 61))
    with pytest.raises(InputError, match="every=2 and fps=6"):
        plan_frames(60, 24, fps=6, choice=FrameChoice(every=2))


def test_a_clip_that_is_too_short_is_repeated_where_asked():
    looped = plan_frames(4, 8, num_frames=10, choice=FrameChoice(loop=True))
    assert looped == ([0, 1, 2, 3] * 2 + [0, 1], 8)
    assert plan_frames(10, 24, num_frames=7, choice=FrameChoice(2, 8, loop=True)) == (
        [2, 4, 6, 2, 4, 6, 2], 12,
    )  # fmt: skip
    with pytest.raises(
        InputError, match=r"ask for at most 4, or repeat it with loop=True \(--loop\)"
    ):
        plan_frames(4, 8, num_frames=10)


def test_a_looped_clip_is_read_again_from_its_beginning(tmp_path):
    frames = np.stack([barcoded.draw(number) for number in range(5)])
    write_video(tmp_path / "a.mp4", frames, 8)
    told = {"num_frames": 12, "choice": FrameChoice(loop=True), "height": 128, "width": 128}
    for clip in (tmp_path / "a.mp4", frames):
        control = load_control(clip, "depth", **told)
        assert [barcoded.read(frame) for frame in control.frames] == [*range(5), *range(5), 0, 1]
        assert control.taken == (*range(5), *range(5), 0, 1)


def test_a_told_rate_samples_by_time():
    assert plan_frames(12, 24, fps=6) == ([0, 4, 8], 6)
    assert plan_frames(3, 4, fps=8) == ([0, 0, 1, 1, 2, 2], 8)
    with pytest.raises(InputError, match="fps"):
        plan_frames(3, 4, fps=0)


@given(
    st.integers(1, 400),
    st.floats(1, 120),
    st.one_of(st.none(), st.integers(1, 500)),
    st.one_of(st.none(), st.floats(1, 120)),
    st.one_of(st.none(), st.integers(1, 40)),
)
def test_planned_frames_lie_in_the_clip(available, rate, num_frames, fps, max_frames):
    try:
        indices, result = plan_frames(
            available, rate, num_frames=num_frames, fps=fps, max_frames=max_frames
        )
    except InputError:
        assert num_frames is not None
        return
    assert 0 < result <= 120
    assert indices == sorted(indices)
    assert set(indices) <= set(range(available))
    assert len(indices) <= (max_frames or len(indices))
    assert num_frames is None or len(indices) == num_frames


def test_nobody_is_cut_off_and_points_follow_the_pixels():
    frame = np.zeros((200, 100, 3), np.uint8)
    frame[40:60, 20:40] = 255
    place = Placement(200, 100, 128, 128)
    placed = place.frame(frame)
    ys, xs = np.nonzero(placed[..., 0] > 127)
    centre = place.points(np.array([30.0, 50.0]))
    assert placed.shape == (128, 128, 3)
    assert np.allclose([xs.mean() + 0.5, ys.mean() + 0.5], centre, atol=0.5)
    assert placed[:, :32].max() == placed[:, 96:].max() == 0
    assert np.allclose(place.points(np.array([[0.0, 0.0], [100.0, 200.0]])), [[32, 0], [96, 128]])


def test_a_foreign_skeleton_keeps_its_lines():
    joints = np.random.default_rng(3).uniform(0.1, 0.9, (18, 3)) * [512, 512, 0] + [0, 0, 1]
    small = Placement(512, 512, 128, 128).frame(draw_skeleton(joints, 512, 512)).astype(float)
    drawn = draw_skeleton(joints * [0.25, 0.25, 1], 128, 128).astype(float)
    assert small.sum() == pytest.approx(drawn.sum(), rel=0.05)
    assert np.abs(small - drawn).mean() < 3


def test_paths_arrays_and_images_agree(tmp_path):
    clip = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
    write_video(tmp_path / "clip", clip, 10)
    told = {"height": 64, "width": 64}
    read = load_control(tmp_path / "clip", "depth", **told)
    assert (read.fps, read.kind, read.source_height, read.source_width) == (10, "depth", 64, 64)
    assert np.array_equal(read.frames, clip)
    assert np.array_equal(load_control(clip, "depth", **told).frames, clip)
    images = load_control([Image.fromarray(frame) for frame in clip], "depth", fps=24, **told)
    assert np.array_equal(images.frames, clip)
    assert images.fps == 24
    with pytest.raises(InputError, match="has 6 frames"):
        load_control(clip, num_frames=7)
    with pytest.raises(VideoError, match="uint8"):
        load_control(clip.astype(np.float32))


@needs_data
@pytest.mark.parametrize(
    ("name", "shape", "fps"),
    [
        ("skeleton_dance1.mp4", (16, 128, 128, 3), 4),
        ("depth_girl_dancing.mp4", (8, 96, 160, 3), 4),
        ("dance.mp4", (16, 160, 96, 3), 12),
        ("woman-running.mp4", (16, 128, 128, 3), 10),
    ],
)
def test_real_clips(name, shape, fps):
    clip = load_control(DATA / name, max_frames=16, force=True)
    assert clip.frames.shape == shape
    assert clip.fps == pytest.approx(fps)
    assert clip.frames.std() > 5


def folder_of(path, count, size=(64, 64)):
    path.mkdir()
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8)[:, None], (1, 64))
    for number in range(count):
        Image.fromarray(ramp).resize(size).save(path / f"{number}.png")
    return path


def test_images_are_taken_at_the_rate_that_is_told(tmp_path, recwarn):
    images, told = folder_of(tmp_path / "images", 48), {"height": 64, "width": 64}
    clip = load_control(images, "depth", source_fps=24, **told)
    assert (clip.fps, clip.shape[0]) == (12, 24)
    clip = load_control(images, "depth", source_fps=24, fps=8, **told)
    assert (clip.fps, clip.shape[0]) == (8, 16)
    clip = load_control(images, "depth", fps=24, **told)  # theirs already
    assert (clip.fps, clip.shape[0]) == (24, 48)
    assert not recwarn.list
    with pytest.warns(
        HGCVideoWarning, match=r"images\" carry no frame rate: 8 fps is assumed; .*--source-fps"
    ):
        assert load_control(images, "depth", **told).fps == 8
    write_video(tmp_path / "ours", load_control(images, "depth", fps=24, **told).frames, 20)
    with pytest.warns(
        HGCVideoWarning, match="source_fps=24 is not used: .* carries its own rate, 20 fps"
    ):
        assert load_control(tmp_path / "ours", "depth", source_fps=24, **told).fps == 10
    with pytest.raises(InputError, match="source_fps=0 is not possible"):
        load_control(images, "depth", source_fps=0)


def test_images_are_matched_frame_to_frame_with_a_control_of_as_many(tmp_path):
    images = folder_of(tmp_path / "images", 48)
    movie = write_video(tmp_path / "movie.mp4", np.zeros((48, 64, 64, 3), np.uint8), 24)
    short = write_video(tmp_path / "short.mp4", np.zeros((20, 64, 64, 3), np.uint8), 30)
    assert source_rates({"pose": movie, "depth": images}) == {"pose": None, "depth": 24}
    assert source_rates({"depth": images, "pose": movie}) == {"depth": 24, "pose": None}
    assert source_rates({"pose": short, "depth": images}) == {"pose": None, "depth": None}
    assert source_rates({"pose": movie, "depth": images}, 12) == {"pose": 12, "depth": 12}
    assert source_rates({"depth": images}) == {"depth": None}
