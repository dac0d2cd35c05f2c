"""What a clip tells of its files is what it was made of, also where they change while it is made."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from pathlib import Path

import pytest

import hgc_video
from hgc_video.errors import HGCVideoWarning
from hgc_video.media.video import read_frames, write_video
from hgc_video.options import GenerateOptions
from hgc_video.sampling.configuration import read_configuration
from hgc_video.sampling.input_files import InputFiles, sha256_of_inputs

ROOT = Path(__file__).resolve().parents[2]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def clips(tmp_path):
    """A control clip of skeletons, and another one."""
    frames = read_frames(ROOT / "examples" / "dance_pose.mp4", indices=range(4))
    write_video(tmp_path / "pose.mp4", frames[:2], 8)
    write_video(tmp_path / "other.mp4", frames[2:], 8)
    return tmp_path / "pose.mp4", tmp_path / "other.mp4"


def made(pose, out, callback=None, **more):
    return hgc_video.generate(
        control={"pose": pose}, prompt="a dancer", num_frames=2, num_inference_steps=2, out=out,
        progress=False, preset="lossless", callback=callback, **more,
    )  # fmt: skip


def test_a_control_that_is_replaced_meanwhile_is_told_as_it_was(clips, tmp_path):
    pose, other = clips
    before = sha256(pose)
    told = 'pose.mp4" changed while the clip was made; the clip tells of the file as it was when'
    with pytest.warns(HGCVideoWarning, match=told):
        made(pose, tmp_path / "a.mp4", lambda *_: shutil.copy(other, pose) and None)
    assert sha256(pose) == sha256(other)
    files = read_configuration(tmp_path / "a.mp4")["files"]
    assert files["control.pose"] == {"name": "pose.mp4", "sha256": before}


def test_a_control_that_is_removed_meanwhile_is_told_as_it_was(clips, tmp_path):
    pose, _ = clips
    before = sha256(pose)
    with pytest.warns(HGCVideoWarning, match=r"pose.mp4. changed while"):
        made(pose, tmp_path / "a.mp4", lambda *_: pose.unlink(missing_ok=True))
    assert read_configuration(tmp_path / "a.mp4")["files"]["control.pose"]["sha256"] == before


def test_files_that_stay_as_they_are_are_told_without_a_warning(clips, tmp_path):
    pose, _ = clips
    with warnings.catch_warnings():
        warnings.simplefilter("error", HGCVideoWarning)
        made(pose, tmp_path / "a.mp4")
    files = read_configuration(tmp_path / "a.mp4")["files"]
    assert files["control.pose"]["sha256"] == sha256(pose)


def test_every_file_is_known_by_its_option_and_nothing_where_nothing_is_told(clips, tmp_path):
    pose, other = clips
    given = {"control": {"pose": str(pose)}, "video": str(other), "prompt": "x"}
    expected = {"control.pose": sha256(pose), "video": sha256(other)}
    assert sha256_of_inputs(GenerateOptions(**given)) == expected
    assert sha256_of_inputs(GenerateOptions(**given, metadata=False)) == {}
    gone = GenerateOptions(**{**given, "video": "gone.mp4"})
    assert sha256_of_inputs(gone) == {}, "who reads it says so"


def test_a_file_that_is_told_no_more_is_told_as_it_was():
    with pytest.warns(HGCVideoWarning, match='"a" changed'):
        assert InputFiles(begun={"a": "1"}).as_begun({"b": {"name": "b.mp4"}}) == {
            "a": {"name": "a", "sha256": "1"}, "b": {"name": "b.mp4"},
        }  # fmt: skip
