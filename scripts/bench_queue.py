"""How fast the queue of a batch is: a status, a claim, and the second job of a worker.

.venv/bin/python scripts/bench_queue.py --jobs 10000 --claims 200 --json runs/bench_queue.json

With --model also how long a worker takes for its first and its second job, the model loaded once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from hgc_video.jobs.add_jobs import NewJob, add_jobs
from hgc_video.jobs.queue import Queue, Result
from hgc_video.jobs.queue_status import status_of

PROMPT = "a dancer in a red shirt and blue trousers on a beach"
CLIP = Path(__file__).resolve().parent.parent / "examples" / "dance_pose.mp4"


def seconds(work: Any) -> float:
    """Seconds that a piece of work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def queue_figures(folder: Path, jobs: int, claims: int) -> dict[str, float]:
    """Seconds to add jobs, to claim, to beat, to finish one, and to tell how all stand."""
    queue = Queue(folder)
    new = [
        NewJob(f"{n}.mp4", {"prompt": PROMPT, "seed": n}, str(n), str(n % 3)) for n in range(jobs)
    ]
    told = {"add_s": seconds(lambda: add_jobs(queue, new))}
    claiming, finishing, beating = [], [], []
    for n in range(claims):
        claimed: list[Any] = []
        claiming.append(seconds(lambda: claimed.append(queue.claim("bench", "1"))))  # noqa: B023
        (job,) = claimed
        part = folder / f"part{n}"
        part.write_bytes(b"clip")
        beating.append(seconds(lambda: queue.beat({job.claim: (1, 25)})))  # noqa: B023
        finishing.append(seconds(lambda: queue.finish(job, part, Result("0", 1.0, 0.5))))  # noqa: B023
    for name, values in (("claim", claiming), ("beat", beating), ("finish", finishing)):
        told[f"{name}_median_s"], told[f"{name}_most_s"] = statistics.median(values), max(values)
    told["status_s"] = seconds(lambda: str(status_of(queue, time.time())))
    queue.close()
    return told


def worker_figures(folder: Path) -> dict[str, Any]:
    """Seconds of the first and the second job of one worker, and whether each loaded the model."""
    from hgc_video.jobs.task import Task
    from hgc_video.jobs.worker import Worker

    worker, told = Worker("cpu"), {}
    options = {
        "control_video": str(CLIP),
        "prompt": PROMPT,
        "num_frames": 1,
        "num_inference_steps": 1,
    }
    for number in ("first", "second"):
        task = Task(
            number, {**options, "seed": 1}, str(folder / f"{number}.mp4"), str(folder / "work")
        )
        began = time.perf_counter()
        outcome = worker.make(task, lambda step, of: None)
        told[f"{number}_job_s"] = time.perf_counter() - began
        told[f"{number}_job_loads"] = outcome.loaded
    return told


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--claims", type=int, default=200)
    parser.add_argument("--model", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told: dict[str, Any] = {"jobs": given.jobs, "claims": given.claims}
        told |= queue_figures(Path(folder) / "batch", given.jobs, given.claims)
        if given.model:
            told |= worker_figures(Path(folder))
    for name, value in told.items():
        print(f"{name:<18}{value:.4f}" if isinstance(value, float) else f"{name:<18}{value}")
    if given.json is not None:
        given.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
