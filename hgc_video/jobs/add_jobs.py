"""Puts jobs into a queue: those it has are known again, and none takes the place of another's result."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..plain_data import HALVES
from .queue import Queue, options_of
from .queue_table import DONE, QUEUED, RUNNING, transaction


@dataclass(frozen=True)
class NewJob:
    """A job to be: the name of its result in the batch folder, its options with absolute paths, the hash of
    what it makes, and what of it decides which model is loaded."""

    name: str
    options: Mapping[str, Any]
    key: str
    loading: str


@dataclass(frozen=True)
class Added:
    """How many jobs were new, were there and done, were there in another state, and were changed."""

    new: int
    done: int
    waiting: int
    changed: int

    def __str__(self) -> str:
        parts = {
            "new": self.new,
            "done before": self.done,
            "there": self.waiting,
            "changed": self.changed,
        }
        return ", ".join(f"{count} {what}" for what, count in parts.items() if count) or "no jobs"


def add_jobs(queue: Queue, jobs: Iterable[NewJob]) -> Added:
    """Adds jobs to a queue, all or none.

    A job that is there is left as it is, unless its clip was removed: then it is made again. One whose
    configuration or input changed takes the place of the old one that has no result.

    Raises:
        InputError: a result of this name is there, of another configuration or of no job; or such a job runs.
    """
    counts = {"new": 0, "done": 0, "waiting": 0, "changed": 0}
    with transaction(queue.table) as table:
        for job in jobs:
            row = table.execute("SELECT * FROM jobs WHERE name = ?", (job.name,)).fetchone()
            counts[_add(queue, job, row)] += 1
    return Added(**counts)


def require_free(folder: Path, job: NewJob) -> None:
    """InputError where a file that is no result of this batch has the name of the job's."""
    if (folder / job.name).exists():
        raise InputError(
            f'"{folder / job.name}" is there and no result of this batch; move it, or name '
            "results otherwise with --name"
        )


def _add(queue: Queue, job: NewJob, row: Any) -> str:
    is_there = (queue.folder / job.name).exists()
    if row is None:
        require_free(queue.folder, job)
        _insert(queue, job)
        return "new"
    if row["key"] == job.key:
        if row["state"] == DONE and not is_there:
            _replace(queue, job, row["id"])
            return "changed"
        return "done" if row["state"] == DONE else "waiting"
    if row["state"] == RUNNING or (row["state"] == DONE and is_there):
        state = "is running" if row["state"] == RUNNING else "is done"
        remedy = (
            "cancel it first" if row["state"] == RUNNING else "remove that file to make it anew"
        )
        raise InputError(
            f'"{queue.folder / job.name}" {state} with other options ({_difference(row, job)}); '
            f"{remedy}, or name results otherwise with --name"
        )
    _replace(queue, job, row["id"])
    return "changed"


def _insert(queue: Queue, job: NewJob) -> None:
    made = queue.table.execute(
        "INSERT INTO jobs (name, key, loading, options) VALUES (?, ?, ?, ?)",
        (job.name, job.key, job.loading, _text(job)),
    )
    queue.set_state(int(made.lastrowid or 0), QUEUED)


def _replace(queue: Queue, job: NewJob, number: int) -> None:
    queue.set_state(
        number, QUEUED, key=job.key, loading=job.loading, options=_text(job), deaths=0, why=None,
        digest=None, worker=None,
    )  # fmt: skip


def _text(job: NewJob) -> str:
    text = json.dumps(job.options, ensure_ascii=False, default=str)
    return text.encode(errors=HALVES).decode()  # SQLite takes no half characters


def _difference(row: Any, job: NewJob) -> str:
    """What two configurations differ in."""
    old, new = options_of(row["options"]), options_of(_text(job))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(names) or "a file that it reads"
