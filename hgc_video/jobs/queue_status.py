"""What stands in a queue, as data and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .queue import Queue
from .queue_table import CANCELLED, FAILED, RUNNING, SET_ASIDE, STATES


@dataclass(frozen=True)
class RunningJob:
    """A job that is run: by whom, at which step, and how long ago that was told."""

    id: int
    name: str
    worker: str
    step: int
    steps: int
    heard_s: float


@dataclass(frozen=True)
class LostJob:
    """A job that failed or was set aside, and why."""

    id: int
    name: str
    state: str
    why: str


@dataclass(frozen=True)
class Status:
    """Jobs by state, those that run, those without a result, those that were cancelled (id and name);
    seconds of work and the share of the MACs saved, both of the jobs that are done."""

    counts: dict[str, int]
    running: tuple[RunningJob, ...]
    lost: tuple[LostJob, ...]
    cancelled: tuple[tuple[int, str], ...]
    seconds: float
    macs_saved: float

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        total = sum(self.counts.values())
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items() if count)
        lines = [f"{total} jobs: {counts or 'none'}"]
        if self.counts["done"]:
            lines.append(
                f"done: {self.seconds:.1f} s of work, {100 * self.macs_saved:.1f} % of the MACs saved"
            )
        lines += [
            f"running  {job.id:>5}  {job.name}  step {job.step} of {job.steps or '?'}  on {job.worker}, "
            f"heard {job.heard_s:.0f} s ago"
            for job in self.running
        ]
        lines += [f"{job.state:<9}{job.id:>5}  {job.name}: {job.why}" for job in self.lost]
        lines += [f"cancelled{number:>5}  {name}" for number, name in self.cancelled]
        return "\n".join(lines)


def status_of(queue: Queue, now: float) -> Status:
    """What stands in a queue; `now` is the time by which heartbeats are old."""
    table = queue.table
    counts = dict.fromkeys(STATES, 0)
    for row in table.execute("SELECT state, COUNT(*) AS count FROM jobs GROUP BY state"):
        counts[row["state"]] = row["count"]
    running = tuple(
        RunningJob(
            row["id"], row["name"], row["worker"], row["step"], row["steps"], now - row["heartbeat"]
        )
        for row in table.execute("SELECT * FROM jobs WHERE state = ? ORDER BY id", (RUNNING,))
    )
    lost = tuple(
        LostJob(row["id"], row["name"], row["state"], row["why"] or "")
        for row in table.execute(
            "SELECT id, name, state, why FROM jobs WHERE state IN (?, ?) ORDER BY id",
            (FAILED, SET_ASIDE),
        )
    )
    cancelled = tuple(
        (row["id"], row["name"])
        for row in table.execute(
            "SELECT id, name FROM jobs WHERE state = ? ORDER BY id", (CANCELLED,)
        )
    )
    done = table.execute(
        "SELECT COALESCE(SUM(seconds), 0) AS s, COALESCE(AVG(macs_saved), 0) AS saved FROM jobs "
        "WHERE state = 'done'"
    ).fetchone()
    return Status(counts, running, lost, cancelled, done["s"], done["saved"])


def rows_of(queue: Queue) -> list[dict[str, Any]]:
    """Every job of a queue in its order as plain data: id, name, state, steps, and how it ended."""
    columns = "id, name, state, step, steps, worker, why, seconds, macs_saved, warnings"
    return [dict(row) for row in queue.table.execute(f"SELECT {columns} FROM jobs ORDER BY id")]
