"""Trials of `hgc-video batch` with real clips: each job done once, whatever is killed and whoever joins in.

.venv/bin/python scripts/batch_trial.py --jobs 40 --workers 2 --kills 2
.venv/bin/python scripts/batch_trial.py --jobs 3 --workers 1 --calls 2 --rounds 25
.venv/bin/python scripts/batch_trial.py --jobs 40 --kills 2 --engine ray --address HOST:PORT

`--kills` ends so many workers with SIGKILL while they are at a clip, each at another job; `--calls` starts so
many `batch` commands on one folder at once. What must hold is checked in every round: as many results as
jobs, each made once and no more, and every clip's hash the one that was noted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hgc_video.files import sha256_of

PROMPT = "a dancer in a red shirt and blue trousers on a beach"
CLIP = Path(__file__).resolve().parent.parent / "examples" / "dance_pose.mp4"
COMMAND = (sys.executable, "-c", "from hgc_video.cli import main; main()", "batch")


def write_jobs(folder: Path, jobs: int) -> Path:
    """A list of small jobs that differ in their seeds."""
    shutil.copy(CLIP, folder / "pose.mp4")
    told = {
        "seeds": jobs,
        "jobs": [
            {
                "name": "clip", "control": {"pose": "pose.mp4"}, "prompt": PROMPT, "num_frames": 1,
                "num_inference_steps": 1, "preset": "off",
            }
        ],
    }  # fmt: skip
    (folder / "jobs.yaml").write_text(json.dumps(told))
    return folder / "jobs.yaml"


def run_round(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One round: the calls, the kills while they run, and what they left."""
    source = write_jobs(folder, given.jobs)
    options = ["--workers", str(given.workers), "--engine", given.engine, "--json"]
    options += ["--address", given.address] if given.engine == "ray" else []
    began = time.perf_counter()
    calls = [
        subprocess.Popen([*COMMAND, str(source), *options], stdout=subprocess.PIPE, text=True)
        for _ in range(given.calls)
    ]
    events = watch(calls[0], given) if given.kills else []
    for call in calls:
        events += [json.loads(line) for line in call.communicate()[0].splitlines()]
    told = examine(source.with_suffix(".batch"))
    told["seconds"] = time.perf_counter() - began
    told["codes"] = [call.returncode for call in calls]
    told["died"] = sum(event["event"] == "died" for event in events)
    told["loads"] = sum(bool(event.get("loaded")) for event in events)
    return told


def watch(call: subprocess.Popen[str], given: argparse.Namespace) -> list[dict[str, Any]]:
    """Kills workers at jobs that lie apart; gives back the events until the last of it."""
    events: list[dict[str, Any]] = []
    at = [round((k + 1) * given.jobs / (given.kills + 1)) for k in range(given.kills)]
    assert call.stdout is not None
    pids: dict[str, int] = {}
    for line in call.stdout:
        event = json.loads(line)
        events.append(event)
        if event["event"] == "ready":
            pids[event["slot"]] = int(event["where"].rpartition(":")[2])
        started = sum(event["event"] == "started" for event in events)
        if at and started >= at[0] and event["event"] == "started":
            os.kill(pids[event["slot"]], signal.SIGKILL)
            print(f"killed worker {pids[event['slot']]} at job {event['job']}", flush=True)
            at.pop(0)
        if not at:
            break
    return events


def examine(folder: Path) -> dict[str, Any]:
    """What a batch left: jobs by state, the most often that one was begun and done, clips with their hash."""
    table = sqlite3.connect(folder / "queue.sqlite")
    per_job = "SELECT MAX(n) FROM (SELECT COUNT(*) AS n FROM history WHERE state = ? GROUP BY job)"
    rows = table.execute("SELECT name, digest FROM jobs WHERE state = 'done'").fetchall()
    right = sum(sha256_of(folder / name) == digest for name, digest in rows)
    told = {
        "states": dict(table.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state").fetchall()),
        "begun_at_most": table.execute(per_job, ("running",)).fetchone()[0],
        "done_at_most": table.execute(per_job, ("done",)).fetchone()[0],
        "clips": len(list(folder.glob("*.mp4"))), "right": right,
        "left_over": len(list(folder.glob(".*part-*"))),
    }  # fmt: skip
    table.close()
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the rounds; ends with an error where one went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--calls", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--address", default="auto")
    given = parser.parse_args(arguments)
    wrong = 0
    for number in range(1, given.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            told = run_round(given, Path(folder))
        jobs = given.jobs
        holds = (told["clips"], told["right"], told["left_over"]) == (jobs, jobs, 0)
        holds &= told["done_at_most"] == 1 and told["begun_at_most"] <= 1 + bool(given.kills)
        holds &= told["died"] == given.kills and set(told["codes"]) == {0}
        wrong += not holds
        print(f"round {number:>3}  {'holds' if holds else 'WRONG'}  {told}", flush=True)
    if wrong:
        sys.exit(f"{wrong} of {given.rounds} rounds went wrong")


if __name__ == "__main__":
    main()
