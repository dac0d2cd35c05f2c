"""Jobs are put into a queue once: known again, made anew when they changed, never in place of a result."""

from __future__ import annotations

from pathlib import Path

import pytest

from hgc_video.errors import InputError
from hgc_video.jobs.add_jobs import Added, add_jobs
from hgc_video.jobs.queue_status import rows_of

from .queue_parts import RESULT, job, part, states


def done(queue, name):
    claimed = queue.claim("w")
    assert claimed.name == name and queue.finish(claimed, part(queue), RESULT)


def test_what_was_added_is_told_without_what_is_none():
    assert str(Added(1, 2, 3, 4)) == "1 new, 2 done before, 3 there, 4 changed"
    assert str(Added(0, 0, 0, 2)) == "2 changed"
    assert str(Added(0, 0, 0, 0)) == "no jobs"


def test_jobs_that_are_there_are_counted_as_they_are(queue):
    add_jobs(queue, [job("a"), job("b")])
    done(queue, "a.mp4")
    assert add_jobs(queue, [job("a"), job("b"), job("c")]) == Added(1, 1, 1, 0)
    assert [row["name"] for row in rows_of(queue)] == ["a.mp4", "b.mp4", "c.mp4"]


def test_a_changed_job_begins_anew_with_all_that_is_its_own(queue):
    add_jobs(queue, [job("a", key="old", loading="m")])
    for _ in range(2):
        queue.died(queue.claim("w"), "killed")
    assert states(queue) == {"a.mp4": "set aside"}
    assert add_jobs(queue, [job("a", key="new", loading="n", seed=3)]) == Added(0, 0, 0, 1)
    row = queue.table.execute("SELECT * FROM jobs WHERE name = 'a.mp4'").fetchone()
    assert (row["state"], row["key"], row["loading"]) == ("queued", "new", "n")
    assert (row["deaths"], row["why"], row["digest"], row["worker"]) == (0, None, None, None)
    assert queue.claim("w", loading="n").options == {"prompt": "a", "seed": 3}


def test_a_clip_that_was_removed_is_made_again(queue):
    add_jobs(queue, [job("a")])
    done(queue, "a.mp4")
    (queue.folder / "a.mp4").unlink()
    assert add_jobs(queue, [job("a")]) == Added(0, 0, 0, 1)
    row = queue.table.execute("SELECT * FROM jobs").fetchone()
    assert (row["state"], row["why"], row["digest"], row["worker"]) == ("queued", None, None, None)
    done(queue, "a.mp4")


def test_a_removed_clip_of_other_options_is_replaced(queue):
    add_jobs(queue, [job("a", key="old")])
    done(queue, "a.mp4")
    (queue.folder / "a.mp4").unlink()
    assert add_jobs(queue, [job("a", key="new")]) == Added(0, 0, 0, 1)


def test_a_job_that_runs_or_is_done_keeps_its_place(queue):
    add_jobs(queue, [job("a", key="old", seed=1)])
    running = queue.claim("w")
    assert add_jobs(queue, [job("a", key="old", seed=1)]) == Added(0, 0, 1, 0)
    with pytest.raises(
        InputError, match=r'a.mp4" is running with other options \(seed\); cancel it first'
    ):
        add_jobs(queue, [job("a", key="new", seed=2)])
    queue.finish(running, part(queue), RESULT)
    with pytest.raises(InputError, match=r"is done with other options \(seed\); remove that file"):
        add_jobs(queue, [job("a", key="new", seed=2)])
    with pytest.raises(InputError, match=r"other options \(a file that it reads\)"):
        add_jobs(queue, [job("a", key="new", seed=1)])


def test_options_are_kept_as_they_read(queue):
    add_jobs(queue, [job("a", control=Path("/clips/tänzer.mp4"))])
    (text,) = queue.table.execute("SELECT options FROM jobs").fetchone()
    assert "/clips/tänzer.mp4" in text
    assert queue.claim("w").options["control"] == "/clips/tänzer.mp4"
