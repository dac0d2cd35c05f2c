"""Trials of `hgc-video batch` with real clips: each job done once, whatever is killed and whoever joins in.

.venv/bin/python scripts/batch_trial.py --jobs 40 --workers 2 --kills 2
.venv/bin/python scripts/batch_trial.py --jobs 3 --workers 1 --calls 2 --rounds 25
.venv/bin/python scripts/batch_trial.py --jobs 40 --kills 2 --engine ray --address HOST:PORT
.venv/bin/python scripts/batch_trial.py --jobs 2 --kill-node --num-frames 4 --num-inference-steps 30

`--kill-node` starts a Ray cluster of two nodes on this machine, whose work folders lie at `--storage` (a
folder or a file:// URL, the default), and ends all processes of one node while its job has a checkpoint
there: the job must go on from it on the other node, to the bytes of a run that nobody ended.

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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where the tests are

from hgc_video.files import sha256_of

PROMPT = "a dancer in a red shirt and blue trousers on a beach"
CLIP = Path(__file__).resolve().parent.parent / "examples" / "dance_pose.mp4"
COMMAND = (sys.executable, "-c", "from hgc_video.cli import main; main()", "batch")


def options(given: argparse.Namespace) -> dict[str, Any]:
    """Those of every job, but for its clip and seed."""
    return {
        "prompt": PROMPT, "num_frames": given.num_frames, "preset": given.preset,
        "num_inference_steps": given.num_inference_steps, "checkpoint_every_s": given.every_s,
    }  # fmt: skip


def write_jobs(folder: Path, given: argparse.Namespace) -> Path:
    """A list of small jobs that differ in their seeds."""
    shutil.copy(CLIP, folder / "pose.mp4")
    job = {"name": "clip", "control": {"pose": "pose.mp4"}, **options(given)}
    told = {"seeds": given.jobs, "jobs": [job]}
    (folder / "jobs.yaml").write_text(json.dumps(told))
    return folder / "jobs.yaml"


def run_round(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One round: the calls, the kills while they run, and what they left."""
    source = write_jobs(folder, given)
    told_options = ["--workers", str(given.workers), "--engine", given.engine, "--json"]
    told_options += ["--address", given.address] if given.engine == "ray" else []
    told_options += ["--storage", given.storage] if given.storage else []
    began = time.perf_counter()
    calls = [
        subprocess.Popen([*COMMAND, str(source), *told_options], stdout=subprocess.PIPE, text=True)
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


def run_node_round(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A round in which a node of a cluster ends; what came of its job, and how long that took."""
    from tests.local_ray import local_cluster

    given.engine, given.storage = "ray", given.storage or f"file://{folder / 'storage'}"
    source = write_jobs(folder, given)
    with local_cluster(folder) as cluster:
        command = [*COMMAND, str(source), "--engine", "ray", "--address", cluster.address, "--json"]
        began = time.perf_counter()
        call = subprocess.Popen(
            [*command, "--storage", given.storage], stdout=subprocess.PIPE, text=True
        )
        told = watch_node(call, cluster.nodes[1], given)
        told["codes"] = [call.wait()]
        told["seconds"] = time.perf_counter() - began
    told |= examine(source.with_suffix(".batch"))
    told["same_bytes"] = is_unbroken(given, folder, source.with_suffix(".batch") / told.pop("name"))
    return told


def watch_node(call: subprocess.Popen[str], node: Any, given: argparse.Namespace) -> dict[str, Any]:
    """Ends a node when a job on it has a checkpoint at the storage; which job, and how that went on."""
    pids: dict[str, int] = {}
    told: dict[str, Any] = {"died": 0}
    assert call.stdout is not None
    for line in call.stdout:
        event, now = json.loads(line), time.perf_counter()
        what, job = event["event"], event.get("job")
        told["died"] += what == "died"
        if what == "ready":
            pids[event["slot"]] = int(event["where"].rpartition(":")[2])
        elif what == "step" and "job" not in told:
            there = pids[event["slot"]] in {process.pid for process in node.processes}
            if there and has_checkpoint(given.storage, job):
                told |= {"job": job, "name": event["name"], "steps_before": event["step"]}
                ended = now
                node.kill()
                print(f"ended the node of job {job} at step {event['step']}", flush=True)
        elif what == "died" and job == told.get("job"):
            told["noticed_s"] = now - ended
        elif what == "step" and job == told.get("job") and "noticed_s" in told:
            told.setdefault("first_step_after", event["step"])
            told.setdefault("going_on_s", now - ended)
    return told


def has_checkpoint(storage: str, job: int) -> bool:
    """Whether a checkpoint of a job is whole at a folder or a file:// URL."""
    place = Path(storage.removeprefix("file://"))
    return any(place.glob(f"*-{job}-*/checkpoint-*/COMPLETE"))


def is_unbroken(given: argparse.Namespace, folder: Path, clip: Path) -> bool:
    """Whether a clip has the bytes of a run of its own that nobody ended."""
    import hgc_video

    seed = int(clip.stem.rpartition("seed")[2])
    # In a folder of its own, as an actor's: a clip tells where its inputs lie as seen from it.
    own = Path(tempfile.mkdtemp()) / clip.name
    hgc_video.generate(
        control={"pose": folder / "pose.mp4"},
        **options(given),
        seed=seed,
        out=own,
        progress=False,
    )
    same = sha256_of(own) == sha256_of(clip)
    shutil.rmtree(own.parent)
    return same


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
    parser.add_argument("--storage", default="", help="where unfinished runs lie")
    parser.add_argument("--kill-node", action="store_true", help="end a node of a cluster of two")
    parser.add_argument("--num-frames", type=int, default=1)
    parser.add_argument("--num-inference-steps", type=int, default=1)
    parser.add_argument("--every-s", type=float, default=60.0, help="between checkpoints")
    parser.add_argument("--preset", default="off")
    given = parser.parse_args(arguments)
    wrong = 0
    for number in range(1, given.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            run = run_node_round if given.kill_node else run_round
            told = run(given, Path(folder))
        jobs = given.jobs
        holds = (told["clips"], told["right"], told["left_over"]) == (jobs, jobs, 0)
        kills = given.kills + given.kill_node
        holds &= told["done_at_most"] == 1 and told["begun_at_most"] <= 1 + bool(kills)
        holds &= told["died"] == kills and set(told["codes"]) == {0}
        if given.kill_node:
            holds &= told["same_bytes"] and told["first_step_after"] > 1
        wrong += not holds
        print(f"round {number:>3}  {'holds' if holds else 'WRONG'}  {told}", flush=True)
    if wrong:
        sys.exit(f"{wrong} of {given.rounds} rounds went wrong")


if __name__ == "__main__":
    main()
