"""Where the runs of a batch's jobs leave what resumes them, and what lies there that nothing will resume.

A process that is killed between that a job is done and that its work is removed leaves it; so does a job
whose configuration changed before it was done.
"""

from __future__ import annotations

import re
from pathlib import Path

from .engines.work_sync import names_at, remove_work
from .queue import Job, Queue
from .queue_table import DONE

OWN = "work"  # the default, in the batch folder
_NAME = re.compile(r"(?P<batch>.*)-(?P<job>\d+)-(?P<key>[0-9a-f]{8})")


def work_of(job: Job, folder: Path, storage: str) -> str:
    """The folder or URL of a job's run beneath the storage; none where there is no storage."""
    own = f"{folder.absolute().name}-{job.id}-{job.key[:8]}"
    return f"{storage}/{own}" if storage else ""


def remove_left_work(queue: Queue, storage: str) -> None:
    """Removes what runs of jobs that are done have left; in the batch folder, which no other batch shares,
    that of jobs that are there no more, or in another configuration, too."""
    folder = queue.folder.absolute()
    is_own = storage == str(folder / OWN)
    for name in names_at(storage):
        found = _NAME.fullmatch(name)
        if found is None or not (is_own or found["batch"] == folder.name):
            continue
        row = queue.table.execute(
            "SELECT key, state FROM jobs WHERE id = ?", (int(found["job"]),)
        ).fetchone()
        is_its = row is not None and row["key"].startswith(found["key"])
        if row["state"] == DONE if is_its else is_own:
            remove_work(f"{storage}/{name}")
