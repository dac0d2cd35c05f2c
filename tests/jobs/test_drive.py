"""How a batch deals with workers that end, fail, die, come back late, or are stopped."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from hgc_video.errors import HGCVideoError
from hgc_video.jobs import drive as drive_module
from hgc_video.jobs.add_jobs import NewJob, add_jobs
from hgc_video.jobs.drive import Drive, Stop
from hgc_video.jobs.owner import this_owner
from hgc_video.jobs.queue import Queue, Result
from hgc_video.jobs.task import Died, Ended, Outcome, Ready, Step

from .hand_engine import DEAD, DONE, HandEngine


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


def interrupt_at(name):
    """An observer that raises KeyboardInterrupt at an event of this name, as Ctrl-C does."""

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
