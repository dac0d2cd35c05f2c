"""Pose extraction with the real detector on real clips, and the example clip."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hgc_video.errors import HGCVideoWarning, InputError, MissingExtraError
from hgc_video.media.video import probe, read_frames
from hgc_video.preprocess.extract import extract_control
from hgc_video.preprocess.landmarks import PeopleFinder
from hgc_video.preprocess.pose import Pose, extract_pose, skeleton_frames
from tests.shared_clips import DATA, needs_data

ROOT = Path(__file__).resolve().parents[2]
MOTIONS = ROOT / "hgc_video" / "puppet" / "motions"
HIPS, ANKLES, NOSE, NECK = [8, 11], [10, 13], 0, 1


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


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MissingExtraError, match=r"hgc_video\[pose\]|Python 3.11 or 3.12"):
        extract_pose(np.zeros((1, 64, 64, 3), np.uint8))


@pytest.fixture(scope="module")
def two_people():
    """A dancer, and from the fifth of 12 frames on a second one beside her (12 540 844 3)."""
    sizes = ((540, 304), (540, 540))
    films = (("dance.mp4", range(0, 24, 2)), ("moonwalk.mp4", range(12)))
    left, right = (
        np.stack([
            np.asarray(Image.fromarray(frame).resize(size[::-1]))
            for frame in read_frames(DATA / name, indices=indices)
        ])
        for (name, indices), size in zip(films, sizes, strict=True)
    )  # fmt: skip
    right[:4] = 120
    return np.concatenate([left, right], 2)


@needs_data
def test_two_people_of_whom_one_enters_late(detector, two_people):
    control = extract_control(two_people, fps=12, source_fps=12, height=544, width=832)
    assert (control.num_people, control.num_empty) == (2, 0)
    drawn = control.frames.max(-1) > 0
    assert drawn[:, :, :300].any((1, 2)).all(), "the dancer is in every frame"
    assert drawn[:, :, 310:].any((1, 2)).tolist() == [False] * 4 + [True] * 8
    alone = extract_control(two_people, "pose:max_people=1", fps=12, source_fps=12)
    assert alone.num_people == 1


@needs_data
def test_each_of_several_people_is_found_as_if_alone(detector, two_people):
    with PeopleFinder() as finder:
        both = [finder.people(frame) for frame in two_people[6:9]]
    with PeopleFinder() as finder:
        alone = [finder.people(frame) for frame in two_people[6:9, :, 304:]]
    assert [len(people) for people in both] == [2, 2, 2]
    for people, (person,) in zip(both, alone, strict=True):
        right = people[people[:, :, 0].mean(1).argmax()]
        assert np.abs(right[:, :2] - [304, 0] - person[:, :2]).mean() < 8  # of 400 pixels high


@needs_data
def test_hands_and_a_face_on_request(detector):
    frames = read_frames(DATA / "dance.mp4", indices=[8, 10])
    (first, _) = Pose(hands=True, face=True).estimates(frames, 12)
    (person,) = first
    assert person.shape == (130, 4)
    body, hand, face = person[:18], person[39:60], person[60:]
    assert hand[:, 3].min() == 1, "the right hand is in the air"
    assert np.linalg.norm(hand[0, :2] - body[4, :2]) < 60, "it begins at the wrist"
    assert np.linalg.norm(face[30, :2] - body[0, :2]) < 30, "the tip of the nose"
    assert face[:17, 1].argmax() == 8, "the chin is lowest"
    right, left = face[68], face[69]
    assert np.abs(right - body[14])[:2].max() < 15 and np.abs(left - body[15])[:2].max() < 15
    plain = extract_control(frames, "pose", source_fps=12, fps=12, height=640, width=384).frames
    whole = extract_control(
        frames, "pose:hands=true,face=true", source_fps=12, fps=12, height=640, width=384
    ).frames
    assert (whole == 255).all(-1).sum() > 100 > (plain == 255).all(-1).sum(), "white points"


def test_a_python_without_mediapipe_is_told_what_to_use(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MissingExtraError, match=r"rtmpose .*hgc_video\[rtmpose\]"):
        extract_control(np.zeros((1, 64, 64, 3), np.uint8))


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
