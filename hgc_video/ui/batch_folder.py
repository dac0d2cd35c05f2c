"""The folder of a batch as the page shows it: its jobs, their results, and trying again."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import user_path
from ..jobs.queue import Queue
from ..jobs.queue_status import rows_of, status_of
from ..jobs.queue_table import DONE, has_table


class BatchFolder:
    """The batch folder that the page was started with.

    Raises:
        InputError: it is no batch folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = user_path(folder).absolute()
        if not has_table(self.folder):
            raise InputError(
                f'"{folder}" is no batch folder; start one with hgc-video batch SOURCE'
            )

    def to_dict(self) -> dict[str, Any]:
        """Every job, and how many are in which state."""
        with closing(Queue(self.folder)) as queue:
            seen = status_of(queue, time.time())
            return {"folder": str(self.folder), "counts": seen.counts, "jobs": rows_of(queue)}

    def retry(self) -> int:
        """Puts failed jobs back into the queue; gives back how many."""
        with closing(Queue(self.folder)) as queue:
            return queue.retry_failed()

    def cancel(self, job: int) -> str:
        """Cancels a job; gives back the state that it was in."""
        with closing(Queue(self.folder)) as queue:
            return queue.cancel(job)

    def result(self, job: int) -> Path:
        """The clip of a job that is done."""
        with closing(Queue(self.folder)) as queue:
            for row in rows_of(queue):
                if row["id"] == job and row["state"] == DONE:
                    return self.folder / str(row["name"])
        raise InputError(f"job {job} has no clip; it is not done")
