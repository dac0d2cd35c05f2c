"""The queue: one claim a job, a result once, and what becomes of jobs whose worker is gone."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from hgc_video.errors import InputError
from hgc_video.files import sha256_of
from hgc_video.jobs import queue as queue_module
from hgc_video.jobs.add_jobs import add_jobs
from hgc_video.jobs.owner import is_gone, this_owner
from hgc_video.jobs.queue import STALE_S, Queue, Result
from hgc_video.jobs.queue_status import rows_of, status_of

from .queue_parts import RESULT, Clock, job, part, states


def test_a_job_is_claimed_once_and_done_once(queue):
    add_jobs(queue, [job("a"), job("b", prompt={0: "x", 4: "y"})])
    first, second = queue.claim("w"), queue.claim("w")
    assert (first.name, second.name, queue.claim("w")) == ("a.mp4", "b.mp4", None)
    assert second.options["prompt"] == {0: "x", 4: "y"}, "JSON has no numbers for keys"
    assert queue.finish(first, part(queue), RESULT)
    assert (queue.folder / "a.mp4").read_text() == "clip"
    assert not queue.finish(first, part(queue, "again"), RESULT), "its claim is over"
    assert (queue.folder / "a.mp4").read_text() == "clip"
    queue.fail(second, "why")
    told = status_of(queue, 0)
    assert told.counts["done"] == 1 and told.lost[0].why == "why" and told.macs_saved == 0.5
    assert "failed       2  b.mp4: why" in str(told)


def columns(queue, *names):
    """Those of job 1, as the table has them."""
    found = queue.table.execute(f"SELECT {', '.join(names)} FROM jobs WHERE id = 1").fetchone()
    return tuple(found)


def test_what_the_table_says_of_a_job_in_every_state(queue):
    add_jobs(queue, [job("in/a/folder/a", loading="n")])
    now = ("state", "worker", "claim", "cancel", "step", "steps", "why", "deaths")
    given = queue.claim("gpu 0")
    assert (given.name, given.key, given.loading) == ("in/a/folder/a.mp4", "k", "n")
    assert columns(queue, *now) == ("running", "gpu 0", given.claim, 0, 0, 0, None, 0)
    assert queue.beat({given.claim: (3, 8)}) == set()
    assert columns(queue, "step", "steps", "heartbeat") == (3, 8, 1000.0)
    assert queue.died(given, "killed") == "queued" and queue.died(given, "killed") == ""
    assert columns(queue, *now) == ("queued", "gpu 0", None, 0, 3, 8, "killed", 1)
    again = queue.claim("gpu 1")
    assert columns(queue, *now) == ("running", "gpu 1", again.claim, 0, 0, 0, None, 1)
    assert queue.cancel(1) == "running" and queue.beat({again.claim: (1, 8)}) == {again.claim}
    queue.give_back(again)
    assert columns(queue, *now) == ("cancelled", "gpu 1", None, 0, 1, 8, None, 1)
    queue.retry([1])
    assert columns(queue, *now) == ("queued", None, None, 0, 1, 8, None, 0)
    third = queue.claim("gpu 2")
    queue.fail(third, "a reason")
    assert columns(queue, *now) == ("failed", "gpu 2", None, 0, 0, 0, "a reason", 0)
    assert queue.retry_failed() == 1
    last = queue.claim("gpu 3")
    assert queue.finish(last, part(queue), Result("d" * 64, 1.5, 0.25, ("one", "two")))
    done = ("state", "claim", "why", "digest", "seconds", "macs_saved", "warnings")
    assert columns(queue, *done) == ("done", None, None, "d" * 64, 1.5, 0.25, "one\ntwo")
    assert (queue.folder / "in/a/folder/a.mp4").read_text() == "clip"
    told = [tuple(row) for row in queue.table.execute("SELECT state, worker, why FROM history")]
    assert told[-4:] == [
        ("failed", "gpu 2", "a reason"), ("queued", None, None), ("running", "gpu 3", None),
        ("done", "gpu 3", None),
    ]  # fmt: skip


def test_a_result_without_a_warning_has_none(queue):
    add_jobs(queue, [job("a")])
    assert queue.finish(queue.claim("w"), part(queue), Result("d" * 64, 1.5, 0.25))
    assert columns(queue, "warnings") == (None,)


def test_jobs_of_the_loaded_model_come_first(queue):
    add_jobs(queue, [job("a", loading="m"), job("b", loading="n"), job("c", loading="n")])
    assert [queue.claim("w", "n").name for _ in range(3)] == ["b.mp4", "c.mp4", "a.mp4"]


def test_a_job_is_set_aside_after_two_deaths_and_tried_again_when_asked(queue):
    add_jobs(queue, [job("a")])
    assert queue.died(queue.claim("w"), "killed") == "queued"
    assert queue.died(queue.claim("w"), "killed again") == "set aside"
    assert queue.claim("w") is None
    (lost,) = status_of(queue, 0).lost
    assert (lost.state, lost.why) == ("set aside", "killed again")
    assert queue.retry_failed() == 1 and queue.claim("w").name == "a.mp4"


def test_a_job_without_a_heartbeat_is_anothers_and_its_late_result_is_none(queue, clock):
    add_jobs(queue, [job("a")])
    mine = queue.claim("w")
    clock.now += STALE_S - 1
    assert queue.beat({mine.claim: (3, 25)}) == set() and queue.recover() == []
    clock.now += STALE_S - 1
    assert queue.recover() == [], "the heartbeat was in between"
    clock.now += 2
    assert queue.recover() == [mine.id] and queue.recover() == []
    theirs = queue.claim("other")
    assert queue.beat({mine.claim: (4, 25)}) == {mine.claim}, "a run that lost its claim is to stop"
    assert not queue.finish(mine, part(queue, "late"), RESULT)
    queue.fail(mine, "late"), queue.died(mine, "late"), queue.give_back(mine)
    assert states(queue) == {"a.mp4": "running"}
    assert queue.finish(theirs, part(queue), RESULT) and not queue.recover()


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_jumps_takes_no_job_from_a_process_that_is_there(tmp_path, jump):
    """Set by hand or by the network, or after the machine slept: seen by another batch on the queue."""
    wall, steady = Clock(), Clock()
    queue, other = (Queue(tmp_path, clock=wall, steady=steady) for _ in range(2))
    add_jobs(queue, [job("a")])
    mine = queue.claim("w")
    assert other.recover() == []
    wall.now += jump
    steady.now += 2
    assert other.recover() == [] and queue.beat({mine.claim: (1, 2)}) == set()
    steady.now += STALE_S + 1
    assert other.recover() == [], "the heartbeat was another one"
    steady.now += STALE_S + 1
    assert other.recover() == [mine.id], "it stood still"
    queue.close(), other.close()


def test_the_heartbeat_of_an_unknown_machine_is_told_by_the_clock(queue, clock):
    add_jobs(queue, [job("a")])
    queue.owner = "another-machine:1:2"
    lost = queue.claim("w")
    assert queue.recover() == []
    clock.now += STALE_S + 1
    assert Queue(queue.folder, clock=clock).recover() == [lost.id]


def test_a_process_that_is_gone_is_known_at_once(queue):
    done = subprocess.run(
        [sys.executable, "-c", "from hgc_video.jobs.owner import this_owner; print(this_owner())"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert is_gone(done.stdout.strip()) and not is_gone(this_owner())
    assert not is_gone("another-machine:1:2")
    host, pid, start = this_owner().rsplit(":", 2)
    assert is_gone(f"{host}:{pid}:{float(start) - 100:.2f}"), (
        "its number was given to another process"
    )
    add_jobs(queue, [job("a")])
    queue.owner = done.stdout.strip()
    lost = queue.claim("w")
    assert queue.recover() == [lost.id]


@pytest.mark.parametrize("after_s", [0, 1])
def test_a_heartbeat_may_be_as_old_as_it_may_be(queue, clock, after_s):
    """By the clock of the wall, and by that of whoever watches the job."""
    add_jobs(queue, [job("a"), job("b")])
    mine = queue.claim("w")
    queue.owner = "another-machine:1:2"
    theirs = queue.claim("w")
    assert queue.recover() == []
    clock.now += STALE_S + after_s
    assert queue.recover() == ([mine.id, theirs.id] if after_s else [])


def test_a_job_whose_process_is_gone_says_so(queue, clock):
    add_jobs(queue, [job("a")])
    for _ in range(2):
        queue.claim("w"), queue.recover()
        clock.now += STALE_S + 1
        queue.recover()
    (lost,) = status_of(queue, 0).lost
    assert (lost.state, lost.why) == ("set aside", "the process that ran it is gone")


def test_what_cannot_be_tried_again_is_told(queue):
    add_jobs(queue, [job("a"), job("b")])
    with pytest.raises(
        InputError, match=r"there is no job 7 in .*; hgc-video batch --status lists"
    ):
        queue.retry([7])
    with pytest.raises(InputError, match="job 1 is queued; those that failed, were set aside or"):
        queue.retry([1])
    running = queue.claim("w")
    queue.cancel(running.id), queue.fail(running, "why")
    queue.retry([running.id])
    again = queue.claim("w")
    assert queue.beat({again.claim: (1, 2)}) == set(), "it is not cancelled any more"


def test_cancel(queue):
    add_jobs(queue, [job("a"), job("b"), job("c")])
    running = queue.claim("w")
    assert queue.cancel(2) == "queued" and queue.cancel(9) == ""
    assert queue.cancel(running.id) == "running"
    assert queue.beat({running.claim: (1, 2)}) == {running.claim}
    queue.give_back(running)
    assert states(queue) == {"a.mp4": "cancelled", "b.mp4": "cancelled", "c.mp4": "queued"}
    stopped = queue.claim("w")
    queue.give_back(stopped)
    assert queue.claim("w").name == "c.mp4", "one that was stopped is queued again, without a death"
    assert queue.table.execute("SELECT deaths FROM jobs WHERE id = 3").fetchone()[0] == 0


def test_a_cancelled_job_whose_worker_dies_stays_cancelled(queue):
    add_jobs(queue, [job("a"), job("b")])
    running = queue.claim("w")
    queue.cancel(running.id)
    assert queue.died(running, "killed") == "cancelled"
    finished = queue.claim("w")
    queue.cancel(finished.id)
    assert queue.finish(finished, part(queue), RESULT), "it was done before it could be stopped"
    (queue.folder / "b.mp4").unlink()
    add_jobs(queue, [job("b")])
    again = queue.claim("w")
    assert queue.beat({again.claim: (1, 2)}) == set(), "made anew, it is not cancelled any more"


def test_jobs_are_known_again(queue):
    assert str(add_jobs(queue, [job("a"), job("b")])) == "2 new"
    assert queue.finish(queue.claim("w"), part(queue), RESULT)
    assert str(add_jobs(queue, [job("a"), job("b"), job("c")])) == "1 new, 1 done before, 1 there"
    (queue.folder / "a.mp4").unlink()
    assert add_jobs(queue, [job("a")]).changed == 1 and states(queue)["a.mp4"] == "queued"


def test_a_result_is_never_another_jobs(queue):
    add_jobs(queue, [job("a", seed=1), job("b"), job("c")])
    queue.finish(queue.claim("w"), part(queue), RESULT)
    with pytest.raises(
        InputError, match=r"a\.mp4. is done with other options \(seed\); remove that"
    ):
        add_jobs(queue, [job("z"), job("a", "other", seed=2)])
    assert "z.mp4" not in states(queue), "all or none"
    with pytest.raises(InputError, match="a file that it reads"):
        add_jobs(queue, [job("a", "other", seed=1)])
    running = queue.claim("w")
    with pytest.raises(InputError, match="is running with other options"):
        add_jobs(queue, [job("b", "other")])
    queue.fail(running, "x")
    assert add_jobs(queue, [job("b", "other", seed=5)]).changed == 1
    claimed = queue.claim("w")
    assert (claimed.key, claimed.options["seed"]) == ("other", 5)
    (queue.folder / "d.mp4").write_text("the user's own")
    with pytest.raises(InputError, match="no result of this batch"):
        add_jobs(queue, [job("d")])


def _claim_all(folder, claimed):
    mine = Queue(folder)
    while (job := mine.claim("w")) is not None:
        claimed.put(job.id)
    mine.close()


def test_processes_that_claim_at_once_share_the_jobs(queue):
    add_jobs(queue, [job(f"j{n}") for n in range(200)])
    context = multiprocessing.get_context("fork")
    claimed = context.Queue()
    workers = [context.Process(target=_claim_all, args=(queue.folder, claimed)) for _ in range(4)]
    for worker in workers:
        worker.start()
    got = sorted(claimed.get(timeout=60) for _ in range(200))
    for worker in workers:
        worker.join()
    assert got == list(range(1, 201)) and claimed.empty()
    history = queue.table.execute(
        "SELECT MAX(n) FROM (SELECT COUNT(*) AS n FROM history WHERE state = 'running' GROUP BY job)"
    )
    assert history.fetchone()[0] == 1


def test_a_clip_that_is_in_its_place_already_is_done_at_the_next_try(queue, monkeypatch):
    """The disk was full when its state was to be written, after the clip had been put there."""
    add_jobs(queue, [job("a"), job("b")])
    first, second = queue.claim("w"), queue.claim("w")
    clip = part(queue)
    result = Result(sha256_of(clip), 1.5, 0.5)

    def full(*given, **columns):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Queue, "set_state", full)
        with pytest.raises(
            InputError, match="the queue cannot be written: database or disk is full"
        ):
            queue.finish(first, clip, result)
    assert not clip.exists() and states(queue)["a.mp4"] == "running"
    assert queue.finish(first, clip, result) and states(queue)["a.mp4"] == "done"
    (queue.folder / second.name).write_text("another clip")
    with pytest.raises(FileNotFoundError):
        queue.finish(second, clip, result)
    assert states(queue)["b.mp4"] == "running"


def test_a_result_is_on_the_disk_before_it_is_told(queue, monkeypatch):
    """A job whose clip could not be put in its place is not done."""
    add_jobs(queue, [job("a")])
    claimed = queue.claim("w")

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(queue_module, "_sync", full)
    with pytest.raises(OSError, match="No space"):
        queue.finish(claimed, part(queue), RESULT)
    assert states(queue) == {"a.mp4": "running"} and not (queue.folder / "a.mp4").exists()


def test_what_stands_in_a_queue(queue, clock):
    """A job in every state, two of them at work and two done: the numbers of the done ones are summed and
    averaged, and a job that has told no step yet has an unknown number of them."""
    assert str(status_of(queue, 0)) == "0 jobs: none"
    add_jobs(queue, [job(name) for name in "abcdefgh"])
    for saved in (0.25, 0.5):
        assert queue.finish(queue.claim("w"), part(queue), Result("d" * 64, 1.75, saved))
    running = queue.claim("gpu 0")
    queue.claim("gpu 1")
    queue.beat({running.claim: (3, 8)})
    queue.fail(queue.claim("w"), "no")
    queue.died(queue.claim("w"), "killed", most=1)
    queue.cancel(7)
    queue.table.execute("UPDATE jobs SET why = NULL WHERE id = 6")
    told = status_of(queue, clock.now + 12)
    assert told.to_dict() == {
        "counts": {
            "queued": 1, "running": 2, "done": 2, "failed": 1, "set aside": 1, "cancelled": 1,
        },
        "running": (
            {"id": 3, "name": "c.mp4", "worker": "gpu 0", "step": 3, "steps": 8, "heard_s": 12.0},
            {"id": 4, "name": "d.mp4", "worker": "gpu 1", "step": 0, "steps": 0, "heard_s": 12.0},
        ),
        "lost": (
            {"id": 5, "name": "e.mp4", "state": "failed", "why": "no"},
            {"id": 6, "name": "f.mp4", "state": "set aside", "why": ""},
        ),
        "cancelled": ((7, "g.mp4"),), "seconds": 3.5, "macs_saved": 0.375,
    }  # fmt: skip
    assert str(told).splitlines() == [
        "8 jobs: 1 queued, 2 running, 2 done, 1 failed, 1 set aside, 1 cancelled",
        "done: 3.5 s of work, 37.5 % of the MACs saved",
        "running      3  c.mp4  step 3 of 8  on gpu 0, heard 12 s ago",
        "running      4  d.mp4  step 0 of ?  on gpu 1, heard 12 s ago",
        "failed       5  e.mp4: no",
        "set aside    6  f.mp4: ",
        "cancelled    7  g.mp4",
    ]
    assert rows_of(queue)[2] == {
        "id": 3, "name": "c.mp4", "state": "running", "step": 3, "steps": 8, "worker": "gpu 0",
        "why": None, "seconds": None, "macs_saved": None, "warnings": None,
    }  # fmt: skip
