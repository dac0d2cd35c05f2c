"""What a task reads, on another machine: the same file where it lies there too, a copy elsewhere."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from hgc_video.errors import InputError
from hgc_video.files import state_of
from hgc_video.jobs.engines.inputs import (
    files_of,
    input_paths,
    read_carried,
    renamed,
    with_files_here,
)


def test_files_come_along(tmp_path):
    clip, frames, schedule = tmp_path / "a.mp4", tmp_path / "frames", tmp_path / "s.yaml"
    clip.write_text("clip")
    schedule.write_text("codes")
    frames.mkdir()
    for name in ("0.png", "1.png"):
        (frames / name).write_text(name)
    options = {
        "control": {"pose": str(clip), "depth": str(frames)}, "image": str(tmp_path / "gone.png"),
        "preset": f"searched:file={schedule}+lossless", "prompt": str(clip), "model": "puppet",
    }  # fmt: skip
    paths = input_paths(options)
    assert paths == [str(clip), str(frames), str(schedule)]
    carried = {path: read_carried(Path(path)) for path in paths}
    there = tmp_path / "there"
    assert with_files_here(options, there, carried.get) == options, "all of it lies here too"
    assert not there.exists()

    clip.write_text("another clip of this name")
    (frames / "1.png").unlink()
    schedule.unlink()
    moved = with_files_here(options, there, carried.get)
    assert moved["prompt"] == str(clip) and moved["image"] == options["image"]
    assert Path(moved["control"]["pose"]).read_text() == "clip"
    assert Path(moved["control"]["pose"]).name == "a.mp4"
    assert sorted(p.name for p in Path(moved["control"]["depth"]).iterdir()) == ["0.png", "1.png"]
    copied = moved["preset"].removeprefix("searched:file=").removesuffix("+lossless")
    assert Path(copied).read_text() == "codes"
    assert with_files_here(options, there, carried.get) == moved, "and is written once"


def carried_away(path, folder):
    """Where a copy of what lay at a path is used; it is there no more."""
    came = read_carried(path)
    path.rename(path.with_name(f"{path.name}.gone"))
    return Path(with_files_here({"image": str(path)}, folder, {str(path): came}.get)["image"])


def frames_in(folder, *names):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(f"of {name}")
    return folder


def test_what_is_read_has_names_bytes_and_a_checksum_of_both(tmp_path):
    folder = frames_in(tmp_path / "frames", "1.png", "0.png")
    (folder / "inner").mkdir()
    came = read_carried(folder)
    assert came.path == str(folder) and came.is_folder
    assert list(came.files.items()) == [("0.png", b"of 0.png"), ("1.png", b"of 1.png")]
    lines = "".join(f"{n} {hashlib.sha256(d).hexdigest()}\n" for n, d in came.files.items())
    assert came.digest == hashlib.sha256(lines.encode()).hexdigest()
    one = read_carried(folder / "0.png")
    assert not one.is_folder and one.files == {"0.png": b"of 0.png"} and one.digest != came.digest


def test_a_copy_is_whole_or_not_there(tmp_path, monkeypatch):
    """A disk that is full half-way through a folder leaves no shorter clip for the next task."""
    folder, there = frames_in(tmp_path / "frames", "0.png", "1.png"), tmp_path / "there"
    came, write = read_carried(folder), Path.write_bytes
    shutil.rmtree(folder)

    def full(self, data):
        if self.name == "1.png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write(self, data)

    with monkeypatch.context() as patch, pytest.raises(InputError, match="the disk is full"):
        patch.setattr(Path, "write_bytes", full)
        with_files_here({"video": str(folder)}, there, {str(folder): came}.get)
    assert not [path for path in there.rglob("*") if path.is_file()]
    copied = Path(with_files_here({"video": str(folder)}, there, {str(folder): came}.get)["video"])
    assert sorted(path.name for path in copied.iterdir()) == ["0.png", "1.png"]
    assert not list(there.rglob(".*")), "and nothing beside it"


def test_a_folder_with_one_file_of_its_own_name_is_a_folder(tmp_path):
    folder = frames_in(tmp_path / "a" / "clip.png", "clip.png")
    file = tmp_path / "b" / "clip.png"
    file.parent.mkdir()
    file.write_text("of clip.png")
    there = tmp_path / "there"
    copied, single = carried_away(folder, there), carried_away(file, there)
    assert copied.is_dir() and (copied / "clip.png").read_text() == "of clip.png"
    assert single.is_file() and single.read_text() == "of clip.png"


def test_a_file_in_place_of_a_folder_is_another_thing(tmp_path):
    folder = frames_in(tmp_path / "clip.png", "clip.png")
    came = read_carried(folder)
    shutil.rmtree(folder)
    folder.write_text("of clip.png")
    moved = with_files_here({"video": str(folder)}, tmp_path / "t", {str(folder): came}.get)
    assert moved["video"] != str(folder) and Path(moved["video"]).is_dir()


def test_files_of_one_name_and_of_other_contents_lie_apart(tmp_path):
    places = []
    for text in ("one", "two"):
        path = tmp_path / text / "a.mp4"
        path.parent.mkdir()
        path.write_text(text)
        places.append(carried_away(path, tmp_path / "there"))
    assert [place.read_text() for place in places] == ["one", "two"]
    assert [place.name for place in places] == ["a.mp4", "a.mp4"]


def test_a_frame_that_is_written_anew_changes_the_state_of_its_folder(tmp_path):
    """The time of change of a folder stays when a file in it is written to."""
    folder = frames_in(tmp_path / "frames", "0.png", "1.png")
    before, changed = state_of(files_of(folder)), folder.stat().st_mtime_ns
    assert before == state_of(files_of(folder))
    (folder / "1.png").write_text("another")
    assert folder.stat().st_mtime_ns == changed
    assert state_of(files_of(folder)) != before and state_of(files_of(folder))[0] == before[0]
    stat = (folder / "1.png").stat()
    assert state_of([folder / "1.png"]) == ((str(folder / "1.png"), stat.st_mtime_ns, 7),)


def test_what_is_no_path_of_a_file_that_is_there_is_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").write_text("clip")
    options = {"control_video": "a.mp4", "image": str(tmp_path / "gone.png"), "video": 3}
    assert input_paths(options) == []
    twice = str(tmp_path / "a.mp4")
    assert input_paths({"control": {"pose": twice, "depth": twice}}) == [twice]
    assert with_files_here(options, tmp_path / "t", lambda path: None) == options


def test_names_stay_those_of_who_asked(tmp_path):
    pose, depth = (tmp_path / name for name in ("pose.mp4", "depth.mp4"))
    for path in (pose, depth):
        path.write_text(path.name)
    options = {"control": {"pose": str(pose), "depth": str(depth)}, "preset": "fast"}
    came = read_carried(pose)
    pose.unlink()
    here = with_files_here(options, tmp_path / "there", {str(pose): came}.get)
    names = {str(pose): "clips/pose.mp4", str(depth): "clips/depth.mp4", "elsewhere": "e"}
    assert renamed(names, options, here) == {
        here["control"]["pose"]: "clips/pose.mp4", str(depth): "clips/depth.mp4", "elsewhere": "e",
    }  # fmt: skip
