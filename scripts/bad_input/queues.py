"""Queues of jobs: a good one, damaged ones, and how they are read."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import time
from pathlib import Path

from hgc_video.jobs.queue import Queue
from hgc_video.jobs.queue_status import rows_of, status_of
from hgc_video.jobs.queue_table import FILE

from .damage import damaged_bytes


def good_queues(folder: Path) -> list[Path]:
    """A queue with jobs in several states."""
    from hgc_video.jobs.add_jobs import NewJob, add_jobs

    queue = Queue(folder / "batch")
    add_jobs(
        queue, [NewJob(f"{n}.mp4", {"prompt": {"0": n}, "seed": 1}, n * 8, "m") for n in "abcdef"]
    )
    job = queue.claim("w")
    assert job is not None
    queue.fail(job, "it failed")
    queue.table.execute("PRAGMA journal_mode = DELETE")
    queue.close()
    shutil.move(folder / "batch" / FILE, folder / FILE)
    return [folder / FILE]


def damaged_queue(good: Path, folder: Path, random_: random.Random) -> tuple[str, Path]:
    """A queue with mutated bytes, or whose table says something odd."""
    if random_.random() < 0.6:
        return damaged_bytes(good, folder, random_)
    path = folder / FILE
    shutil.copy(good, path)
    table = sqlite3.connect(path)
    columns = [row[1] for row in table.execute("PRAGMA table_info(jobs)")]
    values = [
        0,
        -1,
        2**62,
        "",
        "../../x.mp4",
        "/etc/x.mp4",
        "{",
        "[]",
        "null",
        b"\xff\x00",
        1e308,
        "queued",
    ]
    column, value = random_.choice(columns), random_.choice(values)
    try:
        table.execute(
            f"UPDATE jobs SET {column} = ? WHERE id = ?", (value, random_.randrange(1, 5))
        )
        table.commit()
    except sqlite3.Error:
        table.execute(
            random_.choice(
                (
                    "DROP TABLE jobs",
                    "DROP TABLE history",
                    "DELETE FROM jobs",
                    "PRAGMA user_version = 7",
                )
            )
        )
        table.commit()
    table.close()
    return f"{column}={value!r}", path


def check_queue(path: Path) -> None:
    """Asks a queue for everything, and works jobs off in it; results stay in its folder."""
    from hgc_video.jobs.queue import Result

    queue = Queue(path.parent)
    status_of(queue, time.time())
    json.dumps(rows_of(queue), default=str)
    queue.recover()
    queue.retry_failed()
    part = path.parent / "part"
    for _ in range(8):
        job = queue.claim("w")
        if job is None:
            break
        assert isinstance(job.options, dict)
        queue.beat({job.claim: (1, 2)})
        part.write_bytes(b"clip")
        target = (path.parent / job.name).resolve()
        assert target.is_relative_to(path.parent.resolve()), f"{job.name} leads out"
        queue.finish(job, part, Result("d", 1.0, 0.5))
    queue.close()
