"""Pose extraction with the real detector on real clips, and the example clip."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hgc_video.errors import HGCVideoWarning, InputError, MissingExtraError
from hgc_video.media.pose import _bridged, extract_control, extract_pose, skeleton_frames
from hgc_video.media.video import probe, read_frames

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
MOTIONS = ROOT / "hgc_video" / "puppet" / "motions"
HIPS, ANKLES, NOSE, NECK = [8, 11], [10, 13], 0, 1

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"real clips are not at {DATA}")


@pytest.fixture(scope="module")
def detector():
    return pytest.importorskip("mediapipe", reason='needs pip install "hgc_video[pose]"')


@needs_data
def test_keypoints_of_a_dancer(detector):
    frames = read_frames(DATA / "dance.mp4", indices=range(0, 12, 2))
    keypoints = extract_pose(frames)
    assert keypoints.shape == (6, 18, 4)
    y = keypoints[..., 1]
    assert (y[:, NOSE] < y[:, NECK]).all()
    assert (y[:, NECK] < y[:, HIPS].min(1)).all()
    assert (y[:, HIPS].max(1) < y[:, ANKLES].min(1)).all()
    assert keypoints[..., 3].mean() > 0.9
    shipped = json.loads((MOTIONS / "dance.json").read_text())
    expected = np.array(shipped["keypoints"])[:6, :, :2] * 1920
    assert np.abs(keypoints[..., :2] - expected).mean() < 30


@needs_data
def test_a_raw_clip_becomes_a_crisp_control_clip(detector):
    clip = extract_control(DATA / "dance.mp4", num_frames=6)
    assert clip.frames.shape == (6, 160, 96, 3)
    assert (clip.fps, clip.kind) == (12, "pose")
    rows = np.nonzero(clip.frames[0].max((1, 2)))[0]
    assert 90 < np.ptp(rows) < 150  # head to foot, inside the frame
    assert (clip.frames.max((1, 2, 3)) > 250).all()


@needs_data
def test_gaps_are_bridged(detector):
    frames = read_frames(DATA / "woman-running.mp4", indices=[0, 0, 2, 4, 4])
    frames[[1, 3]] = 0
    keypoints = extract_pose(frames)
    assert np.allclose(keypoints[1], (keypoints[0] + keypoints[2]) / 2)
    assert np.isfinite(keypoints).all()


def someone(x):
    return np.full((18, 4), float(x))


def test_short_gaps_are_bridged_and_counted_and_elsewhere_nobody_is():
    found = [None, None, someone(1), None, None, someone(4), *[None] * 4, someone(5), None]
    keypoints, num_bridged = _bridged(found, max_gap=3)
    assert num_bridged == 2
    assert keypoints[:, 0, 0].tolist() == [0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 5, 0]
    assert (keypoints[[0, 1, 6, 7, 8, 9, 11], :, 3] == 0).all()  # not seen, so not drawn


@needs_data
def test_nobody_is_drawn_before_the_person_enters(detector, tmp_path):
    dancer = read_frames(DATA / "dance.mp4", indices=range(0, 24, 2))
    clip = np.concatenate([np.zeros_like(dancer[[0] * 4]), dancer, np.zeros_like(dancer[[0]])])
    control = extract_control(clip, fps=12)
    drawn = control.frames.max((1, 2, 3)) > 0
    assert drawn.tolist() == [False] * 4 + [True] * 12 + [False]
    assert (control.num_bridged, control.num_empty) == (0, 5)


@needs_data
def test_a_person_who_is_there_for_less_than_half_is_drawn_there_and_said(detector):
    dancer = read_frames(DATA / "dance.mp4", indices=[0, 2])
    clip = np.concatenate([np.zeros_like(dancer[[0] * 6]), dancer])
    with pytest.warns(
        HGCVideoWarning, match="a person is found in 2 of the 8 frames taken from the clip"
    ):
        control = extract_control(clip, fps=12)
    assert (control.frames.max((1, 2, 3)) > 0).tolist() == [False] * 6 + [True] * 2
    assert control.num_empty == 6


@needs_data
def test_how_short_a_gap_is_follows_the_rate(detector):
    frames = read_frames(DATA / "woman-running.mp4", indices=[0, 0, 2, 4, 6, 8])
    frames[1:5] = 0
    assert extract_control(frames, fps=8).num_bridged == 4
    assert extract_control(frames, fps=4).num_empty == 4


def test_no_person(detector):
    noise = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), np.uint8)
    with pytest.raises(InputError, match="no person found in any of the 4 frames"):
        extract_control(noise)


def test_detection_is_silent(detector, capfd):
    with pytest.raises(InputError):
        extract_pose(np.zeros((2, 64, 64, 3), np.uint8))
    assert capfd.readouterr() == ("", "")


def test_only_pose_is_extracted():
    with pytest.raises(InputError, match="allowed: pose"):
        extract_control(np.zeros((1, 64, 64, 3), np.uint8), "depth")


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MissingExtraError, match=r"hgc_video\[pose\]|Python 3.11 or 3.12"):
        extract_pose(np.zeros((1, 64, 64, 3), np.uint8))


@pytest.mark.parametrize("name", ["dance", "moonwalk", "running"])
def test_shipped_motions(name):
    path = MOTIONS / f"{name}.json"
    motion = json.loads(path.read_text())
    keypoints = np.array(motion["keypoints"])
    assert keypoints.shape[1:] == (18, 4)
    assert len(keypoints) >= 32
    assert np.isfinite(keypoints).all()
    assert 8 <= motion["fps"] <= 15
    assert "MIT" in motion["source"]
    assert path.stat().st_size < 300_000


def test_the_example_clips_are_what_their_script_makes(tmp_path):
    script = ROOT / "scripts" / "make_example_clips.py"
    subprocess.run([sys.executable, str(script), "--out", str(tmp_path)], check=True, cwd=ROOT)
    for name in ("dance_pose.mp4", "dance_depth.mp4"):
        shipped = ROOT / "examples" / name
        made = read_frames(tmp_path / name).astype(int)
        assert np.abs(made - read_frames(shipped)).mean() < 1
        assert (probe(shipped).num_frames, probe(shipped).fps) == (24, 8)
        assert shipped.stat().st_size < 1_000_000


def test_hidden_joints_are_not_drawn():
    keypoints = np.full((2, 18, 4), 16.5)  # a pixel's centre
    keypoints[..., 3] = [[0.0], [1.0]]
    frames = skeleton_frames(keypoints, 32, 32)
    assert frames[0].max() == 0
    assert frames[1].max() == 255
