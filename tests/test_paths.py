"""Names of files that tools take for something else, outputs that would overwrite, and our own folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import hgc_video
from hgc_video.errors import InputError, ModelError, VideoError
from hgc_video.files import check_distinct, own_folder, sha256_of, user_path
from hgc_video.jobs.add_jobs import add_jobs
from hgc_video.jobs.checkpoint.description import Description
from hgc_video.jobs.checkpoint.durable import read_json, write_json
from hgc_video.jobs.engines.inputs import read_carried
from hgc_video.jobs.job_list import JobList
from hgc_video.jobs.queue import Queue
from hgc_video.jobs.shot import read_shot, shot_of
from hgc_video.jobs.shot_template import write_template
from hgc_video.media.video import probe, read_frames, write_video
from hgc_video.media.write import Extras

EXAMPLE = Path(__file__).parent.parent / "examples" / "dance_pose.mp4"
STEP = {"step": 0, "label": "key", "reason": "a", "macs": 1, "macs_stock": 2}

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


@pytest.fixture
def half(tmp_path):
    """A folder whose name is not UTF-8, as old archives and disks have them."""
    if sys.platform != "linux":
        pytest.skip("every name is UTF-8 there")
    folder = tmp_path / os.fsdecode(b"d\xff")
    folder.mkdir()
    return folder


def test_a_name_that_is_not_utf_8_is_kept_in_shots_queues_and_work_folders(half):
    clip = half / os.fsdecode(b"p\xff.mp4")
    shutil.copy(EXAMPLE, clip)
    write_template(clip, half / os.fsdecode(b"s\xff.yaml"))
    shot = read_shot(half / os.fsdecode(b"s\xff.yaml"))
    options = shot.checked()
    assert options.inputs == {"control.pose": str(clip)} and Path(options.out).parent == half
    (new,) = JobList((shot,)).jobs()
    assert new.name == "s.mp4"
    with closing(Queue(half / "batch")) as queue:
        add_jobs(queue, [new])
        job = queue.claim("w")
        assert job is not None and job.options["control"] == {"pose": str(clip)}
    told = Description.of(options).to_dict()
    write_json(half / "job.json", told)
    assert read_json(half / "job.json") == told
    assert Description.from_dict(told).given(half)["control"] == {"pose": str(clip)}


def test_a_folder_of_files_whose_names_are_not_utf_8_has_a_checksum(half):
    (half / os.fsdecode(b"\xff.png")).write_bytes(b"a")
    first, carried = sha256_of(half), read_carried(half).digest
    (half / os.fsdecode(b"\xff.png")).rename(half / os.fsdecode(b"\xfe.png"))
    assert sha256_of(half) != first and read_carried(half).digest != carried
    assert (half / os.fsdecode(b"\xfe.png")).read_bytes() == b"a"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8:strict"])
def test_a_letter_that_a_terminal_lacks_ends_no_command(encoding, half):
    """As where the output of a command is written to a file on Windows."""
    clip = half / "é.mp4"
    told = {"format": 1, "options": {"prompt": "踊り手"}, "steps": [STEP]}
    write_video(clip, np.zeros((2, 32, 32, 3), np.uint8), 8, extras=Extras(text=json.dumps(told)))
    done = subprocess.run(
        [sys.executable, "-c", "from hgc_video.cli import main; main()", "show", clip],
        env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert b"prompt = " in done.stdout and b"50.0 %" in done.stdout
