"""Pose extraction with the real detector on real clips, and the example clip."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hgc_video.errors import InputError, MissingExtraError
from hgc_video.media.pose import extract_control, extract_pose, skeleton_frames
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


@needs_data
def test_too_few_frames_with_a_person(detector):
    frames = read_frames(DATA / "woman-running.mp4", indices=range(5))
    frames[1:] = 0
    with pytest.raises(InputError, match="no person found in only 1 of the 5 frames"):
        extract_pose(frames)


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
