"""What the tests of jobs share: a small control clip, and options whose run takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from hgc_video.media.video import read_frames, write_video

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "a dancer in a red shirt and blue trousers on a beach"


@pytest.fixture(scope="session")
def pose_clip(tmp_path_factory):
    """The first frames of the example, as a control clip of 4 frames."""
    frames = read_frames(ROOT / "examples" / "dance_pose.mp4", indices=range(4))
    return write_video(tmp_path_factory.mktemp("clips") / "pose.mp4", frames, 8)


@pytest.fixture
def tiny(tmp_path, pose_clip):
    """A folder with pose.mp4, and the options of the smallest run of it."""
    (tmp_path / "pose.mp4").write_bytes(pose_clip.read_bytes())
    return {
        "control": {"pose": "pose.mp4"}, "prompt": PROMPT, "num_frames": 1, "num_inference_steps": 1,
    }  # fmt: skip
