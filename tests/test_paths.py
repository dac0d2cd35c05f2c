"""Names of files that tools take for something else, outputs that would overwrite, and our own folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import hgc_video
from hgc_video.errors import InputError, ModelError, VideoError
from hgc_video.files import check_distinct, own_folder, user_path
from hgc_video.jobs.shot import shot_of
from hgc_video.media.video import probe, read_frames, write_video

NAMES = [
    "12:30.mp4", "file:a.mp4", "pipe:1.mp4", "concat:a|b.mp4", "http:x.mp4", "-clip.mp4", "50%d.mp4",
    "~draft.mp4", "é ü.mp4", "a?b#c.mp4", "[x].mp4", "a\\b.mp4", "12:30.gif", "12:30.webp", "12:30", "%03d",
    "-", os.fsdecode(b"\xff.mp4"),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_of_any_name_is_written_and_read_where_it_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = np.full((3, 32, 96, 3), 40, np.uint8)
    frames[1] = 200
    assert write_video(name, frames, 8) == Path(name)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert probe(name).num_frames == 3
    assert np.abs(read_frames(name).astype(int) - frames).max() <= 4


def test_a_name_that_is_a_suffix_alone_is_no_folder_of_frames(tmp_path):
    with pytest.raises(VideoError, match=r"clip\.mp4"):
        write_video(tmp_path / ".mp4", np.zeros((1, 32, 32, 3), np.uint8), 8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["control_video", "out", "work", "audio", "model", "video", "lora"]
)
def test_a_null_byte_is_told_in_a_line(name, tmp_path):
    """No file has one in its name; a shot file or a page may."""
    frames = np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), np.uint8)
    given = {"control_video": frames, "prompt": "a dancer", "force": True, name: "a\0.mp4"}
    with pytest.raises(InputError, match=r"has no null byte, got 'a\\x00.mp4'"):
        hgc_video.generate(**given, num_inference_steps=1, height=32, width=32, progress=False)
    if name in ("model", "lora"):  # may be repositories, which a shot looks for when it runs
        return
    options = {"control_video": "pose.mp4", "prompt": "a dancer", name: "a\0.mp4"}
    with pytest.raises(InputError, match="null byte"):
        shot_of(options, tmp_path / "a.yaml", "a").checked()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a" * 256, "too long for a path"),
        ("é" * 128, "too long for a path"),
        ("a/" * 2048, "too long for a path"),
        ("a\ud800.mp4", "is no path: surrogates not allowed"),
    ],
)
def test_a_name_that_no_file_can_have_is_told_in_a_line(name, told):
    with pytest.raises(InputError, match=told) as caught:
        user_path(name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    with pytest.raises((InputError, ModelError), match=told):
        hgc_video.generate("pose.mp4", "a dancer", model=name)


def test_the_longest_names_are_taken():
    for name in ("a" * 255, "é" * 127, "a/" * 2047):
        assert user_path(name) == Path(name)


def test_a_tilde_is_home_and_nobodys_home_is_a_name(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a.mp4") == tmp_path / "a.mp4"
    assert user_path("~no-such-user.mp4") == Path("~no-such-user.mp4")


def test_an_output_is_no_input_and_no_other_output(tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.touch()
    (tmp_path / "soft.mp4").symlink_to(clip)
    (tmp_path / "hard.mp4").hardlink_to(clip)
    inputs = [("control clip", clip), ("image", np.zeros((2, 2, 3)))]
    check_distinct({"out": tmp_path / "b.mp4", "report": None}, inputs)
    for same in (clip, tmp_path / "soft.mp4", tmp_path / "hard.mp4", tmp_path / "x/../clip.mp4"):
        with pytest.raises(InputError, match=r"^out .* is the control clip itself; name another"):
            check_distinct({"out": same}, inputs)
    with pytest.raises(InputError, match=r"^--report .* is the file of --out itself"):
        check_distinct({"--out": tmp_path / "b.mp4", "--report": str(tmp_path / "b.mp4")}, inputs)


def test_our_own_folder_is_as_told_or_as_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    for name in ("XDG_CACHE_HOME", "HGC_VIDEO_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert own_folder() == Path("/home/me/.cache/hgc_video")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert own_folder() == Path("/home/me/.cache/hgc_video")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert own_folder() == tmp_path / "hgc_video"
    monkeypatch.setenv("HGC_VIDEO_HOME", "~/mine")
    assert own_folder() == Path("/home/me/mine")
    assert own_folder("~/told") == Path("/home/me/told")


def test_a_user_without_a_home_has_no_folder_of_ours_until_one_is_named(homeless, monkeypatch):
    with pytest.raises(InputError, match=r"no home folder .* HGC_VIDEO_HOME"):
        own_folder()
    monkeypatch.setenv("HGC_VIDEO_HOME", str(homeless / "own"))
    assert own_folder() == homeless / "own"
