"""A work folder: taken by one process, states and frames kept in turn, known when its clip is done."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from hgc_video.cache.store import Lasting
from hgc_video.errors import HGCVideoWarning, InputError, StateError
from hgc_video.jobs.checkpoint.durable import _facts
from hgc_video.jobs.checkpoint.work_folder import WorkFolder
from hgc_video.jobs.checkpoint.writer import Abandoned

CPU = torch.device("cpu")


def names(folder, pattern="*"):
    return sorted(path.name for path in folder.path.glob(pattern))


def keep(work, **state):
    return work.keep(work.snapshot(state))


def test_a_run_that_begins_anew_keeps_its_first_state_although_the_old_one_was_spoilt(work):
    """Both have the same name."""
    keep(work, step=1)
    (work.path / "checkpoint-000001" / "COMPLETE").unlink()
    with pytest.warns(HGCVideoWarning):
        assert work.newest(CPU) is None
    work.clear()
    keep(work, step=5)
    assert work.newest(CPU) == {"step": 5}


def frames(count=2, at=0):
    return (np.arange(count * 48) + at).astype(np.uint8).reshape(count, 4, 4, 3)


def spoil(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def rewritten(checkpoint, change):
    """A checkpoint whose state was changed, complete all the same."""
    state = checkpoint / "state.json"
    state.write_text(json.dumps(change(json.loads(state.read_text()))))
    (checkpoint / "COMPLETE").write_text(json.dumps({"state.json": _facts(state)}))


def test_a_folder_is_made_and_taken_until_it_is_closed(tmp_path):
    work, other = (WorkFolder(tmp_path / "work") for _ in range(2))
    assert work.path == tmp_path / "work" and not work.path.exists()
    work.close()  # nothing is held
    work.open()
    assert names(work) == ["lock"] and not work.is_begun
    with pytest.raises(StateError) as told:
        other.open()
    assert str(told.value) == (f'another process works in "{other.path}"; wait for it, or end it')
    assert other._lock.closed
    work.close()
    other.open()
    other.close()


def test_the_lock_keeps_what_is_in_it(tmp_path):
    (tmp_path / "lock").write_text("of another version")
    work = WorkFolder(tmp_path)
    work.open()
    work.close()
    assert (tmp_path / "lock").read_text() == "of another version"


def test_where_the_system_has_no_locks_the_folder_is_ours(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    for folder in [WorkFolder(tmp_path / "work") for _ in range(2)]:
        folder.open()
        assert folder._lock.writable()


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    for place, reason in (
        (tmp_path / "no" / "work", errno.ENOENT),
        (tmp_path / "file", errno.EEXIST),
    ):
        (tmp_path / "file").write_text("a")
        with pytest.raises(StateError) as told:
            WorkFolder(place).open()
        assert str(told.value) == f'work "{place}" cannot be made: {os.strerror(reason)}'
        assert isinstance(told.value.__cause__, OSError)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    "name", ["thesis.txt", "input-pose.mp4", "xlock", "a.part", ".profile", "done.json"]
)
def test_a_folder_of_something_else_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    work = WorkFolder(tmp_path)
    with pytest.raises(StateError) as told:
        work.open()
    assert str(told.value) == f'work "{tmp_path}" holds something else; name another folder'
    assert names(work) == [name]


def test_what_a_killed_process_left_is_not_something_else(tmp_path):
    for name in ("lock", "input-pose.npy", ".job.json.part", ".clip.1-2.abcd.part.mp4"):
        (tmp_path / name).write_text("")
    work = WorkFolder(tmp_path)
    work.open()
    work.close()


def test_a_folder_that_was_begun_may_hold_anything(tmp_path):
    (tmp_path / "job.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    work = WorkFolder(tmp_path)
    assert work.is_begun is True
    work.open()
    work.close()


def test_plain_data_is_kept_by_name(work):
    assert work.read("job") is None
    work.write("job", {"a": [1, "ä"]})
    assert work.read("job") == {"a": [1, "ä"]} and work.is_begun
    assert names(work) == ["job.json", "lock"] and work.read("plan") is None


def test_clearing_removes_checkpoints_frames_and_their_files(work):
    work.write("job", {})
    keep(work, a=Lasting(torch.ones(3)))
    work.keep_frames(0, frames())
    assert len(names(work)) == 5
    work.clear()
    assert names(work) == ["job.json", "lock"]
    assert keep(work, a=Lasting(torch.ones(3))) == 12, "it does not count as written"


def test_what_cannot_be_cleared_is_told(work, tmp_path):
    (work.path / "checkpoint-000001").symlink_to(tmp_path)  # rmtree refuses links
    with pytest.raises(StateError, match=f'cannot write "{work.path}": ') as told:
        work.clear()
    assert isinstance(told.value.__cause__, OSError)


def test_removing_gives_the_folder_back_first(work):
    keep(work, a=1)
    work.remove()
    assert not work.path.exists() and work._lock.closed
    work.remove()


@pytest.mark.parametrize("was_there", [False, True])
def test_where_nothing_is_kept_the_folder_goes_as_it_came(tmp_path, was_there):
    if was_there:
        (tmp_path / "work").mkdir()
    work = WorkFolder(tmp_path / "work")
    work.open()
    work.write("job", {})
    work.remove_where_nothing_is_kept()
    assert work.path.is_dir() == was_there and names(work) == [] and work._lock.closed


@pytest.mark.parametrize("kept", ["a state", "frames"])
def test_where_anything_is_kept_the_folder_stays(work, kept):
    if kept == "a state":
        keep(work, a=1)
    else:
        work.keep_frames(0, frames())
    before = names(work)
    work.remove_where_nothing_is_kept()
    assert names(work) == before and not work._lock.closed


def test_a_folder_that_cannot_be_made_again_is_no_error(tmp_path):
    place = tmp_path / "disk" / "work"
    place.mkdir(parents=True)
    work = WorkFolder(place)
    work.open()
    shutil.rmtree(tmp_path / "disk")
    work.remove_where_nothing_is_kept()
    assert not (tmp_path / "disk").exists()


def test_a_state_is_kept_in_a_numbered_folder_with_its_tensors_beside(work):
    lasting, changing = torch.arange(1000.0), torch.arange(3.0)
    assert keep(work, a=Lasting(lasting), b=changing, step=2) == 4000 + 12
    assert names(work) == ["checkpoint-000001", "lock", "tensors-000001-0.safetensors"]
    told = json.loads((work.path / "checkpoint-000001" / "state.json").read_text())
    sums = [hashlib.sha256(one.numpy().tobytes()).hexdigest() for one in (lasting, changing)]
    assert told["storages"] == dict(zip("01", sums, strict=True))
    assert told["places"] == dict.fromkeys(sums, "tensors-000001-0.safetensors")
    assert told["state"]["mapping"]["step"] == 2
    assert keep(work, a=Lasting(lasting), b=torch.ones(5)) == 20, "what lasts is known by its place"
    assert names(work, "tensors*")[-1] == "tensors-000002-0.safetensors"


def test_what_is_kept_already_is_not_held_on_to(work):
    lasting = torch.arange(1000.0)
    keep(work, a=Lasting(lasting))
    held = work.snapshot({"a": Lasting(lasting), "b": torch.ones(2)}).storages
    assert held["0"].data is None and len(held["1"].data) == 8
    assert held["0"].checksum == hashlib.sha256(lasting.numpy().tobytes()).hexdigest()


def test_a_run_that_begins_anew_keeps_its_states_as_the_first_one_did(work):
    for step in range(3):
        keep(work, step=step)
    work.clear()
    keep(work, step=7)
    assert names(work, "checkpoint-*") == ["checkpoint-000001"] and work.newest(CPU) == {"step": 7}


def test_the_newest_and_the_one_before_it_stay(work):
    for step in range(1, 5):
        keep(work, step=step, a=torch.full((3,), step))
        first = max(1, step - 1)
        assert names(work, "checkpoint-*") == [f"checkpoint-{n:06}" for n in range(first, step + 1)]
        assert len(names(work, "tensors-*")) == min(step, 2)
    back = WorkFolder(work.path).newest(CPU)
    assert back["step"] == 4 and back["a"].tolist() == [4, 4, 4]


def test_numbers_go_on_after_the_highest_one_that_is_there(work):
    (work.path / "checkpoint-000041").mkdir()
    keep(work, a=1)
    assert names(work, "checkpoint-*") == ["checkpoint-000041", "checkpoint-000042"]


def test_what_is_left_while_it_is_written_costs_nothing_that_was_kept(work):
    keep(work, step=1, a=torch.ones(3))
    asked = []

    def going_on():
        asked.append(1)
        raise Abandoned

    with pytest.raises(Abandoned):
        work.keep(work.snapshot({"a": torch.zeros(3)}), going_on)
    assert asked == [1] and names(work, "checkpoint-*") == ["checkpoint-000001"]
    assert work.newest(CPU)["step"] == 1


def test_a_full_disk_is_told_with_the_folder(work, monkeypatch):
    keep(work, step=1)

    def refuse(handle):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(InputError) as told:
        keep(work, a=torch.ones(3))
    assert str(told.value).startswith(f'the disk is full: cannot write "{work.path}";')
    assert type(told.value) is InputError and isinstance(told.value.__cause__, OSError)
    assert work.newest(CPU) == {"step": 1}


def test_nothing_is_newest_in_an_empty_folder(work):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert work.newest(CPU) is None


def test_the_newest_is_given_without_a_word(work):
    keep(work, step=1)
    keep(work, step=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert work.newest(CPU) == {"step": 2}


def test_states_that_are_not_whole_are_left_out_and_removed_with_the_next_one(work):
    for step in (1, 2):
        keep(work, step=step)
    (work.path / "checkpoint-000002" / "COMPLETE").unlink()
    with pytest.warns(
        HGCVideoWarning, match="checkpoint-000002 is left out: it is not compl"
    ) as told:
        assert work.newest(CPU) == {"step": 1}
    assert len(told) == 1
    assert str(told[0].message).startswith(f"{work.path}/checkpoint-000002 is left out: ")
    keep(work, step=3)
    assert names(work, "checkpoint-*") == ["checkpoint-000001", "checkpoint-000003"]
    keep(work, step=4)
    assert names(work, "checkpoint-*") == ["checkpoint-000003", "checkpoint-000004"]


def test_where_no_state_is_whole_there_is_none(work):
    for step in (1, 2):
        keep(work, step=step)
        spoil(work.path / f"checkpoint-00000{step}" / "state.json")
    with pytest.warns(HGCVideoWarning) as told:
        assert work.newest(CPU) is None
    said = [str(one.message).rpartition("/")[2] for one in told]
    assert said == [
        f"checkpoint-00000{n} is left out: state.json is not what was written" for n in (2, 1)
    ]
    keep(work, step=3)
    assert names(work, "checkpoint-*") == ["checkpoint-000003"]


@pytest.mark.parametrize("told", [{"places": {}}, {"state": {"mapping": {}}}, [], {}])
def test_a_state_of_another_version_is_left_out(work, told):
    keep(work, step=1)
    keep(work, step=2)
    rewritten(work.path / "checkpoint-000002", lambda _: told)
    with pytest.warns(
        HGCVideoWarning, match=r"000002 is left out: it was written by another version$"
    ):
        assert work.newest(CPU) == {"step": 1}


def test_a_state_whose_tensors_are_spoilt_is_left_out(work):
    keep(work, step=1, a=torch.ones(3))
    keep(work, step=2, a=torch.zeros(3))
    spoil(work.path / "tensors-000002-0.safetensors")
    with pytest.warns(
        HGCVideoWarning, match="tensors-000002-0.safetensors is not what was written"
    ):
        back = work.newest(CPU)
    assert back["step"] == 1 and back["a"].tolist() == [1, 1, 1]


def test_tensors_come_back_on_the_device_that_is_asked_for(work):
    keep(work, a=torch.arange(3), b=torch.arange(4))
    rewritten(
        work.path / "checkpoint-000001",
        lambda told: json.loads(json.dumps(told).replace('"host": true', '"host": false', 1)),
    )
    back = work.newest(torch.device("meta"))
    assert back["a"].device.type == "meta" and back["b"].tolist() == [0, 1, 2, 3]


def test_a_removed_state_that_stays_does_not_end_the_run(work, tmp_path):
    (work.path / "checkpoint-000000").symlink_to(tmp_path)
    for step in (1, 2, 3):
        keep(work, step=step)
    assert work.newest(CPU) == {"step": 3}


def test_files_that_cannot_be_removed_do_not_end_the_run(work, monkeypatch):
    keep(work, a=torch.ones(3))

    def refuse(path, *given, **options):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(Path, "unlink", refuse)
    for at in range(3):
        keep(work, a=torch.full((3,), at))
    assert len(names(work, "checkpoint-*")) == 2 and len(names(work, "tensors-*")) == 4


def test_frames_are_kept_by_their_place(work):
    told = frames(4)[::2]  # not in one piece
    assert work.keep_frames(16, told) == 96
    assert names(work, "frames-*") == ["frames-000016-2"]
    assert np.array_equal(work.frames(16, 2), told) and work.frames(16, 2).dtype == np.uint8
    assert work.frames(16, 4) is None and work.frames(0, 2) is None


def test_spoilt_frames_are_removed(work):
    work.keep_frames(3, frames())
    spoil(work.path / "frames-000003-2" / "frames.safetensors")
    assert work.frames(3, 2) is None and names(work, "frames-*") == []
    work.keep_frames(3, frames(at=5))
    assert np.array_equal(work.frames(3, 2), frames(at=5))


def test_spoilt_frames_that_cannot_be_removed_are_none(work, monkeypatch):
    work.keep_frames(3, frames())
    spoil(work.path / "frames-000003-2" / "frames.safetensors")

    def refuse(*given, **options):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "unlink", refuse)
    assert work.frames(3, 2) is None


def test_a_clip_that_is_done_leaves_the_last_state_alone(work, tmp_path):
    out = tmp_path / "clip.mp4"
    out.write_bytes(b"clip")
    for step in (1, 2):
        keep(work, step=step, a=torch.full((3,), step))
    work.keep_frames(0, frames())
    work.finish(out, "digest")
    assert names(work) == ["checkpoint-000002", "done.json", "lock", "tensors-000002-0.safetensors"]
    assert work.read("done") == {
        "job": "digest",
        "out": str(out),
        "sha256": hashlib.sha256(b"clip").hexdigest(),
    }
    assert work.is_finished(out, "digest") is True
    assert not work.is_finished(out, "other") and not work.is_finished(None, "digest")
    assert not work.is_finished(tmp_path / "other.mp4", "digest")
    out.write_bytes(b"clap")
    assert work.is_finished(out, "digest") is False
    out.unlink()
    assert work.is_finished(out, "digest") is False


def test_the_same_bytes_at_another_place_are_another_clip(work, tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"clip")
    work.finish(tmp_path / "a.mp4", "digest")
    assert not work.is_finished(tmp_path / "b.mp4", "digest")


def test_a_clip_in_the_users_home_is_told_without_its_name(work, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    Path("clip.mp4").write_bytes(b"clip")
    work.finish(Path("clip.mp4"), "digest")
    assert work.read("done")["out"] == "~/clip.mp4"
    assert work.is_finished(Path("clip.mp4"), "digest")
    assert work.is_finished(tmp_path / "home" / "clip.mp4", "digest")


def test_a_run_that_wrote_no_clip_is_never_finished(work, tmp_path):
    assert not work.is_finished(tmp_path / "clip.mp4", "digest"), "nothing is done"
    keep(work, step=1)
    work.finish(None, "digest")
    assert work.read("done") == {"job": "digest"}
    (tmp_path / "clip.mp4").write_bytes(b"clip")
    assert work.is_finished(tmp_path / "clip.mp4", "digest") is False
    assert work.is_finished(None, "digest") is False


def test_a_clip_that_is_gone_already_is_told(work, tmp_path):
    out = tmp_path / "clip.mp4"
    with pytest.raises(StateError) as told:
        work.finish(out, "digest")
    assert str(told.value) == (
        f'the clip "{out}" was written and is gone: {os.strerror(errno.ENOENT)}; '
        "see whether its folder is there"
    )
    assert isinstance(told.value.__cause__, OSError) and work.read("done") is None


@pytest.mark.parametrize(
    "told", [5, ["a"], "text", {}, {"job": "d"}, {"job": "d", "out": 3}, {"job": ["d"]}]
)
def test_an_end_that_is_damaged_is_none(work, told, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a clip")
    work.write("done", told)
    assert not work.is_finished(tmp_path / "a.mp4", "d")
