"""A batch waits out faults of the machine: its workers rest, and it waits for its queue."""

from __future__ import annotations

import errno
import sqlite3
from types import SimpleNamespace

import pytest

from hgc_video.errors import InputError
from hgc_video.jobs import drive as drive_module
from hgc_video.jobs.add_jobs import NewJob, add_jobs
from hgc_video.jobs.batch import EngineChoice
from hgc_video.jobs.drive import Drive, Stop
from hgc_video.jobs.passing_faults import may_pass
from hgc_video.jobs.queue import Queue
from hgc_video.jobs.queue_status import status_of
from hgc_video.jobs.queue_table import FILE

from .hand_engine import DONE, FAULT, HandEngine


def test_a_job_that_a_fault_of_the_machine_ended_is_made_after_the_others(batch, monkeypatch):
    monkeypatch.setattr(drive_module, "REST_S", 0.0)
    engine = HandEngine(FAULT, DONE, FAULT, FAULT, DONE)
    told, states = batch(engine, "a", "b")
    assert told == [
        ("started", "a"), ("fault", "a"), ("started", "b"), ("done", "b"), ("started", "a"), ("fault", "a"),
        ("started", "a"), ("fault", "a"), ("started", "a"), ("done", "a"),
    ]  # fmt: skip
    assert states == {"a.mp4": "done", "b.mp4": "done"}


def test_a_worker_rests_longer_after_each_fault_until_it_makes_a_clip(batch, monkeypatch):
    now, told = 0.0, []

    def monotonic():
        nonlocal now
        now += 0.5
        return now

    monkeypatch.setattr(drive_module, "time", SimpleNamespace(monotonic=monotonic))
    engine = HandEngine(*[FAULT] * 8, DONE, FAULT, FAULT)
    _, states = batch(engine, "a", "b", "c", seen=lambda event: told.append((now, event)))
    assert states == {"a.mp4": "set aside", "b.mp4": "set aside", "c.mp4": "done"}
    faults = [(at, event) for at, event in told if event["event"] == "fault"]
    assert [event["rest_s"] for _, event in faults] == [10, 20, 40, 80, 160, 300, 300, 300, 10, 20]
    assert [event["state"] for _, event in faults] == ["queued"] * 8 + ["set aside"] * 2
    starts = [at for at, event in told if event["event"] == "started"]
    for (at, event), start in zip(faults[:8], starts[1:9], strict=True):
        assert event["rest_s"] <= start - at < event["rest_s"] + 5
    assert all(event["slot"] == "0" and event["why"] == "no disk" for _, event in faults)


def test_a_job_that_faults_set_aside_says_why(batch, monkeypatch, tmp_path):
    monkeypatch.setattr(drive_module, "REST_S", 0.0)
    _, states = batch(HandEngine(*[FAULT] * 4), "a")
    assert states == {"a.mp4": "set aside"}
    (lost,) = status_of(Queue(tmp_path / "b"), 0).lost
    assert lost.why == "no disk"


def test_a_clip_that_a_failing_disk_keeps_from_its_place_is_made_again(batch, monkeypatch):
    monkeypatch.setattr(drive_module, "REST_S", 0.0)
    finish, removed = Queue.finish, []
    faults = [OSError(errno.EIO, "Input/output error")]

    def failing(self, *given):
        if faults:
            raise faults.pop()
        return finish(self, *given)

    monkeypatch.setattr(Queue, "finish", failing)
    monkeypatch.setattr(drive_module, "remove_work", removed.append)
    told, states = batch(HandEngine(DONE, DONE), "a")
    assert states == {"a.mp4": "done"} and ("fault", "a") in told
    assert len(removed) == 1, "the run goes on from what it kept"


def test_a_batch_waits_while_its_queue_cannot_be_written(batch, monkeypatch):
    """Another process holds the queue as each job begins and ends, until the batch says that it waits."""
    monkeypatch.setattr(drive_module, "REST_S", 0.0)
    queue = batch.queue
    queue.table.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(queue.folder / FILE, isolation_level=None)
    told = []

    def hold(event):
        told.append(event)
        if event["event"] == "queue waits":
            other.execute("ROLLBACK")
        elif event["event"] in ("started", "ready") and not other.in_transaction:
            other.execute("BEGIN IMMEDIATE")

    _, states = batch(HandEngine(DONE, DONE), "a", "b", seen=hold)
    other.close()
    assert states == {"a.mp4": "done", "b.mp4": "done"}
    waits = [event for event in told if event["event"] == "queue waits"]
    assert len(waits) >= 2 and "database is locked" in waits[0]["why"]


def test_a_batch_waits_as_long_as_it_is_told(batch, monkeypatch):
    """Rests of 10, 20 and 40 s by a clock that moves half a second a look; then the 60 s are up."""
    now, told, queue = 0.0, [], batch.queue

    def monotonic():
        nonlocal now
        now += 0.5
        return now

    clock = SimpleNamespace(monotonic=monotonic, sleep=lambda seconds: None)
    monkeypatch.setattr(drive_module, "time", clock)
    queue.table.execute("PRAGMA busy_timeout = 1")
    add_jobs(queue, [NewJob("a.mp4", {}, "a", "m")])
    other = sqlite3.connect(queue.folder / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(InputError, match="database is locked"):
        Drive(queue, HandEngine(), told.append, wait_s=60).run(Stop())
    other.close()
    assert [event["rest_s"] for event in told] == [10, 20, 40]
    told.clear()
    other = sqlite3.connect(queue.folder / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(InputError, match="database is locked"):
        Drive(queue, HandEngine(), told.append, wait_s=0).run(Stop())
    other.close()
    assert told == []
    with pytest.raises(InputError, match="wait_s=-1 is not possible; give 0 or more"):
        EngineChoice(wait_s=-1)


def test_a_batch_that_is_to_stop_waits_no_longer(batch, monkeypatch):
    stop, queue = Stop(), batch.queue
    queue.table.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(queue.folder / FILE, isolation_level=None)

    def hold(event):
        if event["event"] == "ready":
            other.execute("BEGIN IMMEDIATE")
        stop.asked = event["event"] == "queue waits"

    with pytest.raises(InputError, match="the queue cannot be written: database is locked"):
        batch(HandEngine(DONE), "a", stop=stop, seen=hold)
    other.close()


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (sqlite3.OperationalError("database or disk is full"), True),
        (sqlite3.OperationalError("disk I/O error"), True),
        (sqlite3.OperationalError("no such table: jobs"), False),
        (OSError(errno.EIO, "a"), True),
        (OSError(errno.ENOSPC, "a"), True),
        (OSError(errno.ESTALE, "a"), True),
        (OSError(errno.EACCES, "a"), False),
        (OSError(errno.ENOENT, "a"), False),
        (ValueError("a"), False),
        (MemoryError(), False),
    ],
)
def test_faults_that_may_pass_are_those_of_disks_and_mounts(error, passes):
    assert may_pass(error) == passes
    try:
        raise InputError("cannot write") from error
    except InputError as raised:
        assert may_pass(raised) == passes


def test_a_batch_that_rests_stops_when_somebody_else_asks(batch, monkeypatch):
    """No event tells of that: the page's task is cancelled while a worker rests."""
    cancelled = iter([False] * 4)
    stop = Stop(lambda: next(cancelled, True))
    told, states = batch(HandEngine(FAULT), "a", stop=stop)
    assert told == [("started", "a"), ("fault", "a")] and states == {"a.mp4": "queued"}
    assert Stop().asked is False
