"""What is said of control clips in whole runs, and the options that answer it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import hgc_video
from hgc_video.cli import app
from hgc_video.errors import InputError
from hgc_video.media.video import read_frames, write_video
from tests.shared_clips import DATA, needs_data

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "a dancer in a red shirt and blue trousers on a beach"


def generate(out, *arguments):
    """Exit code, warnings and report of a run of one step."""
    told = ["generate", "--prompt", PROMPT, "--out", out / "a.mp4", "--report", out / "r.json"]
    told += ["--num-inference-steps", 1, "--height", 64, "--width", 64, *arguments]
    result = CliRunner().invoke(app, [str(word) for word in told])
    assert result.exit_code == 0, result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert "HGCVideoWarning" not in result.stderr
    return said, json.loads((out / "r.json").read_text()), result.stdout


def images(path, frames):
    path.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"{number}.png")
    return path


@pytest.fixture(scope="module")
def depth():
    return read_frames(ROOT / "examples" / "dance_depth.mp4", indices=range(6))


@pytest.fixture(scope="module")
def pose():
    return read_frames(ROOT / "examples" / "dance_pose.mp4", indices=range(6))


@pytest.mark.slow
def test_a_raw_film_is_refused_and_forced(tmp_path):
    film = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    path = write_video(tmp_path / "film.mp4", film, 8)
    with pytest.raises(InputError, match=r"extract=True \(--extract\); force=True \(--force\)"):
        hgc_video.generate(path, PROMPT)
    said, _, _ = generate(tmp_path, "--pose", path, "--force")
    assert len(said) == 1 and said[0].endswith("extract=True (--extract)")


@pytest.mark.slow
def test_a_folder_told_its_rate_and_that_near_is_dark(tmp_path, depth):
    folder = images(tmp_path / "depth", 255 - depth)
    said, report, _ = generate(
        tmp_path, "--depth", folder, "--source-fps", 24, "--invert-depth", "--num-frames", 2
    )
    assert said == []
    assert report["fps"] == 12
    said, report, _ = generate(tmp_path, "--depth", folder, "--num-frames", 2)
    assert report["fps"] == 8
    assert ["--source-fps" in said[0], "--invert-depth" in said[1]] == [True, True]


@pytest.mark.slow
def test_images_beside_a_movie_of_as_many_frames_follow_it(tmp_path, pose, depth):
    movie = write_video(tmp_path / "pose.mp4", pose, 24)
    folder = images(tmp_path / "depth", depth)
    for first in (["--pose", movie, "--depth", folder], ["--depth", folder, "--pose", movie]):
        said, report, _ = generate(tmp_path, *first)
        assert said == []
        assert (report["fps"], report["num_frames"]) == (12, 3)


def test_what_cannot_be_is_refused(pose):
    with pytest.raises(InputError, match="invert_depth is for depth clips, and none is given"):
        hgc_video.generate(pose, PROMPT, invert_depth=True)
    with pytest.raises(InputError, match="source_fps=-1"):
        hgc_video.generate(pose, PROMPT, source_fps=-1)


@pytest.mark.slow
@needs_data
def test_the_report_counts_frames_without_a_person(tmp_path):
    pytest.importorskip("mediapipe", reason='needs pip install "hgc_video[pose]"')
    frames = read_frames(DATA / "woman-running.mp4", indices=[0, 0, 0, 2, 4, 6])
    frames[[0, 1, 4]] = 0
    film = write_video(tmp_path / "film.mp4", frames, 8)
    _, report, shown = generate(tmp_path, "--pose", film, "--extract")
    assert (report["control_frames_bridged"], report["control_frames_empty"]) == (1, 2)
    assert "no person found in 3: 1 bridged, 2 left black" in shown
