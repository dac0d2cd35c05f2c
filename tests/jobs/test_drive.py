"""How a batch deals with workers that end, fail, die, come back late, or are stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from hgc_video.errors import HGCVideoError
from hgc_video.jobs import drive as drive_module
from hgc_video.jobs.add_jobs import NewJob, add_jobs
from hgc_video.jobs.drive import Drive, Stop
from hgc_video.jobs.queue import Queue, Result
from hgc_video.jobs.task import Died, Ended, Outcome, Ready, Step


class HandEngine:
    """An engine of one slot whose workers do what a script says of each task, in order."""

    def __init__(self, *script):
        self.script, self.told, self.given, self.stopped = (
            list(script),
            [Ready("0", "host:1")],
            [],
            [],
        )
        self.closed = self.empty = False

    def start(self):
        pass

    def give(self, slot, task):
        self.given.append(task)
        Path(task.part).parent.mkdir(exist_ok=True)
        Path(task.part).write_text(f"{task.name} {len(self.given)}")
        self.told += self.script.pop(0)

    def stop(self, slot):
        self.stopped.append(self.given[-1].name)
        self.told.append(Ended(slot, Outcome("stopped")))

    def events(self, timeout_s):
        told, self.told = self.told, []
        return told

    def is_empty(self):
        return self.empty

    def close(self):
        self.closed = True


DONE = [Step("0", 1, 1), Ended("0", Outcome("done", Result("d", 1.0, 0.5)))]
DEAD = [Died("0", "killed"), Ready("0", "host:1")]


@pytest.fixture
def batch(tmp_path, monkeypatch):
    """Runs jobs a, b, ... under a script and gives what was told, states and names of files."""
    monkeypatch.setattr(drive_module, "BEAT_S", 0.0)
    queue = Queue(tmp_path / "b")

    def run(engine, *names, stop=None, seen=None):
        add_jobs(queue, [NewJob(f"{name}.mp4", {}, name, "m") for name in names])
        told = []
        tell = seen or told.append
        Drive(queue, engine, tell, storage=str(tmp_path / "work")).run(stop or Stop())
        states = dict(queue.table.execute("SELECT name, state FROM jobs").fetchall())
        assert engine.closed and not list(queue.folder.glob(".*part-*"))
        return [
            (e["event"], e["name"][:1]) for e in told if "name" in e and e["event"] != "step"
        ], states

    run.queue = queue
    yield run
    queue.close()


def test_a_failure_does_not_stop_the_rest(batch):
    told, states = batch(HandEngine([Ended("0", Outcome("failed", why="no"))], DONE), "a", "b")
    assert told == [("started", "a"), ("failed", "a"), ("started", "b"), ("done", "b")]
    assert states == {"a.mp4": "failed", "b.mp4": "done"}
    assert (batch.queue.folder / "b.mp4").read_text() == "b.mp4 2"
    assert not (batch.queue.folder / "a.mp4").exists()


def test_a_job_whose_worker_dies_is_tried_once_more(batch):
    engine = HandEngine(DEAD, DONE, DEAD, DEAD, DONE)
    _, states = batch(engine, "a", "b", "c")
    assert states == {"a.mp4": "done", "b.mp4": "set aside", "c.mp4": "done"}
    assert [task.name[0] for task in engine.given] == ["a", "a", "b", "b", "c"]
    assert len({task.part for task in engine.given}) == 5, "each try writes a file of its own"
    assert len({task.work for task in engine.given}) == 3, "and goes on in the folder of its job"


def test_a_batch_ends_when_no_worker_is_left(batch):
    engine = HandEngine([Died("0", "no such device", for_good=True)])
    engine.empty = True
    with pytest.raises(HGCVideoError, match="no worker is left, the last one: no such device"):
        batch(engine, "a")
    assert engine.closed


def test_what_comes_back_late_is_no_result(batch, tmp_path):
    """Another process took the job over while this one's worker was at it."""
    queue = batch.queue

    def take_over(event):
        if event["event"] == "started" and event["name"] == "a.mp4":
            with_claim = "UPDATE jobs SET claim = 'theirs' WHERE name = 'a.mp4'"
            queue.table.execute(with_claim)

    _, states = batch(HandEngine(DONE, DONE), "a", "b", seen=take_over)
    assert states == {"a.mp4": "running", "b.mp4": "done"}
    assert not (queue.folder / "a.mp4").exists()


def test_a_cancelled_job_is_stopped_and_the_next_one_made(batch):
    queue, engine = batch.queue, HandEngine([Step("0", 1, 9)], DONE)

    def cancel(event):
        if event["event"] == "step" and event["name"] == "a.mp4":
            Queue(queue.folder).cancel(event["job"])

    _, states = batch(engine, "a", "b", seen=cancel)
    assert engine.stopped == ["a.mp4"] and states == {"a.mp4": "cancelled", "b.mp4": "done"}


def test_a_batch_that_is_stopped_leaves_its_jobs_queued(batch):
    stop, engine = Stop(), HandEngine(DONE, [Step("0", 1, 9)])

    def ask(event):
        if event["event"] == "step" and event["name"] == "b.mp4":
            stop.asked = True

    _, states = batch(engine, "a", "b", "c", stop=stop, seen=ask)
    assert states == {"a.mp4": "done", "b.mp4": "queued", "c.mp4": "queued"}
    again, states = batch(HandEngine(DONE, DONE))
    assert set(states.values()) == {"done"} and len(again) == 4


def test_an_interrupt_gives_the_jobs_back(batch):
    def interrupt(event):
        if event["event"] == "step":
            raise KeyboardInterrupt

    engine = HandEngine(DONE)
    with pytest.raises(KeyboardInterrupt):
        batch(engine, "a", seen=interrupt)
    (row,) = batch.queue.table.execute("SELECT state, deaths FROM jobs").fetchall()
    assert engine.closed and tuple(row) == ("queued", 0)


def test_a_clip_that_cannot_be_put_in_its_place_is_a_failure(batch):
    (batch.queue.folder / "sub").write_text("a file where a folder is needed")
    add_jobs(batch.queue, [NewJob("sub/a.mp4", {}, "k", "m")])
    _, states = batch(HandEngine(DONE, DONE), "b")
    assert states == {"sub/a.mp4": "failed", "b.mp4": "done"}
