"""How a batch deals with workers that end, fail, die, come back late, or are stopped."""

from __future__ import annotations

import errno
import re
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from hgc_video.errors import HGCVideoError, InputError
from hgc_video.jobs import drive as drive_module
from hgc_video.jobs.add_jobs import NewJob, add_jobs
from hgc_video.jobs.batch import EngineChoice
from hgc_video.jobs.drive import Drive, Stop
from hgc_video.jobs.owner import this_owner
from hgc_video.jobs.passing_faults import may_pass
from hgc_video.jobs.queue import Queue, Result
from hgc_video.jobs.queue_table import FILE
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
FAULT = [Ended("0", Outcome("failed", why="no disk", passing=True))]


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


def test_a_job_whose_worker_dies_is_tried_once_more_after_the_others(batch):
    engine = HandEngine(DEAD, DEAD, DONE, DONE, DEAD)
    _, states = batch(engine, "a", "b", "c")
    assert states == {"a.mp4": "done", "b.mp4": "set aside", "c.mp4": "done"}
    assert [task.name[0] for task in engine.given] == ["a", "b", "c", "a", "b"]
    assert len({task.part for task in engine.given}) == 5, "each try writes a file of its own"
    assert len({task.work for task in engine.given}) == 3, "and goes on in the folder of its job"


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


def test_a_batch_that_rests_stops_when_somebody_else_asks(batch, monkeypatch):
    """No event tells of that: the page's task is cancelled while a worker rests."""
    cancelled = iter([False] * 4)
    stop = Stop(lambda: next(cancelled, True))
    told, states = batch(HandEngine(FAULT), "a", stop=stop)
    assert told == [("started", "a"), ("fault", "a")] and states == {"a.mp4": "queued"}
    assert Stop().asked is False


def interrupt_at(name):
    """An observer that gets Ctrl-C when it is told this event."""

    def seen(event):
        if event["event"] == name:
            raise KeyboardInterrupt

    return seen


def test_an_interrupt_gives_the_jobs_back(batch):
    engine = HandEngine(DONE)
    with pytest.raises(KeyboardInterrupt):
        batch(engine, "a", seen=interrupt_at("step"))
    (row,) = batch.queue.table.execute("SELECT state, deaths FROM jobs").fetchall()
    assert engine.closed and tuple(row) == ("queued", 0)


def test_a_clip_that_cannot_be_put_in_its_place_is_a_failure(batch):
    (batch.queue.folder / "sub").write_text("a file where a folder is needed")
    add_jobs(batch.queue, [NewJob("sub/a.mp4", {}, "k", "m")])
    _, states = batch(HandEngine(DONE, DONE), "b")
    assert states == {"sub/a.mp4": "failed", "b.mp4": "done"}


class WorkingEngine(HandEngine):
    """Whose workers begin with a file in the folder of their job."""

    def __init__(self, *script):
        super().__init__(*script)
        self.waited = set()

    def give(self, slot, task):
        assert slot == "0"
        super().give(slot, task)
        Path(task.work).mkdir(parents=True, exist_ok=True)
        (Path(task.work) / "half").touch()

    def events(self, timeout_s):
        self.waited.add(timeout_s)
        return super().events(timeout_s)

    def left(self):
        """Which jobs' folders are there, by the first letters of the jobs."""
        return {task.name[0] for task in self.given if Path(task.work).is_dir()}


def test_what_is_told_of_a_job_and_what_a_worker_is_given(batch, tmp_path):
    options = {"control": {"pose": str(tmp_path / "pose.mp4")}}
    add_jobs(batch.queue, [NewJob("sub/a.mp4", options, "0123456789", "m")])
    result = Result("d", 1.5, 0.25, ("a warning",))
    engine = WorkingEngine([Step("0", 2, 9), Ended("0", Outcome("done", result, loaded=True))])
    told = []
    Drive(batch.queue, engine, told.append, storage=f"{tmp_path}/BOX/").run(Stop())
    job = {"job": 1, "name": "sub/a.mp4"}
    assert told == [
        {"event": "ready", "slot": "0", "where": "host:1"},
        {"event": "started", **job, "slot": "0"},
        {"event": "step", **job, "slot": "0", "step": 2, "steps": 9},
        {
            "event": "done", **job, "loaded": True, "digest": "d", "seconds": 1.5,
            "macs_saved": 0.25, "warnings": ["a warning"],
        },
    ]  # fmt: skip
    (task,) = engine.given
    assert (task.name, task.options) == ("sub/a.mp4", options)
    assert re.fullmatch(rf"{tmp_path}/b/\.part-1-[0-9a-f]{{16}}\.mp4", task.part)
    assert task.work == f"{tmp_path}/BOX/b-1-01234567" and not engine.left()
    assert task.names == {str(tmp_path / "pose.mp4"): "../../pose.mp4"}, "as seen from the clip"
    (worker,) = batch.queue.table.execute("SELECT worker FROM jobs").fetchone()
    assert worker == "host:1/0" and engine.waited == {0.5}
    add_jobs(batch.queue, [NewJob("b.mp4", {}, "k", "m")])
    plain = HandEngine(DONE)
    Drive(batch.queue, plain, told.append).run(Stop())
    assert [task.work for task in plain.given] == [""], "there is no place to go on from"


def test_how_every_other_end_is_told_and_what_is_left_to_go_on_with(batch):
    """One job fails, one is cancelled, one loses its claim, one its worker, twice, and one its place."""
    ends = (
        [Ended("0", Outcome("failed", why="no"))],
        [Ended("0", Outcome("stopped"))],
        DONE,
        DEAD,
        DONE,
        DEAD,
    )
    engine, told = WorkingEngine(*ends), []
    (batch.queue.folder / "place").write_text("a file where a folder is needed")

    def see(event):
        told.append(event)
        name, table = event.get("name"), batch.queue.table
        if event["event"] == "started" and name == "b.mp4":
            table.execute("UPDATE jobs SET cancel = 1 WHERE name = 'b.mp4'")
        if event["event"] == "started" and name == "c.mp4":
            table.execute("UPDATE jobs SET claim = 'theirs' WHERE name = 'c.mp4'")

    _, states = batch(engine, "a", "b", "c", "d", "place/e", seen=see)
    named = {name: {"job": at, "name": name} for at, name in enumerate(states, 1)}
    ended = [e for e in told if e["event"] not in ("ready", "started", "step")]
    why = ended[-2].pop("why")
    assert ended == [
        {"event": "failed", **named["a.mp4"], "why": "no"},
        {"event": "stopped", **named["b.mp4"]},
        {"event": "lost", **named["c.mp4"], "why": "another batch took it over"},
        {"event": "died", **named["d.mp4"], "why": "killed", "state": "queued"},
        {"event": "failed", **named["place/e.mp4"]},
        {"event": "died", **named["d.mp4"], "why": "killed", "state": "set aside"},
    ]
    assert why.startswith("its clip cannot be put in its place: [Errno")
    kept = dict(batch.queue.table.execute("SELECT name, why FROM jobs").fetchall())
    assert kept == {
        "a.mp4": "no", "b.mp4": None, "c.mp4": None, "d.mp4": "killed", "place/e.mp4": why,
    }  # fmt: skip
    assert engine.left() == set("abcdp")


def test_an_interrupt_leaves_what_a_run_can_go_on_with(batch):
    engine = WorkingEngine(DONE)
    with pytest.raises(KeyboardInterrupt):
        batch(engine, "a", seen=interrupt_at("started"))
    assert engine.left() == {"a"} and not list(batch.queue.folder.glob(".*part-*"))


@pytest.mark.parametrize(
    ("script", "loadings", "given"),
    [
        ([DONE] * 3, "mnm", "acb"),
        # A worker that takes the place of one that died has nothing loaded: b comes before c.
        ([DEAD, DONE, DONE, DONE], "nmn", "abca"),
    ],
)
def test_a_worker_goes_on_with_jobs_of_the_model_that_it_has_loaded(batch, script, loadings, given):
    jobs = zip("abc", loadings, strict=True)
    add_jobs(batch.queue, [NewJob(f"{name}.mp4", {}, name, loading) for name, loading in jobs])
    engine = HandEngine(*script)
    batch(engine)
    assert "".join(task.name[0] for task in engine.given) == given


def test_a_worker_that_dies_without_a_job_is_given_none(batch):
    engine = HandEngine(DONE)
    engine.told += [Died("0", "killed"), Ready("0", "host:2")]
    assert batch(engine, "a") == ([("started", "a"), ("done", "a")], {"a.mp4": "done"})


def test_the_last_worker_that_is_lost_says_where_to_look(batch):
    engine, told = HandEngine([Died("0", "no such device", for_good=True)]), []
    engine.empty = True
    with pytest.raises(HGCVideoError) as raised:
        batch(engine, "a", seen=told.append)
    logs = batch.queue.folder / "logs"
    assert str(raised.value) == f"no worker is left, the last one: no such device; see {logs}"
    assert told[-1] == {"event": "worker lost", "slot": "0", "why": "no such device"}


class PacedEngine(HandEngine):
    """Whose worker tells of one step in every round; `rounds` are the times of the ends of rounds."""

    def __init__(self, queue, clock, rounds):
        super().__init__([])
        self.table, self.clock, self.rounds, self.seen = queue.table, clock, list(rounds), []

    def events(self, timeout_s):
        self.seen += [row["step"] for row in self.table.execute("SELECT step FROM jobs")]
        self.clock.now = self.rounds.pop(0)
        told = super().events(timeout_s)
        if self.given:
            at = len(self.seen) - 1
            told += [Step("0", at, 9)] if self.rounds else DONE[1:]
        return told


def test_steps_are_put_down_every_two_seconds(batch, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(drive_module, "time", clock)
    monkeypatch.setattr(drive_module, "BEAT_S", 2.0)
    engine = PacedEngine(batch.queue, clock, [100.0, 101.5, 102.0, 103.9, 104.0, 105.0])
    _, states = batch(engine, "a")
    # The table at the beginning of every round: step 2 is put down at 102 s, step 4 at 104 s.
    assert engine.seen == [0, 0, 0, 2, 2, 4]
    assert states == {"a.mp4": "done"} and not engine.stopped


def test_a_job_of_a_process_that_is_gone_is_recovered_and_what_it_wrote_removed(batch):
    queue, mine = batch.queue, batch.queue.owner
    add_jobs(queue, [NewJob("a.mp4", {}, "k", "m")])
    host, pid, start = this_owner().rsplit(":", 2)
    queue.owner = f"{host}:{pid}:{float(start) - 100:.2f}"  # a process that had this one's number
    queue.claim("theirs")
    queue.owner = mine
    (queue.folder / ".part-1-0123.mp4").write_text("half of a clip")
    others = queue.folder / ".part-11-0123.mp4"
    others.write_text("of job 11")
    told = []

    def see(event):
        told.append(event)
        if event["event"] == "recovered":
            assert list(queue.folder.glob(".part-*")) == [others]
            others.unlink()

    assert batch(HandEngine(DONE), seen=see)[1] == {"a.mp4": "done"}
    assert told[0] == {"event": "recovered", "job": 1}
