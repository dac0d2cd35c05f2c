"""What the tests of the queue share: jobs, what a run wrote, a clock, and what the table says."""

from __future__ import annotations

from hgc_video.jobs.add_jobs import NewJob
from hgc_video.jobs.queue import Result

RESULT = Result("d" * 64, 1.5, 0.5, ("a warning",))


class Clock:
    """Stands still until a test sets it."""

    now = 1000.0

    def __call__(self):
        return self.now


def job(name, key="k", loading="m", **options):
    return NewJob(f"{name}.mp4", {"prompt": name, **options}, key, loading)


def part(queue, text="clip"):
    path = queue.folder / "part.mp4"
    path.write_text(text)
    return path


def states(queue):
    return {
        row["name"]: row["state"] for row in queue.table.execute("SELECT name, state FROM jobs")
    }
