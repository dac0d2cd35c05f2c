"""The queue of a batch: which job is whose, and how each one ends. Several processes may use one queue.

A job is run under a claim. What a run makes counts only while its claim holds, so that a result appears once
even where a worker that was given up for dead comes back. Knows nothing about how clips are made.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import sha256_of
from ..plain_data import is_whole, parse_json
from .owner import is_gone, is_here, this_owner
from .queue_table import (
    CANCELLED,
    DONE,
    FAILED,
    FILE,
    QUEUED,
    RUNNING,
    SET_ASIDE,
    open_table,
    transaction,
)  # fmt: skip

MOST_DEATHS = 2  # of its workers; a job that has them is set aside
MOST_FAULTS = 4  # as many tries end by faults of the machine, which wait for each other
STALE_S = 60.0  # without a heartbeat a job's process is given up for dead


@dataclass(frozen=True)
class Job:
    """A job under a claim: its options with absolute paths, its result's name in the batch folder, and the
    hash of what it makes."""

    id: int
    name: str
    key: str
    options: Mapping[str, Any]
    claim: str
    loading: str


@dataclass(frozen=True)
class Result:
    """What a finished job is known by: the SHA-256 of its clip, seconds, the share of the MACs saved, and
    what the run warned of."""

    digest: str
    seconds: float
    macs_saved: float
    warnings: tuple[str, ...] = ()


class Queue:
    """The queue in a batch folder. One object for each process and thread.

    Raises:
        InputError: there can be no queue in this folder.
    """

    def __init__(
        self, folder: Path, *, clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.folder, self.owner, self._now, self._steady = folder, this_owner(), clock, steady
        self._watched: dict[str, tuple[float, float]] = {}  # heartbeats by claim, and since when
        self.table = open_table(folder)
        self._file = _identity(folder / FILE)

    def close(self) -> None:
        """Closes the file."""
        self.table.close()

    def claim(self, worker: str, loading: str = "") -> Job | None:
        """The next queued job, now run by `worker`; one for the model that is `loading`, if there is any.
        A job whose try was cut off comes after those that were not tried.

        Raises:
            InputError: the folder of the batch was moved or removed meanwhile.
        """
        self._require_file()
        find = (
            "SELECT id, name, key, options, loading FROM jobs WHERE state = ? {} "
            "ORDER BY deaths, id LIMIT 1"
        )
        with transaction(self.table) as table:
            row = table.execute(find.format("AND loading = ?"), (QUEUED, loading)).fetchone()
            row = row or table.execute(find.format(""), (QUEUED,)).fetchone()
            if row is None:
                return None
            claim = secrets.token_hex(8)
            self.set_state(
                row["id"], RUNNING, worker=worker, owner=self.owner, claim=claim, cancel=0,
                heartbeat=self._now(), step=0, steps=0, why=None,
            )  # fmt: skip
        return Job(
            row["id"], row["name"], row["key"], options_of(row["options"]), claim, row["loading"]
        )

    def beat(self, steps: Mapping[str, tuple[int, int]]) -> set[str]:
        """Says that the jobs under these claims are at these steps (done, of all); gives back the claims
        whose runs are to stop: cancelled, or no longer theirs."""
        with transaction(self.table) as table:
            holding = {}
            for claim, (step, of) in steps.items():
                table.execute(
                    "UPDATE jobs SET heartbeat = ?, step = ?, steps = ? WHERE claim = ?",
                    (self._now(), step, of, claim),
                )
                row = table.execute("SELECT cancel FROM jobs WHERE claim = ?", (claim,)).fetchone()
                holding[claim] = row is not None and not row["cancel"]
        return {claim for claim, holds in holding.items() if not holds}

    def finish(self, job: Job, part: Path, result: Result) -> bool:
        """Puts a job's clip in its place and marks it done; False, and the clip is no result, where the
        claim is not its own any more. InputError where the folder of the batch was moved or removed."""
        self._require_file()
        with transaction(self.table):
            if not self._holds(job):
                return False
            target = self.folder / job.name
            if part.exists() or not _is_result(
                target, result
            ):  # put there by a try that failed then
                target.parent.mkdir(parents=True, exist_ok=True)
                _sync(part)
                part.replace(target)
            _sync(target.parent)
            self.set_state(
                job.id, DONE, claim=None, digest=result.digest, seconds=result.seconds, why=None,
                macs_saved=result.macs_saved, warnings="\n".join(result.warnings) or None,
            )  # fmt: skip
        return True

    def fail(self, job: Job, why: str) -> None:
        """Marks a job as failed, where the claim holds."""
        self._end(job, FAILED, why)

    def give_back(self, job: Job) -> None:
        """Puts a job that was stopped back into the queue; or marks it cancelled, where it was."""
        with transaction(self.table) as table:
            if self._holds(job):
                row = table.execute("SELECT cancel FROM jobs WHERE id = ?", (job.id,)).fetchone()
                self.set_state(job.id, CANCELLED if row["cancel"] else QUEUED, claim=None, cancel=0)

    def died(self, job: Job, why: str, most: int = MOST_DEATHS) -> str:
        """Counts the death of a job's worker, or another end that is not the job's own; gives back the job's
        state: queued again, or set aside after the last of `most`."""
        with transaction(self.table):
            if not self._holds(job):
                return ""
            return self._count_death(job.id, why, most)

    def recover(self) -> list[int]:
        """Counts the deaths of whole processes: jobs that nobody runs any more; gives back their ids."""
        with transaction(self.table) as table:
            running = table.execute(
                "SELECT id, owner, claim, heartbeat FROM jobs WHERE state = ?", (RUNNING,)
            ).fetchall()
            lost = [row["id"] for row in running if self._is_lost(row)]
            for job in lost:
                self._count_death(job, "the process that ran it is gone")
        return lost

    def retry_failed(self) -> int:
        """Puts failed jobs and those set aside back into the queue; gives back how many."""
        return self._requeue((FAILED, SET_ASIDE))

    def retry(self, jobs: Iterable[int]) -> None:
        """Puts these jobs, which failed, were set aside or were cancelled, back into the queue.

        Raises:
            InputError: one of them is not there, or is in another state; then all stay as they are.
        """
        with transaction(self.table) as table:
            for job in jobs:
                row = table.execute("SELECT state FROM jobs WHERE id = ?", (job,)).fetchone()
                if row is None:
                    raise InputError(
                        f"there is no job {job} in {self.folder}; hgc-video batch --status lists them"
                    )
                if row["state"] not in (FAILED, SET_ASIDE, CANCELLED):
                    raise InputError(
                        f"job {job} is {row['state']}; those that failed, were set aside or were cancelled "
                        "can be tried again"
                    )
                self._queue_again(job)

    def cancel(self, job: int) -> str:
        """Cancels a queued job, or has a running one stopped at its next step; gives back the state that
        the job was in, nothing where there is none."""
        with transaction(self.table) as table:
            row = table.execute("SELECT state FROM jobs WHERE id = ?", (job,)).fetchone()
            if row is None:
                return ""
            if row["state"] == RUNNING:
                table.execute("UPDATE jobs SET cancel = 1 WHERE id = ?", (job,))
            elif row["state"] != DONE:
                self.set_state(job, CANCELLED)
        return str(row["state"])

    def _require_file(self) -> None:
        """SQLite goes on with a file that was moved or removed, which nobody finds any more: what would be
        put down there is lost, and clips would lie in a new folder of that name."""
        if _identity(self.folder / FILE) != self._file:
            raise InputError(
                f'the queue in "{self.folder}" is gone, or another is in its place: the folder was moved or '
                "removed meanwhile; put it back and start the batch again"
            )

    def _requeue(self, states: Iterable[str]) -> int:
        with transaction(self.table) as table:
            marks = ", ".join("?" for _ in states)
            rows = table.execute(
                f"SELECT id FROM jobs WHERE state IN ({marks})", tuple(states)
            ).fetchall()
            for row in rows:
                self._queue_again(row["id"])
        return len(rows)

    def _queue_again(self, job: int) -> None:
        self.set_state(job, QUEUED, deaths=0, cancel=0, why=None, worker=None)

    def _end(self, job: Job, state: str, why: str) -> None:
        with transaction(self.table):
            if self._holds(job):
                self.set_state(job.id, state, claim=None, why=why)

    def _holds(self, job: Job) -> bool:
        row = self.table.execute("SELECT claim FROM jobs WHERE id = ?", (job.id,)).fetchone()
        return row is not None and row["claim"] == job.claim

    def _is_lost(self, row: sqlite3.Row) -> bool:
        """Whether nobody runs a job any more.

        The wall clock, which may be set or stand still while a machine sleeps, is asked of processes of
        unknown machines alone; a process that is there has lost its job when its heartbeat was the same
        for so long by our own steady clock.
        """
        owner, claim, heartbeat = row["owner"], row["claim"], row["heartbeat"]
        if is_gone(owner) or (not is_here(owner) and self._now() - heartbeat > STALE_S):
            return True
        before, since = self._watched.get(claim, (heartbeat, self._steady()))
        self._watched[claim] = (heartbeat, since if before == heartbeat else self._steady())
        return self._steady() - self._watched[claim][1] > STALE_S

    def _count_death(self, job: int, why: str, most: int = MOST_DEATHS) -> str:
        row = self.table.execute("SELECT deaths, cancel FROM jobs WHERE id = ?", (job,)).fetchone()
        deaths = row["deaths"] + 1
        state = SET_ASIDE if deaths >= most else QUEUED
        state = CANCELLED if row["cancel"] else state
        self.set_state(job, state, claim=None, deaths=deaths, why=why)
        return state

    def set_state(self, job: int, state: str, **columns: Any) -> None:
        """Changes a job's state and columns, and says so in the history."""
        changed = {"state": state, **columns}
        names = ", ".join(f"{name} = ?" for name in changed)
        self.table.execute(f"UPDATE jobs SET {names} WHERE id = ?", (*changed.values(), job))
        self.table.execute(
            "INSERT INTO history SELECT ?, id, state, worker, why FROM jobs WHERE id = ?",
            (self._now(), job),
        )


def options_of(text: str) -> dict[str, Any]:
    """Options as they were, of JSON, which has no numbers for keys."""
    options: dict[str, Any] = parse_json(text)
    if isinstance(prompt := options.get("prompt"), dict):
        options["prompt"] = {
            int(frame) if is_whole(frame) else frame: words for frame, words in prompt.items()
        }
    return options


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one that lies in its place; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_result(path: Path, result: Result) -> bool:
    """Whether a file is the clip of this result."""
    return path.is_file() and sha256_of(path) == result.digest


def _sync(path: Path) -> None:
    """Has a file or a folder's names on the disk before anything says that it is there."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
