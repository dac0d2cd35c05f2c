"""The work of a run at a URL: there when it begins anew elsewhere, marks of completeness last."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from hgc_video.errors import HGCVideoWarning, InputError
from hgc_video.jobs.engines import work_sync
from hgc_video.jobs.engines.work_sync import remove_work, work_at
from hgc_video.jobs.task import Task
from hgc_video.jobs.worker import Worker


def test_a_plain_folder_is_used_as_it_is(tmp_path):
    with work_at(str(tmp_path / "a" / "b")) as folder:
        assert folder == tmp_path / "a" / "b" and folder.is_dir()
    remove_work(str(tmp_path / "a" / "b"))
    assert not folder.exists()
    with work_at("") as own:
        assert own.is_dir() and own != folder
    assert not own.exists()


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_work_goes_on_elsewhere(tmp_path, scheme):
    url = f"{scheme}://{tmp_path}/work" if scheme == "file" else "memory://work"
    with work_at(url) as here:
        (here / "steps").mkdir()
        (here / "steps" / "3.safetensors").write_text("latents")
        (here / "old").write_text("x")
        (here / "gone").mkdir()
        (here / "gone" / "a").write_text("x")
        (here / "gone" / "b").write_text("x")
    assert not here.exists()
    with work_at(url) as there:
        assert (there / "steps" / "3.safetensors").read_text() == "latents"
        (there / "old").unlink()
        shutil.rmtree(there / "gone")
        (there / "steps" / "3.safetensors").write_text("latents of step 5")
    if scheme == "file":
        assert {path.name for path in (tmp_path / "work").iterdir()} == {"steps"}
    with work_at(url) as again:
        assert {p.name for p in again.rglob("*") if p.is_file()} == {"3.safetensors"}
        assert (again / "steps" / "3.safetensors").read_text() == "latents of step 5"
    remove_work(url)
    remove_work(url)
    with work_at(url) as empty:
        assert not list(empty.iterdir())


def arrives(path):
    """What a file holds when it is there and not empty: written in place, it may be copied between that it is
    made and that it is written, and again then."""
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return path.read_text()


def test_work_is_copied_while_a_run_is_at_it_and_when_it_fails(tmp_path):
    place = tmp_path / "work"
    with pytest.raises(RuntimeError), work_at(f"file://{place}", every_s=0.01) as here:
        (here / "a").write_text("1")
        assert arrives(place / "a") == "1"
        (here / "b").write_text("2")
        raise RuntimeError("the run ends")
    assert (place / "b").read_text() == "2"
    assert threading.active_count() < 20


def test_what_is_written_last_arrives_last(tmp_path, monkeypatch):
    arrived = []
    copied = work_sync._Copied._copy

    def note(self, path, inner):
        arrived.append(inner)
        return copied(self, path, inner)

    monkeypatch.setattr(work_sync._Copied, "_copy", note)
    with work_at(f"file://{tmp_path / 'work'}", every_s=60) as here:
        for name in ("z.safetensors", "m.json", "a.complete"):
            (here / name).write_text(name)
            time.sleep(0.01)
    assert arrived == ["z.safetensors", "m.json", "a.complete"]


def test_what_is_not_complete_or_gone_meanwhile_is_not_copied(tmp_path):
    place = tmp_path / "work"
    with work_at(f"file://{place}", every_s=60) as here:
        (here / ".tensors.part").write_text("half")
        (here / ".checkpoint.part").mkdir()
        (here / ".checkpoint.part" / "state.json").write_text("half")
        (here / "job.json").write_text("{}")
        copied = work_sync._Copied(f"file://{place}", here)
        assert not copied._copy(here / "gone", "gone")
    assert [path.name for path in place.iterdir()] == ["job.json"]


def half(self, source, target, **options):
    """A copy that a full disk ends after half of it."""
    data = Path(source).read_bytes()
    Path(target).write_bytes(data[: len(data) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_was_there_stays_until_what_replaces_it_is_whole(tmp_path, monkeypatch):
    place = tmp_path / "work"
    with work_at(f"file://{place}", every_s=60) as here:
        (here / "job.json").write_text("before")
        copied = work_sync._Copied(f"file://{place}", here)
        copied.push()
        (here / "job.json").write_text("the run was begun anew")
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
            patch.setattr(LocalFileSystem, "put_file", half)
            copied.push()
        assert {path.name: path.read_text() for path in place.iterdir()} == {"job.json": "before"}
        copied.push()
        assert (place / "job.json").read_text() == "the run was begun anew"
        assert [path.name for path in place.iterdir()] == ["job.json"]


def test_what_a_lost_machine_had_not_copied_as_a_whole_is_not_taken(tmp_path):
    place = tmp_path / "work"
    (place / ".checkpoint.part").mkdir(parents=True)
    for name in ("job.json", ".plan.json.part", ".checkpoint.part/state.json"):
        (place / name).write_text("1")
    with work_at(f"file://{place}", every_s=60) as here:
        assert [path.name for path in here.rglob("*")] == ["job.json"]


@pytest.mark.parametrize("refuses", [True, False])
def test_a_file_is_replaced_where_a_move_does_not_do_that(tmp_path, monkeypatch, refuses):
    """As with SMB, which refuses to, and WebHDFS, which says nothing."""
    move, place = LocalFileSystem.mv, tmp_path / "work"

    def stays(self, source, target, **options):
        if not Path(target).exists():
            move(self, source, target, **options)
        elif refuses:
            raise FileExistsError(target)

    monkeypatch.setattr(LocalFileSystem, "mv", stays)
    with work_at(f"file://{place}", every_s=60) as here:
        (here / "a").write_text("1")
        copied = work_sync._Copied(f"file://{place}", here)
        copied.push()
        (here / "a").write_text("two")
        copied.push()
        assert {path.name: path.read_text() for path in place.iterdir()} == {"a": "two"}


def test_a_move_that_fails_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    place = tmp_path / "work"

    def fails(self, source, target, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    copied = work_sync._Copied(f"file://{place}", tmp_path)
    (tmp_path / "a").write_text("1")
    monkeypatch.setattr(LocalFileSystem, "mv", fails)
    with pytest.raises(PermissionError, match="Permission denied"):
        copied._copy(tmp_path / "a", "a")
    assert not list(place.iterdir())


def test_an_object_store_takes_a_file_under_its_name(tmp_path):
    copied = work_sync._Copied("memory://store/work", tmp_path)
    (tmp_path / "a").write_text("1")
    assert copied._copy(tmp_path / "a", "a")
    assert copied._files.find("/store") == ["/store/work/a"]
    copied._files.rm("/store", recursive=True)


def test_a_place_that_cannot_be_written_costs_no_run(tmp_path):
    (tmp_path / "work").write_text("a file where a folder is needed")
    told = pytest.warns(HGCVideoWarning, match="what resumes this run cannot be copied")
    with told, work_at(f"file://{tmp_path / 'work' / 'a'}", every_s=0.01) as here:
        (here / "a").write_text("1")
        time.sleep(0.1)


def test_a_password_in_an_address_is_not_told(tmp_path):
    """Warnings are kept in the queue and shown on the page."""
    (tmp_path / "work").write_text("a file where a folder is needed")
    copied = work_sync._Copied(f"file://{tmp_path / 'work' / 'a'}", tmp_path)
    with pytest.warns(HGCVideoWarning) as told:
        work_sync._push_at_the_end(copied, "sftp://ann:secret@host/work")
    assert str(told[0].message).startswith(
        "what resumes this run cannot be copied to sftp://host/work: NotADirectoryError: "
    )


def copies(monkeypatch):
    """The names of files as they are copied to the URL."""
    told, copy = [], work_sync._Copied._copy

    def note(self, path, inner):
        told.append(inner)
        return copy(self, path, inner)

    monkeypatch.setattr(work_sync._Copied, "_copy", note)
    return told


def test_what_lies_there_already_is_not_copied_again(tmp_path, monkeypatch):
    url = f"file://{tmp_path / 'work'}"
    with work_at(url, every_s=60) as here:
        (here / "a" / "b").mkdir(parents=True)
        (here / "a" / "b" / "c.json").write_text("{}")
        copied = work_sync._Copied(url, here)
        told = copies(monkeypatch)
        copied.push()
        copied.push()
        assert told == ["a/b/c.json"], "once, as it stayed as it was"
        (here / "a" / "b" / "c.json").write_text("{1}")
        copied.push()
        assert told == ["a/b/c.json"] * 2
    told.clear()
    with work_at(url, every_s=60) as again:
        assert (again / "a" / "b" / "c.json").read_text() == "{1}"
    assert told == []


def test_the_oldest_is_copied_first_whatever_its_name(tmp_path, monkeypatch):
    told = copies(monkeypatch)
    with work_at(f"file://{tmp_path / 'work'}", every_s=60) as here:
        for at, name in enumerate(("b", "c", "a")):
            (here / name).write_text(name)
            os.utime(here / name, ns=(at // 2, at // 2))
    assert sorted(told[:2]) == ["b", "c"] and told[2] == "a"


def test_a_folder_goes_when_the_last_of_its_files_has_gone(tmp_path):
    place = tmp_path / "work"
    with work_at(f"file://{place}", every_s=60) as here:
        for name in ("a/x/1", "a/x/2", "a/y/3", "b/4"):
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            (here / name).write_text(name)
        copied = work_sync._Copied(f"file://{place}", here)
        copied.push()
        shutil.rmtree(here / "a" / "x")
        (here / "b" / "4").unlink()
        copied.push()
        assert sorted(p.relative_to(place).as_posix() for p in place.rglob("*")) == [
            "a", "a/y", "a/y/3", "b",
        ], "a folder that is there here stays there"  # fmt: skip


def test_what_somebody_else_has_removed_or_put_there_hinders_nothing(tmp_path):
    place = tmp_path / "work"
    with work_at(f"file://{place}", every_s=60) as here:
        for name in ("a/1", "b/2"):
            (here / name).parent.mkdir(exist_ok=True)
            (here / name).write_text(name)
        copied = work_sync._Copied(f"file://{place}", here)
        copied.push()
        (place / "a" / "1").unlink()
        (place / "b" / "of somebody else").write_text("x")
        shutil.rmtree(here / "a")
        shutil.rmtree(here / "b")
        (here / "c").write_text("c")
        copied.push()
        assert sorted(p.name for p in place.rglob("*") if p.is_file()) == ["c", "of somebody else"]
        copied.push()


def test_a_thread_that_copies_goes_on_after_a_fault(tmp_path, monkeypatch):
    push, calls = work_sync._Copied.push, []

    def failing(self):
        calls.append(threading.current_thread() is threading.main_thread())
        if len(calls) == 1:
            raise RuntimeError("the connection is gone")
        push(self)

    monkeypatch.setattr(work_sync._Copied, "push", failing)
    place = tmp_path / "work"
    with work_at(f"file://{place}", every_s=0.01) as here:
        (here / "a").write_text("1")
        assert arrives(place / "a") == "1" and calls[:2] == [False, False]


def test_a_place_that_cannot_be_read_is_told_without_a_password(tmp_path):
    for url, why in (
        (f"zip://ann:secret@a::file://{tmp_path / 'gone.zip'}", "FileNotFoundError"),
        ("nosuch://ann:secret@host/work", "ValueError: Protocol not known: nosuch"),
    ):
        cannot = "what resumes this run cannot be read from"
        with pytest.raises(InputError, match=cannot) as told, work_at(url):
            raise AssertionError("a run began")
        assert why in str(told.value) and "secret" not in str(told.value)


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, monkeypatch):
    """Names at a URL are whatever somebody has written there."""
    files = work_sync._Copied("memory://shared/work", tmp_path)._files
    files.pipe("/shared/work/a", b"1")
    found = files.find("/shared/work")
    folder = tmp_path / "one" / "two"
    folder.mkdir(parents=True)
    with monkeypatch.context() as patch, pytest.raises(InputError, match="leads out of") as told:
        patch.setattr(type(files), "find", lambda *_: [*found, "/shared/work/../../taken"])
        work_sync._fetched("memory://shared/work", folder)
    assert str(told.value).startswith('"../../taken" leads out of the folder of the run')
    assert not (tmp_path / "taken").exists()
    files.rm("/shared", recursive=True)


def test_what_cannot_be_removed_is_warned_of(tmp_path):
    remove_work(str(tmp_path / "gone"))
    with pytest.warns(HGCVideoWarning, match="cannot be removed from nosuch://host/work") as told:
        remove_work("nosuch://ann:secret@host/work")
    assert len(told) == 1 and "secret" not in str(told[0].message)


DIES = """
import json, os, signal, sys, time
from pathlib import Path
from hgc_video.jobs.task import Task
from hgc_video.jobs.worker import Worker

task, place = Task(**json.loads(sys.argv[1])), Path(sys.argv[2])

def on_step(step, steps):
    deadline = time.monotonic() + 60
    while step == 3 and time.monotonic() < deadline:
        if (place / "checkpoint-000002" / "COMPLETE").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)

Worker("cpu").make(task, on_step)
"""


@pytest.mark.slow
def test_a_worker_goes_on_where_another_one_died(tiny, tmp_path):
    """Through a URL: of the run of a process that was killed, the steps after its checkpoint are made."""
    options = {
        **tiny,
        "num_inference_steps": 4,
        "checkpoint_every_s": 0.0,
        "height": 64,
        "width": 64,
    }
    options["control"] = {"pose": str(tmp_path / "pose.mp4")}
    place = tmp_path / "storage" / "job"
    first = {
        "name": "a",
        "options": options,
        "part": str(tmp_path / "a.mp4"),
        "work": f"file://{place}",
    }
    command = [sys.executable, "-c", DIES, json.dumps(first), str(place)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    steps, worker = [], Worker("cpu")
    outcome = worker.make(Task(**first), lambda step, of: steps.append(step))
    assert outcome.state == "done" and steps in ([3, 4], [4])
    whole = Task("a", options, str(tmp_path / "b.mp4"), "")
    assert worker.make(whole, lambda *_: None).result.digest == outcome.result.digest


def test_a_place_that_cannot_be_made_is_told_in_a_line(tmp_path):
    (tmp_path / "file").touch()
    place = str(tmp_path / "file" / "work")
    with pytest.raises(InputError, match=r"cannot write .*file/work"), work_at(place):
        pass
